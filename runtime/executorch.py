"""ExecuTorch from Python with libbve_executorch.so: a .pte whose methods our core runs, image in and logits out."""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from numbers import Integral
from pathlib import Path
from typing import Any

import torch  # before ExecuTorch, which finds its libraries loaded

# Not executorch.runtime, which imports the exporter: four seconds.
from executorch.extension.pybindings import _portable_lib as framework
from executorch.version import __version__ as framework_version

from bigvit_edge.artifact import name_method
from bigvit_edge.errors import UserError, suggest
from bigvit_edge.runtime import Array, check_image, count_cores, explain, find_library

BACKEND = "libbve_executorch"
LIBRARY = f"{BACKEND}.so"
FORWARD = "forward"  # the method of a file that has one
METADATA = "metadata_"  # before the name of a method that only says what is known of the file
ORDER = f"{METADATA}methods"  # such a method: the others in the order given, which the file does not keep
KEEP = f"{METADATA}keep"  # such a method: the keep ratios of those
DTYPES = {0: "uint8", 6: "float32"}  # by ExecuTorch's numbers of types (ScalarType)
FAILURES = (RuntimeError, ValueError)  # of ExecuTorch


class Session:
    """One method of a .pte.

    Calls from several threads wait for one another. shape: of the image, [1, 3, size, size], or of pixels [1, size,
    size, 3] or so; dtype: of it, 'float32' or 'uint8'; classes: of the logits; method: its name in the file.
    """

    def __init__(self, path: str | Path, file: framework.ExecuTorchProgram, method: str, threads: int) -> None:
        self._lock, self._path, self._file, self.method = threading.Lock(), path, file, method
        self._threads = threads
        with explained(path):
            self._loaded = file.load_method(method)
        metadata = self._loaded.method_meta()
        image = metadata.input_tensor_meta(0)
        self.shape, self.dtype = tuple(map(int, image.sizes())), read_dtype(path, image)
        self.classes = int(metadata.output_tensor_meta(0).sizes()[-1])

    def run(self, image: Array) -> Array:
        """Run the model on one image.

        As the file takes it, of that shape and dtype -> logits, float32 [1, classes].
        """
        image = check_image(image, self.shape, self.dtype)
        with self._lock, explained(self._path):
            (logits,) = self._loaded((torch.from_numpy(image),))
        return logits.numpy()  # type: ignore[no-any-return]

    def load(self, keep: float | None = None, *, method: str | None = None) -> "Session":
        """Load another method on the same weights and as many threads.

        As of load().
        """
        with explained(self._path):
            name = find_method(self._path, self._file, method, keep)
            set_threads(self._threads)
        return Session(self._path, self._file, name, self._threads)


def read_dtype(path: str | Path, image: Any) -> str:
    """Read what a method takes from what ExecuTorch says of its input.

    UserError if it is neither float32 nor uint8.
    """
    if image.dtype() not in DTYPES:
        met = f"{path} takes a tensor of ExecuTorch's type {image.dtype()}"
        raise UserError(met, " or ".join(DTYPES.values()), "export the model again")
    return DTYPES[image.dtype()]


def load(path: str | Path, keep: float | None = None, threads: int = 1, *, method: str | None = None) -> Session:
    """Load a method of a .pte, ready to run.

    It is the one of that keep ratio or of that name; the file's first if neither is given. threads: 1 or more, at most
    count_cores(). UserError on whatever cannot work; ExecuTorch tells stderr the same.
    """
    cores = count_cores()
    if not isinstance(threads, Integral) or not 1 <= threads <= cores:
        raise UserError(f"{threads} threads", f"1 to {cores}, the cores this process may use")
    if not Path(path).is_file():
        raise UserError(f"{path}, which is no file", "a .pte file as exported")
    load_library()
    with explained(path):
        file = open_program(path, threads)
        name = find_method(path, file, method, keep)
    return Session(path, file, name, threads)


@contextmanager
def explained(path: str | Path) -> Iterator[None]:
    """Turn what ExecuTorch refuses of that file into a UserError."""
    read_failure()  # what failed before is not of this
    try:
        yield
    except FAILURES as e:
        raise explain_failure(path, str(e)) from e


