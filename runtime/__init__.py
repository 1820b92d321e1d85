"""Our runtime from Python: a .bve program, image in and logits out. The C side is bve.h, the library libbve.so.

`bigvit_edge.runtime.executorch` and `.litert` are the same inside those two runtimes.
"""

import ctypes
import json
import os
import sysconfig
import threading
import weakref
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bigvit_edge.errors import UserError, suggest
from bigvit_edge.machine import Machine, parse_machine, read_platform

Array = NDArray[np.float32]

LIBRARY = "libbve.so"
OVERRIDE = "BVE_LIBRARY"  # the environment's word for libbve.so elsewhere, and for the others beside it
# What a door is built with; where that is missing, pip builds the others.
NEEDED = {
    "libbve_executorch.so": "pip install 'bigvit-edge[executorch]', then once more ",
    "libbve_litert.so": "install npm, then ",
}
ABI_VERSION = 2
ERROR_BYTES = 512
MOST_SPIN_US = 10**6
FORMATS = {3: 1, 4: 2}  # bve.h's numbers of RGB and RGBA, by channels
MOST_THREADS = 2**16  # what a C integer is asked to hold; the library knows how many cores there are


class _Error(ctypes.Structure):
    _fields_ = (("text", ctypes.c_char * ERROR_BYTES),)


class _Options(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint32)
        for name in ("abi_version", "threads", "little_threads", "isa", "pin", "spin_us", "choose")
    )


class _Picture(ctypes.Structure):
    _fields_ = (
        ("pixels", ctypes.c_void_p), ("stride_bytes", ctypes.c_size_t), ("width", ctypes.c_uint32),
        ("height", ctypes.c_uint32), ("format", ctypes.c_uint32), ("reserved", ctypes.c_uint32),
    )  # fmt: skip


class Event(ctypes.Structure):
    """What a thread did of an op at once.

    start_ns, end_ns: of time.monotonic_ns; op: which of those that `inspect` lists; thread: 0 is who called run; tiles:
    how many of the pieces that the op is cut in; core: where it ended, -1 where the system does not say.
    """

    _fields_ = (
        ("start_ns", ctypes.c_uint64), ("end_ns", ctypes.c_uint64), ("op", ctypes.c_uint32),
        ("thread", ctypes.c_uint32), ("tiles", ctypes.c_uint32), ("core", ctypes.c_int32),
    )  # fmt: skip


