"""Our core inside LiteRT, from Python: a .tflite whose ops are programs of ours, which libbve_litert.so takes."""

import ctypes
import threading
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from bigvit_edge.artifact import name_method
from bigvit_edge.errors import UserError, suggest
from bigvit_edge.runtime import MOST_THREADS, Array, check_image, check_options, explain, find_library

LIBRARY = "libbve_litert.so"
PREFIX = "libbve_litert: "  # of what it reports
SIGNATURE = {"inputs": ["image"], "outputs": ["logits"]}
FRAMEWORKS = ("ai_edge_litert", "tflite_runtime")  # the first that is installed; the newest first
BRINGS = "pip install ai-edge-litert"


class Session:
    """A signature of a .tflite, ready to run.

    Calls from several threads wait for one another, and for those of other signatures of the same interpreter. shape:
    of the image, [1, 3, size, size], or of pixels [1, size, size, 3] or so; dtype: of it, 'float32' or 'uint8';
    classes: of the logits.
    """

    def __init__(self, path: str | Path, interpreter: Any, method: str, lock: threading.Lock) -> None:
        self._path, self._interpreter, self._lock = path, interpreter, lock
        with lock:
            self._runner = interpreter.get_signature_runner(method)
            # This signature alone: nothing is started for the others.
            interpreter._interpreter.AllocateTensors(self._runner._subgraph_index)
        image = self._runner.get_input_details()["image"]
        self.shape, self.dtype = tuple(map(int, image["shape"])), str(np.dtype(image["dtype"]))
        self.classes = int(self._runner.get_output_details()["logits"]["shape"][-1])

    def run(self, image: Array) -> Array:
        """Run the model on one image.

        As the file takes it, of that shape and dtype -> logits, float32 [1, classes].
        """
        image = check_image(image, self.shape, self.dtype)
        with self._lock:
            try:
                return self._runner(image=image)["logits"]  # type: ignore[no-any-return]
            except RuntimeError as e:
                raise explain_failure(self._path, str(e)) from e

    def load(self, keep: float | None = None, *, method: str | None = None) -> "Session":
        """Load another signature of the file.

        As of load(), on the same copy of the weights.
        """
        return _open(self._path, self._interpreter, keep, method, self._lock)


def load(
    path: str | Path, keep: float | None = None, threads: int = 1, *, method: str | None = None,
    little_threads: int = 0, pin: bool = False, spin_us: int = 0, choose: bool = False,
) -> Session:  # fmt: skip
    """Load a signature of a .tflite, with libbve_litert.so as its delegate.

    It is the one of that keep ratio or of that name; the file's first if neither is given. threads, little_threads,
    pin, spin_us, choose: as of bigvit_edge.runtime.Session. UserError on whatever cannot work; the runtime writes to
    stderr what went before.
    """
    delegate = load_delegate(threads, little_threads, pin, spin_us, choose)
    try:
        interpreter = import_framework().Interpreter(
            model_path=str(path), num_threads=threads, experimental_delegates=[delegate]
        )
    except (RuntimeError, ValueError) as e:
        raise explain_failure(path, str(e)) from e
    return _open(path, interpreter, keep, method, threading.Lock())


def _open(path: str | Path, interpreter: Any, keep: float | None, method: str | None, lock: threading.Lock) -> Session:
    try:
        name = _find_method(path, interpreter, method, keep)
        if _find_keep(interpreter, name) is None:
            met = f"{path} without an op {PREFIX.rstrip(': ')} in signature {name}"
            raise UserError(met, "a .tflite that our core runs", "take a file exported with --set backend=native")
        return Session(path, interpreter, name, lock)
    except (RuntimeError, ValueError) as e:
        raise explain_failure(path, str(e)) from e


def load_delegate(
    threads: int | None = None, little_threads: int = 0, pin: bool = False, spin_us: int = 0, choose: bool = False
) -> Any:
    """Load our delegate, for an Interpreter's experimental_delegates.

    threads: as many as the interpreter's where None. UserError if there is no libbve_litert.so, no runtime, or no such
    option.
    """
    check_options(MOST_THREADS if threads is None else threads, little_threads, spin_us)
    options = {"little_threads": little_threads, "pin": int(pin), "spin_us": spin_us, "choose": int(choose)}
    given = options if threads is None else {"threads": threads, **options}
    path = load_library()
    try:
        return import_framework().load_delegate(str(path), given)
    except ValueError as e:
        raise explain_failure(path, str(e)) from e


@cache
def load_library() -> Path:
    """Load libbve_litert.so, and return where it is.

    UserError if it is nowhere, or not for this machine.
    """
    path = find_library(LIBRARY)
    try:
        ctypes.CDLL(str(path)).tflite_plugin_create_delegate  # noqa: B018
    except (OSError, AttributeError) as e:
        raise UserError(f"{path}: {e}", f"a {LIBRARY} for this machine", "build it: pip install .") from e
    return path


def explain_failure(path: str | Path, text: str) -> UserError:
    """Explain what a runtime reported about the file.

    Our own part of it if there is one, else all.
    """
    for line in text.splitlines():
        _, ours, fault = line.partition(PREFIX)
        if ours:
            error = explain(fault)
            return UserError(f"{path}: {error.met}", error.expected, error.do)
    met = f"{path}: LiteRT cannot load it ({' '.join(text.split())})"
    return UserError(met, "a .tflite file as exported", "export the model again")


@cache
def import_framework() -> Any:
    for name in FRAMEWORKS:
        try:
            return import_module(f"{name}.interpreter")
        except ModuleNotFoundError as e:
            if e.name and e.name.partition(".")[0] != name:
                raise
    raise UserError(f"neither of {', '.join(FRAMEWORKS)} is installed", "one of them", BRINGS)


def _find_method(path: str | Path, interpreter: Any, method: str | None, keep: float | None) -> str:
    signatures = interpreter.get_signature_list()
    names = list(signatures)
    if not names or signatures[names[0]] != SIGNATURE:
        raise UserError(f"{path} with signatures {signatures}", f"of each {SIGNATURE}", "take a .tflite of bigvit-edge")
    if method is not None and method not in names:
        met = f"{path} has no signature {method!r}"
        raise UserError(met, f"one of {', '.join(names)}", suggest(method, names))
    if keep is None:
        return method or names[0]
    wanted = (
        names[0] if len(names) == 1 and _read_keep(interpreter, names[0]) == np.float32(keep) else name_method(keep)
    )
    if wanted not in names or method not in (None, wanted):
        raise UserError(f"keep {keep:g} for {path}", f"one of its signatures, {', '.join(names)}")
    return wanted


def _read_keep(interpreter: Any, method: str) -> float | None:
    """The keep ratio of a signature of the first subgraph; None if the model has none."""
    number = _find_keep(interpreter, method)
    return None if number is None else float(interpreter.get_tensor(number)) or None


def _find_keep(interpreter: Any, method: str) -> int | None:
    """The number of the constant that a signature's op of ours takes; None if there is no such op. Runtimes list the
    tensors of any subgraph, but the ops of the first alone."""
    wrapper = interpreter._interpreter
    graph = wrapper.GetSubgraphIndexFromSignature(method)
    names = [wrapper.TensorName(number, graph) for number in range(wrapper.NumTensors(graph))]
    return names.index("keep") if "keep" in names else None
