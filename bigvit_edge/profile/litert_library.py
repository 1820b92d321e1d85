"""LiteRT's C library (libLiteRt.so of the ai-edge-litert wheel): a compiled model that profiles itself.

Its Python API has no profiler. The functions and structures are those of litert/c/ in LiteRT 2.3.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bigvit_edge.artifact import Array
from bigvit_edge.console import silenced
from bigvit_edge.errors import UserError
from bigvit_edge.runtime.litert import import_framework

LIBRARY = "libLiteRt.so"
CPU = 1  # kLiteRtHwAcceleratorCpu
ELEMENTS = {"float32": 1, "uint8": 3}  # kLiteRtElementTypeFloat32 and so on
READ, WRITE = 0, 1  # LiteRtTensorBufferLockMode
MOST_RANK = 8
GENERAL, NODE, INSIDE = 1, 2, 4 | 8  # kinds of event: of the run; a node's; of an op inside a delegate
# What the runtime's options and the CPU's are called; they are TOML.
PROFILING, THREADS = b"runtime_options_string", b"xnnpack"


class _Layout(ctypes.Structure):
    _fields_ = (
        ("rank", ctypes.c_uint32), ("dimensions", ctypes.c_int32 * MOST_RANK), ("strides", ctypes.c_uint32 * MOST_RANK)
    )  # fmt: skip


class _TensorType(ctypes.Structure):
    _fields_ = (("element", ctypes.c_int), ("layout", _Layout))


class _Event(ctypes.Structure):
    _fields_ = (
        ("tag", ctypes.c_char_p), ("kind", ctypes.c_int), ("start_us", ctypes.c_uint64),
        ("duration_us", ctypes.c_uint64), ("memory", ctypes.c_size_t * 6), ("index", ctypes.c_uint64),
        ("subgraph", ctypes.c_uint64), ("source", ctypes.c_int),
    )  # fmt: skip


class Told(NamedTuple):
    """An event as LiteRT tells it.

    kind: GENERAL, NODE, or a bit of INSIDE, of which only the duration is told; node: its number, or of the op inside
    the delegate.
    """

    tag: str
    kind: int
    start_us: int
    duration_us: int
    node: int


class CompiledModel:
    """A .tflite's signature, compiled for the CPU with its profiler on.

    image, logits: the shapes; dtype: of the image. UserError if LiteRT refuses the file, or has no profiler.
    """

    def __init__(self, path: Path, threads: int, signature: int, dtype: str = "float32") -> None:
        self._library, self._path = load_library(), path
        self._signature = ctypes.c_size_t(signature)
        with silenced():
            self._environment = self._make("LiteRtCreateEnvironment", 0, None)
            model = self._make("LiteRtCreateModelFromFile", self._environment, str(path).encode())
            options = self._make("LiteRtCreateOptions")
            self._call("LiteRtSetOptionsHardwareAccelerators", options, CPU)
            for name, text in ((PROFILING, b"enable_profiling = true\n"), (THREADS, b"num_threads = %d\n" % threads)):
                self._call("LiteRtAddOpaqueOptions", options, self._make_words(name, text))
            self._model = self._make("LiteRtCreateCompiledModel", self._environment, model, options)
            self._profiler = self._make("LiteRtCompiledModelGetProfiler", self._model)
            self._input, self.image = self._make_buffer("Input", dtype)
            self._output, self.logits = self._make_buffer("Output", "float32")

    def run(self, image: Array) -> Array:
        """Run the model on one image.

        Of the shape `image`, as the file takes it.
        """
        with self._locked(self._input, WRITE) as memory:
            ctypes.memmove(memory, np.ascontiguousarray(image).ctypes.data, image.nbytes)
        one, first, last = ctypes.c_size_t(1), ctypes.byref(self._input), ctypes.byref(self._output)
        self._call("LiteRtRunCompiledModel", self._model, self._signature, one, first, one, last)
        logits = np.empty(self.logits, np.float32)
        with self._locked(self._output, READ) as memory:
            ctypes.memmove(logits.ctypes.data, memory, logits.nbytes)
        return logits

    def profile(self, image: Array) -> list[Told]:
        """Run one image, and read the profiler's events."""
        self._call("LiteRtResetProfiler", self._profiler)
        self._call("LiteRtStartProfiler", self._profiler)
        self.run(image)
        self._call("LiteRtStopProfiler", self._profiler)
        count = ctypes.c_int()
        self._call("LiteRtGetNumProfilerEvents", self._profiler, ctypes.byref(count))
        events = (_Event * count.value)()
        self._call("LiteRtGetProfilerEvents", self._profiler, count, events)
        return [
            Told(
                (event.tag or b"").decode(errors="replace"), event.kind, event.start_us, event.duration_us, event.index
            )
            for event in events
        ]

    def _make_buffer(self, side: str, dtype: str) -> tuple[ctypes.c_void_p, tuple[int, ...]]:
        first, type_ = ctypes.c_size_t(0), _TensorType(ELEMENTS[dtype])
        layout = ctypes.byref(type_.layout)
        if side == "Input":
            self._call("LiteRtGetCompiledModelInputTensorLayout", self._model, self._signature, first, layout)
        else:
            one, update = ctypes.c_size_t(1), ctypes.c_bool(False)
            self._call("LiteRtGetCompiledModelOutputTensorLayouts", self._model, self._signature, one, layout, update)
        wants = self._make(f"LiteRtGetCompiledModel{side}BufferRequirements", self._model, self._signature, first)
        maker = "LiteRtCreateManagedTensorBufferFromRequirements"
        buffer = self._make(maker, self._environment, ctypes.byref(type_), wants)
        rank = type_.layout.rank & 0x7F  # the bit above says whether there are strides
        return buffer, tuple(type_.layout.dimensions[:rank])

    def _make_words(self, name: bytes, text: bytes) -> ctypes.c_void_p:
        """Options as a text, which the library frees with what libc has for that."""
        libc = ctypes.CDLL(None)
        libc.strdup.restype = ctypes.c_void_p
        return self._make(
            "LiteRtCreateOpaqueOptions", name, ctypes.c_void_p(libc.strdup(text)),
            ctypes.cast(libc.free, ctypes.c_void_p),
        )  # fmt: skip

    @contextmanager
    def _locked(self, buffer: ctypes.c_void_p, mode: int) -> Iterator[ctypes.c_void_p]:
        memory = ctypes.c_void_p()
        self._call("LiteRtLockTensorBuffer", buffer, ctypes.byref(memory), mode)
        try:
            yield memory
        finally:
            self._call("LiteRtUnlockTensorBuffer", buffer)

    def _make(self, name: str, *arguments: Any) -> ctypes.c_void_p:
        made = ctypes.c_void_p()
        self._call(name, *arguments, ctypes.byref(made))
        return made

    def _call(self, name: str, *arguments: Any) -> None:
        if status := getattr(self._library, name)(*arguments):
            met = f"{self._path}: LiteRT's {name} fails with status {status}"
            raise UserError(met, "a .tflite that LiteRT compiles and profiles", "export the model again")


@cache
def load_library() -> ctypes.CDLL:
    """Load LiteRT's C library from its wheel.

    UserError where there is none, as in tflite_runtime, or an older one without a profiler.
    """
    path = Path(import_framework().__file__).parent / LIBRARY
    try:
        library = ctypes.CDLL(str(path))
        if not hasattr(library, "LiteRtCompiledModelGetProfiler"):
            raise OSError("it has no profiler")
    except OSError as e:
        raise UserError(f"{path}: {e}", "LiteRT with its C library", "pip install ai-edge-litert==2.3.0") from e
    return library
