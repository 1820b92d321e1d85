"""Memory: how much is free, and what a user's own code may take of it."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from bigvit_edge.errors import UserError

COPIES = 3  # of the weights, beside the module's own, that an export of one fp32 file holds at its peak
GIB = 2**30


def measure_free(root: Path = Path("/")) -> int | None:
    """Bytes that this process may still take, by the system and by its control group; None where nothing says so."""
    fields = dict(line.partition(":")[::2] for line in _read(root / "proc/meminfo").splitlines())
    free = [int(fields["MemAvailable"].split()[0]) * 1024] if "MemAvailable" in fields else []
    group = root / "sys/fs/cgroup"
    most, used = _read(group / "memory.max"), _read(group / "memory.current")
    if most.strip().isdecimal() and used.strip().isdecimal():
        free.append(int(most) - int(used))
    return max(0, min(free)) if free else None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


@contextmanager
def bounded() -> Iterator[None]:
    """Let what runs inside allocate no more than is free: it fails there instead of being killed by the system."""
    free, (soft, hard) = measure_free(), resource.getrlimit(resource.RLIMIT_DATA)
    if free is None:
        yield
        return
    fields = dict(line.partition(":")[::2] for line in _read(Path("/proc/self/status")).splitlines())
    bound = int(fields.get("VmData", "0").split()[0]) * 1024 + free
    resource.setrlimit(resource.RLIMIT_DATA, (min([bound, *(n for n in (soft, hard) if n >= 0)]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def require_memory(model: nn.Module, source: str) -> None:
    """UserError, with numbers, if an export's copies of the weights do not fit into what is free."""
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    free = measure_free()
    if free is not None and COPIES * size > free:
        met = f"{source} has {size / GIB:.1f} GiB of parameters, of which an export holds {COPIES} copies more"
        raise UserError(met, f"those to fit into the free {free / GIB:.1f} GiB of memory", "take a larger machine")
