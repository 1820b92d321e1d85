"""Memory: how much is free, what a user's own code may take of it, and what an image needs."""

import copy
import resource
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bigvit_edge.errors import UserError

# Of the weights, beside the module's own, at an export's peak: 448 MiB more of Linears took 2.63 GiB more, in ONNX and
# ExecuTorch (`bigvit-edge export --set precisions=fp32` of 64 and of 512 MiB, AMD EPYC, 2026-11-29).
COPIES = 5
SHARE = 0.75  # the rest is for other processes, which grow, and an export needs several times a module's memory
GIB = 2**30
ASSURED = 512  # pixels of a side up to which no model is tried beforehand


def measure_free(root: Path = Path("/")) -> int | None:
    """Measure the bytes that this process may still take.

    The system and its control group, whose cache of files makes room, set them; None where nothing says so.
    """
    fields = dict(line.partition(":")[::2] for line in _read(root / "proc/meminfo").splitlines())
    free = [int(fields["MemAvailable"].split()[0]) * 1024] if "MemAvailable" in fields else []
    group = root / "sys/fs/cgroup"
    most, used = _read(group / "memory.max"), _read(group / "memory.current")
    if most.strip().isdecimal() and used.strip().isdecimal():
        held = dict(line.partition(" ")[::2] for line in _read(group / "memory.stat").splitlines())
        cached = sum(int(held.get(name, 0)) for name in ("inactive_file", "active_file"))
        free.append(int(most) - int(used) + cached)
    return max(0, min(free)) if free else None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


@contextmanager
def bound_memory() -> Iterator[None]:
    """Let the block allocate no more than SHARE of free memory.

    What runs inside fails there instead of being killed.
    """
    free, (soft, hard) = measure_free(), resource.getrlimit(resource.RLIMIT_DATA)
    if free is None:
        yield
        return
    fields = dict(line.partition(":")[::2] for line in _read(Path("/proc/self/status")).splitlines())
    bound = int(fields.get("VmData", "0").split()[0]) * 1024 + int(SHARE * free)
    resource.setrlimit(resource.RLIMIT_DATA, (min([bound, *(n for n in (soft, hard) if n >= 0)]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def require_memory(model: nn.Module, source: str) -> None:
    """Check that an export's copies of the weights fit into memory.

    UserError, with numbers, if they are more than what is free.
    """
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    free = measure_free()
    if free is not None and COPIES * size > free:
        met = f"{source} has {size / GIB:.1f} GiB of parameters, of which an export holds about {COPIES} copies more"
        raise UserError(met, f"those to fit into the free {free / GIB:.1f} GiB of memory", "take a larger machine")


def check_memory(module: nn.Module, image_size: int, images: int = 1) -> None:
    """Check that one image of that size fits into memory.

    Counted beside it are `images` of them as float32. UserError with the number if all surely needs more than is free.
    """
    if image_size <= ASSURED or (peak := estimate_peak(module, image_size)) is None:
        return
    needed, free = peak + images * 3 * image_size**2 * 4, measure_free()
    if free is not None and needed > free:
        met = f"images of {image_size} pixels, for which PyTorch needs {needed / GIB:,.1f} GiB of memory"
        raise UserError(met, f"at most the {free / GIB:.1f} GiB that are free", "take a smaller --image-size")


def estimate_peak(module: nn.Module, image_size: int) -> int | None:
    """Estimate the bytes of tensors that one image makes live at once.

    Weights are not counted. A copy of the module is run without data; None if it does not run so.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    try:
        with FakeCopyMode(mode):
            empty = copy.deepcopy(module)
        weights = [tensor.untyped_storage() for tensor in (*empty.parameters(), *empty.buffers())]
        with torch.no_grad(), mode, _Meter(map(id, weights)) as meter:
            empty(torch.zeros(1, 3, image_size, image_size))
        return int(meter.peak)
    except Exception:  # a module can refuse to be copied, and look at values that are not there, in any way
        return None


class _Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the storages that are alive, but for those with the identities given."""

    def __init__(self, known: Iterable[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self.known = set(known)

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        self.peak = max(self.peak, self.live)
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key not in self.known:
            self.known.add(key)
            self.live += size
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.live -= size
