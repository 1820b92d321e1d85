"""Which cores and how many threads: the scheduler's policies by the words of a command line."""

from collections.abc import Sequence
from dataclasses import dataclass

from bigvit_edge.errors import UserError, suggest
from bigvit_edge.machine import WORDS, Machine, select_cores

AUTO, EACH, ALL, LANES = "auto", "each", "all", "big,little"
KNOWN = (*WORDS, LANES, ALL, AUTO, EACH)


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

    words: 'big', 'middle', 'little', several joined by commas ('big,little': our runtime by lanes, the others on both
    alike), 'all', 'auto' or 'each', for all that the machine has; none: one thread, or `threads`, on the fastest
    cluster. threads: of each policy, of 'each' at most its cores; all its cores if None. UserError on other words, on
    clusters that the machine has not or lets nobody use, and on more threads than cores.
    """
    if not words:
        word, cores = next(((word, cores) for word in WORDS if (cores := _select(machine, word))), ("as it is", ()))
        return [_check(Policy(word, threads or 1, cores or None), machine)]
    policies: dict[str, Policy] = {}
    for named in words:
        if named == EACH:
            made = [policy for word in _list_all(machine) for policy in _make_most(machine, word, threads)]
        else:
            made = [_check(_make(machine, named, threads), machine)]
        for policy in made:
            policies.setdefault(policy.name, policy)
    return list(policies.values())


def _list_all(machine: Machine) -> list[str]:
    """Every policy of the clusters on which this process may run."""
    there = [word for word in WORDS if _select(machine, word)] or [ALL]
    lanes = [LANES] if {"big", "little"} <= set(there) else []
    return [*there, *lanes, *([ALL] if len(there) > 1 else []), AUTO]


def _make(machine: Machine, word: str, threads: int | None) -> Policy:
    if word in (ALL, AUTO):
        cores = _allow(machine, tuple(core.number for core in machine.cores if core.online))
        return Policy(word, threads or _count(machine, cores), cores or None, choose=word == AUTO)
    parts = word.split(",")
    if unknown := [part for part in parts if part not in WORDS]:
        raise UserError(f"--clusters {word!r}", f"of {', '.join(KNOWN)}", suggest(unknown[0], KNOWN))
    chosen = {part: _allow(machine, select_cores(machine, [part])) for part in WORDS if part in parts}
    for part, cores in chosen.items():
        if not cores:
            met = f"--clusters {part}, whose cores this process may not use there"
            raise UserError(
                met, f"some of {', '.join(word for word in WORDS if _select(machine, word))}", "name others"
            )
    cores = tuple(sorted(core for cores in chosen.values() for core in cores))
    name, count = ",".join(chosen), threads or _count(machine, cores)
    return Policy(name, count, cores, _part_lanes(chosen, count) if name == LANES else 0)


def _part_lanes(chosen: dict[str, tuple[int, ...]], threads: int) -> int:
    """Of so many threads, those of the LITTLE lane: as its share of the cores, and one at least on either side."""
    if threads < 2:
        raise UserError(f"{LANES} with {threads} thread", "two or more, one for each lane", "--threads 2, or more")
    little, cores = len(chosen["little"]), sum(map(len, chosen.values()))
    return min(max(1, threads * little // cores), threads - 1)


def _make_most(machine: Machine, word: str, threads: int | None) -> list[Policy]:
    """A policy of so many threads, or as many as it has cores; none of lanes where there is but one thread."""
    whole = _make(machine, word, None)
    count = min(threads or whole.threads, whole.threads)
    return [] if word == LANES and count < 2 else [_make(machine, word, count)]


def _select(machine: Machine, word: str) -> tuple[int, ...]:
    """A word's cores on which this process may run; () where the machine has none."""
    cores = [core for cluster in machine.clusters if cluster.word == word for core in cluster.cores]
    return _allow(machine, tuple(sorted(cores)))


def _allow(machine: Machine, cores: tuple[int, ...]) -> tuple[int, ...]:
    """Those that the process may be on at all."""
    limits = (machine.limits.allowed, machine.limits.cpuset)
    return tuple(core for core in cores if all(limit is None or core in limit for limit in limits))


def _count(machine: Machine, cores: tuple[int, ...]) -> int:
    """A thread a core; no more than a quota is worth, beyond which they stand still for most of each period."""
    return min(len(cores) or 1, machine.limits.usable or len(cores) or 1)


def _check(policy: Policy, machine: Machine) -> Policy:
    most = min(machine.limits.usable or policy.threads, len(policy.cores or ()) or policy.threads)
    if policy.threads <= most:
        return policy
    met = f"{policy.threads} threads on {policy.name} cores"
    raise UserError(
        met, f"at most {most}, which is what this process may use there", f"--threads {most}, or --clusters"
    )
