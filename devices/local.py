"""This machine, or the saved text of another: what its CPU is and what it can do."""

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

# as /proc/cpuinfo spells them
ARM_FLAGS = ("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme")
X86_FLAGS = ("avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8")

# MIDR_EL1 part numbers of implementer 0x41 (Arm), from the cores' technical reference manuals
ARM_PARTS = {
    0xD03: "Cortex-A53",
    0xD04: "Cortex-A35",
    0xD05: "Cortex-A55",
    0xD07: "Cortex-A57",
    0xD08: "Cortex-A72",
    0xD09: "Cortex-A73",
    0xD0A: "Cortex-A75",
    0xD0B: "Cortex-A76",
    0xD0C: "Neoverse-N1",
    0xD0D: "Cortex-A77",
    0xD40: "Neoverse-V1",
    0xD41: "Cortex-A78",
    0xD44: "Cortex-X1",
    0xD46: "Cortex-A510",
    0xD47: "Cortex-A710",
    0xD48: "Cortex-X2",
    0xD49: "Neoverse-N2",
    0xD4D: "Cortex-A715",
    0xD4E: "Cortex-X3",
    0xD4F: "Neoverse-V2",
    0xD80: "Cortex-A520",
    0xD81: "Cortex-A720",
    0xD82: "Cortex-X4",
}


class Cluster(NamedTuple):
    """Neighbouring cores of one kind.

    name: the core's, or its top clock ("3600000 kHz") where no name is told.
    """

    name: str
    cores: int


@dataclass(frozen=True)
class Machine:
    """The facts that /proc and /sys tell of a machine.

    "" or 0 or () where they do not tell.
    """

    cpu: str
    cores: int  # logical, online
    clusters: tuple[Cluster, ...]  # in the order of core numbers
    isa: tuple[str, ...]  # those of ARM_FLAGS and X86_FLAGS that every core has
    memory_bytes: int
    os: str


def probe(root: Path = Path("/")) -> Machine:
    """Read proc/, sys/ and etc/os-release under `root`."""
    cores = _parse_cores(_read(root / "proc/cpuinfo"))
    board = _read(root / "proc/device-tree/model")
    flags = [set((core.get("flags") or core.get("Features", "")).split()) for core in cores]
    common = set.intersection(*flags) if flags else set()
    return Machine(
        cpu=cores[0].get("model name") or board if cores else board,
        cores=len(cores),
        clusters=_group(root, cores),
        isa=tuple(flag for flag in ARM_FLAGS + X86_FLAGS if flag in common),
        memory_bytes=_parse_memory(_read(root / "proc/meminfo")),
        os=_parse_os(root),
    )


def describe(machine: Machine) -> str:
    """Describe a machine in one line for reports.

    CPU; cores (clusters); ISA flags; memory; operating system.
    """
    clusters = " + ".join(f"{cluster.cores} {cluster.name}" for cluster in machine.clusters)
    parts = (
        machine.cpu or "CPU not told",
        f"{machine.cores} cores" + (f" ({clusters})" if clusters else "") if machine.cores else "cores not told",
        " ".join(machine.isa) or "no known ISA flag",
        f"{machine.memory_bytes / 2**30:.1f} GiB" if machine.memory_bytes else "memory not told",
        machine.os or "OS not told",
    )
    return "; ".join(parts)


def _read(path: Path) -> str:
    """The text of a /proc or /sys file; "" where the kernel does not have it. Device-tree strings end in NUL."""
    try:
        return path.read_text(errors="replace").strip("\0 \n")
    except OSError:
        return ""


def _parse_cores(cpuinfo: str) -> list[dict[str, str]]:
    """One dict per block of /proc/cpuinfo that describes a core; a board's own lines ("Hardware") are dropped."""
    blocks = [[line.partition(":") for line in block.splitlines()] for block in cpuinfo.split("\n\n")]
    cores = [{key.strip(): value.strip() for key, _, value in block} for block in blocks]
    return [core for core in cores if core.get("processor", "").isdigit()]


def _group(root: Path, cores: list[dict[str, str]]) -> tuple[Cluster, ...]:
    """Runs of cores alike in name and top clock, so that equal cores on two clock domains stay two clusters."""

    def kind(core: dict[str, str]) -> tuple[str, str]:
        cpu = root / "sys/devices/system/cpu" / f"cpu{core['processor']}"
        return _core_name(core), _read(cpu / "cpufreq/cpuinfo_max_freq")

    return tuple(
        Cluster(name or f"{khz} kHz", len(list(run))) for (name, khz), run in groupby(cores, key=kind) if name or khz
    )


def _core_name(core: dict[str, str]) -> str:
    """Such as "Cortex-A76"; "0x51:0x802" for a core not in ARM_PARTS; "" on x86, where /proc/cpuinfo has no part."""
    if "CPU part" not in core:
        return ""
    maker, part = core.get("CPU implementer", ""), core["CPU part"]
    name = ARM_PARTS.get(int(part, 16)) if maker == "0x41" else None
    return name or f"{maker}:{part}"


def _parse_memory(meminfo: str) -> int:
    """Bytes; /proc/meminfo's "kB" are KiB."""
    fields = dict(line.partition(":")[::2] for line in meminfo.splitlines())
    return int(fields.get("MemTotal", "0 kB").split()[0]) * 1024


def _parse_os(root: Path) -> str:
    fields = dict(line.partition("=")[::2] for line in _read(root / "etc/os-release").splitlines())
    name = fields.get("PRETTY_NAME", "").strip('"') or _read(root / "proc/sys/kernel/ostype")
    return f"{name} {_read(root / 'proc/sys/kernel/osrelease')}".strip()
