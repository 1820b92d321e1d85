"""A machine as the runtime's probe tells it: cores, clocks, limits, temperatures, power sensors.

The fields are those of the JSON that `bve-run probe` prints. "" , None or () stand where the machine does not tell.
"""

import platform
from collections.abc import Sequence
from dataclasses import dataclass

from bigvit_edge.errors import UserError, suggest

WORDS = ("big", "middle", "little")
ALL = "all"


@dataclass(frozen=True)
class Core:
    """A logical CPU.

    midr: its identification register, "0x412fd050", on ARM. name: "Cortex-A55"; "0x51:0x802" where no table has it;
    "P-core" or "E-core" on a hybrid x86. capacity: the kernel's cpu_capacity, of 1024. current_khz: what cpufreq asked
    for last, which the firmware may undercut. domain: the lowest core that shares its clock.
    """

    number: int
    online: bool
    midr: str
    name: str
    capacity: int | None
    min_khz: int | None
    max_khz: int | None
    current_khz: int | None
    governor: str
    domain: int | None


@dataclass(frozen=True)
class Cluster:
    """Online cores of one kind, capacity, highest clock and clock domain.

    word: 'little' as the scheduler parts big from LITTLE; 'big' for the fastest and those within 10 % of it; else
    'middle'.
    """

    word: str
    name: str
    cores: tuple[int, ...]
    capacity: int | None
    max_khz: int | None


@dataclass(frozen=True)
class Limits:
    """What this process may use of the machine.

    allowed: cores of its affinity. group: its cgroup; cpuset: cores that leaves it. quota_cores: how many cores' worth
    of time its cgroups grant. throttled_periods, throttled_us: how often and how long they stopped it so far, summed
    over its cgroup and those around. usable: threads worth starting.
    """

    allowed: tuple[int, ...] | None
    group: str
    cpuset: tuple[int, ...] | None
    quota_cores: float | None
    throttled_periods: int | None
    throttled_us: int | None
    usable: int | None


@dataclass(frozen=True)
class Zone:
    """A thermometer.

    path: the file to read. temp_c: None where it cannot be read (`why` says so) or says what is no temperature. raw: as
    read, in whatever unit. cpu: whether it is one of the CPU's.
    """

    type: str
    path: str
    temp_c: float | None
    raw: str
    cpu: bool
    why: str


@dataclass(frozen=True)
class Clock:
    """A clock of memory, a bus or an accelerator (devfreq).

    path: the file to read; raw: as read, in Hz as documented, though some drivers count otherwise. memory: whether its
    name is that of a memory controller.
    """

    name: str
    path: str
    raw: str
    governor: str
    memory: bool
    why: str


@dataclass(frozen=True)
class Throttled:
    """A Raspberry Pi's firmware on under-voltage and throttling.

    path: the file that tells; "" where only the program `vcgencmd` may. bits: as of `vcgencmd get_throttled`.
    """

    path: str
    bits: int | None
    vcgencmd: str
    why: str


@dataclass(frozen=True)
class Pmu:
    """A performance monitor of one kind of core.

    type: as perf_event_open takes it. cores: which it can count on.
    """

    name: str
    type: int | None
    cores: tuple[int, ...] | None


@dataclass(frozen=True)
class Reading:
    """A file of a power sensor.

    quantity: power, energy, voltage, current, status. unit: as its kernel driver documents it: uW, mW, uJ, mV, uV, mA,
    uA; "" for a word.
    """

    quantity: str
    unit: str
    path: str
    raw: str


@dataclass(frozen=True)
class Sensor:
    """A power sensor.

    kind: odpm, hwmon (a chip on supply rails), pmic, powercap, battery. chip: the driver's name. label: the rail.
    total: whether it sees all that the machine takes, so that it must not be added to the others. readings: those of
    its files that could be read, or all where they do not suffice for its power. wraps_at: where an energy counter
    begins again. why: why it cannot be read.
    """

    kind: str
    chip: str
    label: str
    total: bool
    readings: tuple[Reading, ...]
    wraps_at: int | None
    readable: bool
    why: str