class Session:
    """An entry of a .bve file, ready to run on this machine.

    All memory is allocated here; calls from several threads wait for one another. The weights are not read: `verify`
    does that.

    path: of the file. threads: 1 or more, at most the cores that this process may use; little_threads: of these, how
    many run the LITTLE lane on the LITTLE cluster (0: all threads take work of either lane); pin: keep threads on their
    cores; spin_us: how many microseconds a thread watches for the next image before it sleeps (0: the library's
    choice); choose: try what is fastest here of up to so many threads, and keep that (`inspect` says why).
    keep: the entry of that keep ratio; entry: the entry of that name, such as 'keep_0_5'; the file's first, of the
    largest ratio, if neither is given. UserError on whatever cannot work.
    """

    def __init__(
        self, path: str | Path, threads: int = 1, keep: float | None = None, *, entry: str | None = None,
        little_threads: int = 0, pin: bool = False, spin_us: int = 0, choose: bool = False,
    ) -> None:  # fmt: skip
        check_options(threads, little_threads, spin_us)
        library, error = load_library(), _Error()
        self._lock = threading.Lock()
        program = library.bve_open(os.fsencode(path), ctypes.byref(error))
        if not program:
            raise explain(error.text.decode(errors="replace"))
        self._program, self._close = program, weakref.finalize(self, _free, library, program, None)
        self.program: dict[str, Any] = json.loads(library.bve_describe(program))  # what the file says of itself
        try:
            self.entry = _choose(self.program["entries"], path, keep, entry)
            options = _Options(ABI_VERSION, *map(int, (threads, little_threads, 0, pin, spin_us, choose)))
            arguments = ctypes.c_float(self.entry["keep"]), ctypes.byref(options), ctypes.byref(error)
            self._session = library.bve_start(program, *arguments)
            if not self._session:
                raise explain(error.text.decode(errors="replace"))
        except BaseException:
            self._close()
            raise
        self._close.detach()
        self._close = weakref.finalize(self, _free, library, program, self._session)
        self._close.atexit = False  # a daemon thread may be in a run then; the process gives all back itself
        size = self.entry["image_size"]
        self.shape, self.classes = (1, 3, size, size), self.entry["classes"]

    def run(self, image: Array) -> Array:
        """Run the model on one image.

        float32 [1, 3, size, size] as the model takes it -> logits, float32 [1, classes].
        """
        image, logits, error = check_image(image, self.shape), np.empty((1, self.classes), np.float32), _Error()
        with self._lock:
            status = self._library().bve_run(
                self._session, image.ctypes.data, image.size, logits.ctypes.data, logits.size, ctypes.byref(error)
            )
        if status:
            raise explain(error.text.decode(errors="replace"))
        return logits

    def prepare(self, pixels: NDArray[np.uint8]) -> Array:
        """Prepare a picture as the file says it was trained to see.

        Upright sRGB, uint8 [height, width, 3], or 4 with alpha that is not multiplied in -> float32 [1, 3, size, size]:
        what bigvit_edge.export.image makes of a picture's file, but of more than 50 megapixels in one step.
        UserError where the file does not say.
        """
        if not (isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.ndim == 3):
            raise UserError(_describe(pixels, "a picture"), "a numpy array, uint8 [height, width, 3 or 4]")
        height, width, channels = pixels.shape
        if channels not in FORMATS:
            raise UserError(_describe(pixels, "a picture"), "3 channels (RGB) or 4 (RGBA)")
        packed, image, error = np.ascontiguousarray(pixels), np.empty(self.shape, np.float32), _Error()
        picture = _Picture(packed.ctypes.data, width * channels, width, height, FORMATS[channels], 0)
        with self._lock:
            self._library()
            status = find_function("bve_prepare")(
                self._program, ctypes.byref(picture), image.ctypes.data, image.size, ctypes.byref(error)
            )
        if status:
            raise explain(error.text.decode(errors="replace"))
        return image

    def labels(self) -> list[str]:
        """List the names of the classes; empty where the file names none."""
        with self._lock:
            self._library()
            label = find_function("bve_label")
            named = (label(self._program, i) for i in range(self.classes))
            return [name.decode(errors="replace") for name in named if name is not None]

    def inspect(self) -> dict[str, Any]:
        """Tell how the session runs.

        CPU flags, kernels chosen, threads, the cores they may run on and why they were chosen, bytes of memory, what
        was repacked; of a traced session also the last run's time by op, summed over threads.
        """
        with self._lock:
            text = self._library().bve_inspect(self._session)
        if text is None:
            raise MemoryError
        return json.loads(text)  # type: ignore[no-any-return]

    def verify(self) -> None:
        """Compare all weights with their checksums.

        Reads them all, which opening the file does not. UserError naming the first that was damaged.
        """
        error = _Error()
        with self._lock:
            status = self._library().bve_verify(self._program, ctypes.byref(error))
        if status:
            raise explain(error.text.decode(errors="replace"))

    def cpu_seconds(self) -> float:
        """Tell the CPU time that all runs so far have taken.

        Seconds, of all threads together, their watching for work included.
        """
        with self._lock:
            return self._library().bve_cpu_time(self._session) * 1e-9  # type: ignore[no-any-return]

    def trace(self, on: bool = True) -> None:
        """Let the runs from now on take each op's time, or not."""
        with self._lock:
            self._library().bve_trace(self._session, int(on))

    def events(self) -> tuple[list[Event], int]:
        """Tell what each thread did in the last traced run.

        The events, a thread's one after the other, and how many more there was no room for.
        """
        lost = ctypes.c_size_t()
        with self._lock:
            self._library()
            count = find_function("bve_events")(self._session, None, 0, ctypes.byref(lost))
            events = (Event * count)()
            find_function("bve_events")(self._session, events, count, None)
        return list(events), lost.value

    def rows(self, op: int) -> NDArray[np.int32]:
        """Tell which tokens a routing op chose in the last run.

        In rising order: 0 is the class token, patch i is i + 1. None if the run was not traced, or of other ops.
        """
        with self._lock:
            self._library()
            rows = np.empty(find_function("bve_rows")(self._session, op, None, 0), np.int32)
            find_function("bve_rows")(self._session, op, rows.ctypes.data, rows.size)
        return rows

    def close(self) -> None:
        """Give the memory back.

        Nothing can be run afterwards; closing again does nothing.
        """
        with self._lock:
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _library(self) -> ctypes.CDLL:
        if not self._close.alive:
            raise UserError("a session that was closed", "an open one", "make another Session")
        return load_library()