def open_program(path: str | Path, threads: int) -> framework.ExecuTorchProgram:
    """Open the file in ExecuTorch, with `threads` threads.

    ExecuTorch has one pool of threads in a process. It becomes that large for what was loaded before as well: only what
    our core runs keeps the count that it was loaded with, of at most the CPU's cores. One of FAILURES if it is no
    program.
    """
    read_failure()  # what failed before is not of this
    set_threads(threads)
    return framework._load_program(str(path), program_verification=framework.Verification.InternalConsistency)


def set_threads(threads: int) -> None:
    """Set the threads of ExecuTorch's one pool in this process.

    A method of our core takes its count from it when it is loaded.
    """
    if framework._threadpool_get_thread_count() != threads:
        framework._unsafe_reset_threadpool(threads)


def find_method(
    path: str | Path, program: framework.ExecuTorchProgram, method: str | None = None, keep: float | None = None
) -> str:
    """Find the name of the method asked for, or the first.

    UserError with those there are.
    """

    def read(name: str) -> list[str]:
        return str(program.load_method(name)(())[0]).split(",")

    names: list[str] = [program.get_method_name(i) for i in range(program.num_methods())]
    known = [name for name in names if not name.startswith(METADATA)]
    if method is None and ORDER in names:
        known = read(ORDER)
    if method is not None and method not in known:
        raise UserError(f"{path} has no method {method!r}", f"one of {', '.join(known)}", suggest(method, known))
    if not known:
        raise UserError(f"{path} has no method", "one to run", "export the model again")
    first = method or known[0]
    if keep is None:
        return first
    alone = len(known) == 1 and KEEP in names and read(KEEP) == [f"{keep:g}"]
    wanted = first if alone else name_method(keep)
    if wanted not in known or method not in (None, wanted):
        raise UserError(f"keep {keep:g} for {path}", f"one of its methods, {', '.join(known)}")
    return wanted


def read_failure() -> str | None:
    """Read what our core said last to this thread.

    None if there is nothing that had not been read, or no library yet.
    """
    if not load_library.cache_info().currsize:
        return None
    text: bytes | None = load_library().bve_executorch_error()
    return None if text is None else text.decode(errors="replace")


def explain_failure(path: str | Path, otherwise: str) -> UserError:
    """Explain why a file cannot be loaded or run.

    Our core's word if it has failed, else this reason of ExecuTorch's.
    """
    if said := read_failure():
        fault = explain(said)
        return UserError(f"{path}: {fault.met}", fault.expected, fault.do)
    met = f"{path}: ExecuTorch cannot run it ({otherwise})"
    return UserError(met, "a .pte file as exported", "export the model again")


@cache
def load_library() -> ctypes.CDLL:
    """Load libbve_executorch.so, so that ExecuTorch finds our core under BACKEND.

    UserError if it is nowhere, was built for another ExecuTorch (which shows when it has registered itself, and nothing
    of it has run but that), or is not the first copy of itself.
    """
    path = find_library(LIBRARY)
    do = "build it again: pip install ."
    try:
        library = ctypes.CDLL(str(path))
        library.bve_executorch_version.restype = library.bve_executorch_error.restype = ctypes.c_char_p
        add_dispatch = library.bve_executorch_add_dispatch
    except (OSError, AttributeError) as e:
        raise UserError(f"{path}: {e}", f"a {LIBRARY} for this machine and Python", do) from e
    version = library.bve_executorch_version().decode()
    here = framework_version.partition("+")[0]
    if version.rpartition(" ")[2] != here:
        raise UserError(f"{path} is version {version}", f"one for ExecuTorch {here}, which is installed", do)
    if refusal := library.bve_executorch_error():
        fault = explain(refusal.decode())
        raise UserError(f"{path}: {fault.met}", fault.expected, fault.do)
    if fault_code := add_dispatch():
        raise UserError(f"{path}: ExecuTorch refuses its kernel, error {fault_code}", "room for one kernel more")
    return library
