"""Our runtime from Python: a .bve program, image in and logits out. The C side is bve.h, the library libbve.so.

`bigvit_edge.runtime.executorch` and `.litert` are the same inside those two runtimes.
"""

import ctypes
import json
import os
import sys
import threading
import warnings
import weakref
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from bigvit_edge.errors import UserError, suggest
from bigvit_edge.machine import Machine, parse_machine, read_platform
from bigvit_edge.runtime.abi import (
    ABI_VERSION,
    LIBRARY,
    OVERRIDE,
    Event,
    Failure,
    Options,
    Picture,
    explain,
    find_function,
    find_library,
    load_library,
)
from bigvit_edge.runtime.frames import Frame, read_pixels

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "LIBRARY",
    "MOST_THREADS",
    "OVERRIDE",
    "Array",
    "Event",
    "Frame",
    "Session",
    "check_image",
    "check_options",
    "count_cores",
    "explain",
    "find_function",
    "find_library",
    "load_library",
    "probe",
]

Array = NDArray[np.float32]
Pixels = NDArray[np.uint8]

MOST_SPIN_US = 10**6
FORMATS = {3: 1, 4: 2}  # bve.h's numbers of RGB and RGBA, by channels
MOST_THREADS = 2**16  # what a C integer is asked to hold; the library knows how many cores there are


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
        library, error = load_library(), Failure()
        self._lock = threading.Lock()
        program = library.bve_open(os.fsencode(path), ctypes.byref(error))
        if not program:
            raise explain(error.text.decode(errors="replace"))
        self._program, self._close = program, weakref.finalize(self, _free, library, program, None)
        self.program: dict[str, Any] = json.loads(library.bve_describe(program))  # what the file says of itself
        try:
            self.entry = _choose(self.program["entries"], path, keep, entry)
            options = Options(ABI_VERSION, *map(int, (threads, little_threads, 0, pin, spin_us, choose)))
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

    def run(self, image: "Array | Pixels | Image.Image | Frame") -> Array:
        """Run the model on one image.

        float32 [1, 3, size, size] as the model takes it; or a picture, which `prepare` is asked for; or a camera's
        Frame, prepared on the way, to a level of 255 (of noise seldom two) as `prepare` does it -> logits, float32
        [1, classes].
        """
        if isinstance(image, Frame):
            return self._run(None, image)
        pixels = _find_pixels(image)
        return self._run(check_image(image if pixels is None else self.prepare(pixels), self.shape), None)

    def _run(self, image: Array | None, frame: Frame | None) -> Array:
        logits, error = np.empty((1, self.classes), np.float32), Failure()
        given = (None, 0) if image is None else (image.ctypes.data, image.size)
        with self._lock:
            run = self._library().bve_run
            status = 0
            if frame is not None:
                struct = frame.to_struct()
                status = find_function("bve_set_frame")(self._session, ctypes.byref(struct), ctypes.byref(error))
            status = status or run(self._session, *given, logits.ctypes.data, logits.size, ctypes.byref(error))
        if status:
            raise explain(error.text.decode(errors="replace"))
        return logits

    def read_frame(self, frame: Frame) -> Pixels:
        """Read from a camera's frame the pixels that the model sees.

        uint8 [size, size, 3], RGB. UserError where the file does not say how.
        """
        with self._lock:
            self._library()
            return read_pixels("bve_read_frame", self._program, frame, self.shape[-1])

    def prepare(self, picture: "Pixels | Image.Image") -> Array:
        """Prepare a picture as the file says it was trained to see.

        Upright sRGB, uint8 [height, width, 3], or 4 with alpha that is not multiplied in; or an image of Pillow, which
        is turned upright and brought to sRGB first (a warning says what was changed or assumed) -> float32 [1, 3, size,
        size]: what bigvit_edge.export.image makes of a picture's file, but of more than 50 megapixels in one step.
        UserError where the file does not say.
        """
        pixels = _find_pixels(picture)
        if pixels is None:
            met = _describe(picture, "a picture")
            raise UserError(met, "a numpy array, uint8 [height, width, 3 or 4], or an image of Pillow")
        height, width, channels = pixels.shape
        if channels not in FORMATS:
            raise UserError(_describe(pixels, "a picture"), "3 channels (RGB) or 4 (RGBA)")
        packed, image, error = np.ascontiguousarray(pixels), np.empty(self.shape, np.float32), Failure()
        struct = Picture(packed.ctypes.data, width * channels, width, height, FORMATS[channels], 0)
        with self._lock:
            self._library()
            status = find_function("bve_prepare")(
                self._program, ctypes.byref(struct), image.ctypes.data, image.size, ctypes.byref(error)
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
        error = Failure()
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


def _find_pixels(picture: object) -> Pixels | None:
    """Of what is a picture. Who has an image of Pillow has imported it."""
    pillow = sys.modules.get("PIL.Image")
    if pillow is not None and isinstance(picture, pillow.Image):
        from bigvit_edge.runtime.pictures import read_image

        pixels, notes = read_image(picture)
        for note in notes:
            warnings.warn(note, stacklevel=3)
        return pixels
    is_array = isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.ndim == 3
    return picture if is_array else None  # type: ignore[return-value]


def check_image(image: object, shape: tuple[int, ...], dtype: str = "float32") -> Array:
    """Check an image, and return it as contiguous memory.

    UserError unless it is an array of that type and shape.
    """
    if isinstance(image, np.ndarray) and image.dtype == dtype and image.shape == shape:
        return np.ascontiguousarray(image)
    raise UserError(_describe(image, "an image"), f"a numpy array, {dtype} {list(shape)}")


def _describe(array: object, name: str) -> str:
    return f"{name} of " + (
        f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
    )