def check_options(threads: int, little_threads: int, spin_us: int) -> None:
    """Check numbers that the library is asked for.

    UserError on those that it cannot even be asked for; the library knows what cores there are.
    """
    for name, number in (("threads", threads), ("little_threads", little_threads), ("spin_us", spin_us)):
        if not isinstance(number, Integral):
            raise UserError(f"{name}={number!r}", "a whole number")
    if not 1 <= threads <= MOST_THREADS or not 0 <= little_threads < threads:
        met = f"threads={threads}, little_threads={little_threads}"
        raise UserError(met, "at least one thread, and of several at most all but one for the LITTLE lane")
    if not 0 <= spin_us <= MOST_SPIN_US:
        raise UserError(f"spin_us={spin_us}", f"0 to {MOST_SPIN_US} microseconds")


def count_cores() -> int:
    """Count the cores that this process may use.

    Those of the affinity of who asks, or as many as its cgroup's quota is worth, rounded up.
    """
    return load_library().bve_count_cores()  # type: ignore[no-any-return]


def probe(root: str | Path = "") -> Machine:
    """Read what a machine tells of itself.

    root: a folder with the saved proc/, sys/ and etc/ of another; "": this machine. Where no library of ours can be
    loaded, as on a Mac, what `platform` tells of this one, with the reason under `unread`.
    """
    try:
        tell = load_library().bve_probe
    except (UserError, AttributeError) as e:  # none, or an older one
        if root:
            raise UserError(str(e), f"a {LIBRARY} that can probe", "build it again: pip install .") from e
        return read_platform(LIBRARY, str(e))
    tell.restype, tell.argtypes = ctypes.c_char_p, (ctypes.c_char_p,)
    text = tell(os.fsencode(root))
    if text is None:
        raise MemoryError
    return parse_machine(text)


def _free(library: ctypes.CDLL, program: int, session: int | None) -> None:
    if session:
        library.bve_stop(session)
    library.bve_close(program)


def _choose(entries: list[dict[str, Any]], path: str | Path, keep: float | None, name: str | None) -> dict[str, Any]:
    names = [entry["name"] for entry in entries]
    if name is not None and name not in names:
        raise UserError(f"{path} has no entry {name!r}", f"one of {', '.join(names)}", suggest(name, names))
    if not isinstance(keep, Real | None):
        raise UserError(f"keep={keep!r}", "a number, or None for the file's first entry")
    for entry in entries:
        if name in (None, entry["name"]) and (keep is None or np.float32(entry["keep"]) == np.float32(keep)):
            return entry
    has = ", ".join(f"{entry['keep']:g}" for entry in entries if entry["keep"])
    raise UserError(f"keep {keep:g} for {path}", f"one of {has}" if has else "none: the model has no keep ratio")


def check_image(image: object, shape: tuple[int, ...]) -> Array:
    """Check an image, and return it as contiguous memory.

    UserError unless it is a float32 array of that shape.
    """
    if isinstance(image, np.ndarray) and image.dtype == np.float32 and image.shape == shape:
        return np.ascontiguousarray(image)
    raise UserError(_describe(image, "an image"), f"a numpy array, float32 {list(shape)}")