@dataclass(frozen=True)
class Unread:
    """What is there and could not be read, and why."""

    path: str
    why: str


@dataclass(frozen=True)
class Machine:
    """The facts that a machine tells of itself.

    cpu: its CPU's or SoC's name. board: what the CPU sits in. compatible: the device tree's words, most exact first.
    clusters: fastest first. isa: /proc/cpuinfo's words that every core has, of those that kernels here could use.
    """

    cpu: str
    board: str
    compatible: tuple[str, ...] = ()
    architecture: str = ""
    cores: tuple[Core, ...] = ()
    clusters: tuple[Cluster, ...] = ()
    isa: tuple[str, ...] = ()
    memory_bytes: int | None = None
    available_bytes: int | None = None
    os: str = ""
    kernel: str = ""
    limits: Limits = Limits(None, "", None, None, None, None, None)
    zones: tuple[Zone, ...] = ()
    clocks: tuple[Clock, ...] = ()
    throttled: Throttled | None = None
    perf_event_paranoid: int | None = None
    pmus: tuple[Pmu, ...] = ()
    sensors: tuple[Sensor, ...] = ()
    unread: tuple[Unread, ...] = ()


def parse_machine(text: str | bytes) -> Machine:
    """Parse what `bve-run probe` printed.

    UserError on anything else. Fields that this version does not know are left out.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(Machine).validate_json(text)
    except ValidationError as e:
        first = e.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole of it"
        raise UserError(f"a probe's answer with {where}: {first['msg']}", "the JSON that bve-run probe prints") from e


def read_platform(path: str, why: str) -> Machine:
    """Read what Python's `platform` tells.

    path, why: what could have told more, and why it did not.
    """
    system = f"{platform.system()} {platform.release()}".strip()
    return Machine(
        platform.processor() or platform.machine(), "", architecture=platform.machine(), os=system,
        kernel=platform.release(), unread=(Unread(path, why),),
    )  # fmt: skip


def describe(machine: Machine) -> str:
    """Describe a machine in one line for reports.

    CPU; cores (clusters); ISA flags; memory; operating system.
    """
    cores = sum(core.online for core in machine.cores)
    told = any(cluster.name or cluster.max_khz for cluster in machine.clusters)
    clusters = " + ".join(f"{len(cluster.cores)} {name_cluster(cluster)}" for cluster in machine.clusters if told)
    named = f"{machine.board} ({machine.cpu})" if machine.board and machine.cpu else machine.board or machine.cpu
    system = machine.os if machine.kernel in machine.os else f"{machine.os} {machine.kernel}".strip()
    parts = (
        named or "CPU not told",
        f"{cores} cores" + (f" ({clusters})" if clusters else "") if cores else "cores not told",
        " ".join(machine.isa) or "no known ISA flag",
        f"{machine.memory_bytes / 2**30:.1f} GiB" if machine.memory_bytes else "memory not told",
        system or "OS not told",
    )
    return "; ".join(parts)


def name_cluster(cluster: Cluster) -> str:
    """Name a cluster's cores and clock, so far as they are told."""
    clock = f"{cluster.max_khz / 1e6:.2f} GHz" if cluster.max_khz else ""
    return f"{cluster.name or 'cores'} {clock}".strip()


def select_cores(machine: Machine, words: Sequence[str]) -> tuple[int, ...]:
    """Select the cores of clusters named by their words.

    words: of 'big', 'middle', 'little'; or 'all'. UserError for one that the machine has not. In rising order.
    """
    there = [word for word in WORDS if any(cluster.word == word for cluster in machine.clusters)]
    for word in words:
        if word not in (*there, ALL):
            do = suggest(word, (*there, ALL))
            raise UserError(f"cluster {word!r}", f"one of {', '.join((*there, ALL))} on this machine", do)
    chosen = (cluster.cores for cluster in machine.clusters if ALL in words or cluster.word in words)
    return tuple(sorted(number for cores in chosen for number in cores))
