"""Which cores and how many threads: the scheduler's policies by the words of a command line."""

from collections.abc import Sequence
from dataclasses import dataclass

from bigvit_edge.errors import UserError, suggest
from bigvit_edge.machine import Machine, select_cores

AUTO, EACH, ALL, LANES = "auto", "each", "all", "big,little"


@dataclass(frozen=True)
class Policy:
    """Some of a device's cores, and threads on them.

    name: 'big', 'little', 'middle', 'big,little', 'all', 'auto'. cores: that the process is kept to; None: it is left
    where it is. little_threads: of these, those of our runtime's LITTLE lane. choose: our runtime tries what is fastest
    of up to so many threads.
    """

    name: str
    threads: int
    cores: tuple[int, ...] | None
    little_threads: int = 0
    choose: bool = False

    @property
    def ours_alone(self) -> bool:
        """Tell whether only our runtime has such a policy."""
        return self.choose


def list_policies(machine: Machine, words: Sequence[str], threads: int | None) -> list[Policy]:
    """List the policies asked for, in that order.

    words: 'big', 'little', 'big,little' (our runtime by lanes, the others on both alike), 'all', 'auto' or 'each', for
    all that the machine has; none: one thread, or `threads`, on the fastest cluster. threads: of each policy, at most
    its cores; all its cores if None. UserError on other words, and on clusters that the machine has not.
    """
    if not words:
        cores = _allow(machine, machine.clusters[0].cores) if machine.clusters else None
        return [_check(Policy("big" if cores else "as it is", threads or 1, cores), machine)]
    chosen = [word for named in words for word in (_list_all(machine) if named == EACH else [named])]
    return [_make(machine, word, threads) for word in dict.fromkeys(chosen)]


def _list_all(machine: Machine) -> list[str]:
    there = [cluster.word for cluster in machine.clusters]
    words = list(dict.fromkeys(there)) or [ALL]
    if "big" in there and "little" in there:
        words.append(LANES)
    return [*words, *([ALL] if len(words) > 1 else []), AUTO]


def _make(machine: Machine, word: str, threads: int | None) -> Policy:
    if word in (ALL, AUTO):
        cores = _allow(machine, tuple(core.number for core in machine.cores if core.online))
        return _check(Policy(word, threads or _count(machine, cores), cores, choose=word == AUTO), machine)
    parts = word.split(",")
    known = ("big", "middle", "little", LANES, ALL, AUTO, EACH)
    if unknown := [part for part in parts if part not in known[:3]]:
        raise UserError(f"--clusters {word}", f"of {', '.join(known)}", suggest(unknown[0], known))
    cores = _allow(machine, select_cores(machine, parts))
    count = threads or _count(machine, cores)
    little = _allow(machine, select_cores(machine, ["little"])) if word == LANES else None
    return _check(Policy(word, count, cores, min(len(little or ()), count - 1)), machine)


def _allow(machine: Machine, cores: tuple[int, ...]) -> tuple[int, ...] | None:
    """Those that the process may be on at all; None if that leaves none, or none is known."""
    allowed = machine.limits.allowed
    left = tuple(core for core in cores if allowed is None or core in allowed)
    return left or None


def _count(machine: Machine, cores: tuple[int, ...] | None) -> int:
    """A thread a core; no more than a quota is worth, beyond which they stand still for most of each period."""
    count = len(cores or ()) or 1
    return min(count, machine.limits.usable or count)


def _check(policy: Policy, machine: Machine) -> Policy:
    usable = machine.limits.usable
    if usable is None or policy.threads <= usable:
        return policy
    met = f"{policy.threads} threads on {policy.name} cores"
    raise UserError(met, f"at most {usable}, which is what this process may use there", f"--threads {usable}")