def _describe(array: object, name: str) -> str:
    return f"{name} of " + (
        f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
    )


def explain(text: str) -> UserError:
    """Put what the core says into our three parts.

    The core says 'what was met, expected this; do that'.
    """
    found, _, do = text.partition("; ")
    met, _, expected = found.partition(", expected ")
    return UserError(met, expected or "what the library can take", do)


@cache
def load_library() -> ctypes.CDLL:
    """Load libbve.so with its functions' types.

    UserError if it is nowhere, or of another version.
    """
    path = find_library()
    try:
        library = ctypes.CDLL(str(path))
        version = library.bve_version()
    except (OSError, AttributeError) as e:
        raise UserError(f"{path}: {e}", "a libbve.so for this machine", "build it: pip install .") from e
    if version != ABI_VERSION:
        raise UserError(f"{path} has ABI version {version}", f"version {ABI_VERSION}", "build it again: pip install .")
    pointer, text, error = ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(_Error)
    types: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "bve_open": (pointer, (text, error)),
        "bve_close": (None, (pointer,)),
        "bve_verify": (ctypes.c_int, (pointer, error)),
        "bve_describe": (text, (pointer,)),
        "bve_start": (pointer, (pointer, ctypes.c_float, ctypes.POINTER(_Options), error)),
        "bve_stop": (None, (pointer,)),
        "bve_run": (ctypes.c_int, (pointer, pointer, ctypes.c_size_t, pointer, ctypes.c_size_t, error)),
        "bve_inspect": (text, (pointer,)),
        "bve_cpu_time": (ctypes.c_uint64, (pointer,)),
        "bve_count_cores": (ctypes.c_uint32, ()),
        "bve_trace": (None, (pointer, ctypes.c_int)),
    }
    later = {  # than the first library of this version: who calls them asks for them by find_function
        "bve_events": (ctypes.c_size_t, (pointer, pointer, ctypes.c_size_t, pointer)),
        "bve_rows": (ctypes.c_size_t, (pointer, ctypes.c_size_t, pointer, ctypes.c_size_t)),
        "bve_prepare": (ctypes.c_int, (pointer, ctypes.POINTER(_Picture), pointer, ctypes.c_size_t, error)),
        "bve_label": (text, (pointer, ctypes.c_size_t)),
        "bve_measure": (pointer, (ctypes.c_uint32, error)),
        "bve_free": (None, (pointer,)),
        "bve_count": (pointer, (text,)),
        "bve_read": (pointer, (pointer,)),
        "bve_uncount": (None, (pointer,)),
    }
    for name, (result, arguments) in (types | {name: later[name] for name in later if hasattr(library, name)}).items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def find_function(name: str) -> Any:
    """Find a function of libbve.so.

    UserError if the library is older than the function.
    """
    try:
        return getattr(load_library(), name)
    except AttributeError as e:
        raise UserError(f"{find_library()} has no {name}", "a library of today", "build it again: pip install .") from e


def find_library(name: str = LIBRARY) -> Path:
    """Find a library of ours.

    $BVE_LIBRARY if it is set, and whatever else lies beside that; then beside this file, or where an editable install
    puts it. UserError if it is nowhere.
    """
    installed = (Path(sysconfig.get_path(kind)) / "bigvit_edge/runtime" for kind in ("platlib", "purelib"))
    folders = [Path(__file__).parent, *installed]
    if chosen := os.environ.get(OVERRIDE):
        if not Path(chosen).is_file():
            raise UserError(f"{OVERRIDE}={chosen}, which is no file", f"the path of {LIBRARY}", f"or unset {OVERRIDE}")
        if name == LIBRARY:
            return Path(chosen)
        folders.insert(0, Path(chosen).parent)
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    met = f"no {name} beside {folders[0]}"
    do = f"{NEEDED.get(name, '')}pip install . on Linux, or set {OVERRIDE} to the path of the {LIBRARY} beside it"
    raise UserError(met, "one built for this machine", do)
