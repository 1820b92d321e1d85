"""bve inside LiteRT, from Python: a .tflite whose ops are programs of ours, which libbve_litert.so takes."""

import ctypes
import threading
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from bigvit_edge.entry_points import choose_entry, read_keeps
from bigvit_edge.errors import UserError
from bigvit_edge.runtime import MOST_THREADS, Array, check_image, check_options, find_library
from bigvit_edge.runtime.abi import Parts
from bigvit_edge.signature import Signature, Tensor

LIBRARY = "libbve_litert.so"
PREFIX = "libbve_litert: "  # of what it reports
FRAMEWORKS = ("ai_edge_litert", "tflite_runtime")  # the first that is installed; the newest first
BRINGS = "pip install ai-edge-litert"


class Session:
    """A signature of a .tflite, ready to run.

    Calls from several threads wait for one another, and for those of other signatures of the same interpreter.
    signature: what it takes and gives; shape: of the first input, an image [1, 3, size, size], or of pixels [1, size,
    size, 3] or so; dtype: of it, 'float32' or 'uint8'; classes: the last side of the first output.
    """

    def __init__(self, path: str | Path, interpreter: Any, method: str, lock: threading.Lock) -> None:
        self._path, self._interpreter, self._lock = path, interpreter, lock
        with lock:
            self._runner = interpreter.get_signature_runner(method)
            # This signature alone: nothing is started for the others.
            interpreter._interpreter.AllocateTensors(self._runner._subgraph_index)
        sides = self._runner.get_input_details(), self._runner.get_output_details()
        self.signature = Signature(*(tuple(_describe(*item) for item in side.items()) for side in sides))
        self.shape, self.dtype = self.signature.inputs[0].shape, self.signature.inputs[0].dtype
        self.classes = self.signature.outputs[0].shape[-1]

    def run(self, image: Array) -> Array:
        """Run the model on one image.

        As the file takes it, of that shape and dtype -> its answer, float32.
        """
        (answer,) = self.step({self.signature.inputs[0].name: image}).values()
        return answer

    def step(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Run the model on an array for each input, by name.

        Each as the file takes it -> an array for each output.
        """
        given = {told.name: check_image(arrays[told.name], told.shape, told.dtype) for told in self.signature.inputs}
        with self._lock:
            try:
                return self._runner(**given)  # type: ignore[no-any-return]
            except RuntimeError as e:
                raise explain_failure(self._path, str(e)) from e

    def load(self, keep: float | None = None, *, method: str | None = None) -> "Session":
        """Load another signature of the file.

        As of load(), on the same copy of the weights.
        """
        return _open(self._path, self._interpreter, keep, method, self._lock)


def _describe(name: str, told: Mapping[str, Any]) -> Tensor:
    return Tensor(name, tuple(map(int, told["shape"])), str(np.dtype(told["dtype"])))


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
            raise UserError(
                met, "a .tflite that the bve runtime runs", "take a file exported with --set delegate=native"
            )
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

    What our delegate has refused if it has, else all.
    """
    parts = Parts()
    if PREFIX in text and ctypes.CDLL(str(load_library())).bve_litert_error_parts(ctypes.byref(parts)):
        return parts.explain(path)
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
    if not names:
        raise UserError(f"{path} without signatures", "one for each keep ratio", "take a .tflite of bigvit-edge")
    ratios = read_keeps(names)
    if len(names) == 1 and keep is not None:
        ratios = {names[0]: _read_keep(interpreter, names[0])}
    return choose_entry(path, ratios, method, keep, "signature")


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
