"""A .tflite, run by LiteRT's interpreter with XNNPACK, or with our core where the file holds a program of ours."""

import struct
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigvit_edge.artifact import LOGITS, OUTPUTS, PROBABILITIES, Array, Runner
from bigvit_edge.console import silenced
from bigvit_edge.errors import UserError, suggest
from bigvit_edge.runtime.litert import BRINGS, FRAMEWORKS, LIBRARY, import_framework, load_library
from bigvit_edge.runtime.litert import load as load_native
from bigvit_edge.runtime.tflite import answer_logits, holds_program, list_methods, read_strings, select_method


def load(path: Path, threads: int = 1, method: str | None = None) -> Runner:
    """Open a .tflite.

    It takes an image, float32 or uint8, and gives [1, num_classes], float32. method: a signature's name; None: the
    first in the file. UserError if the file is none that LiteRT takes, or has no such signature.

    Only the signature asked for is set up: of a file with several, a copy in memory is cut down to it.
    """
    with silenced():
        framework = import_framework()
        make = framework.Interpreter
        try:
            interpreter = make(model_path=str(path), num_threads=threads)  # and the file is a sound one
            content = path.read_bytes()
            methods = list(list_methods(content))
            name = _choose_method(path, methods, method)
            if holds_program(content):
                _load_core(path)
                session = load_native(path, threads=threads, method=name)
                return Runner(session.run, session.shape, (1, session.classes), read_strings(content), session.dtype)
            words = read_strings(content)
            answer = _name_answer(interpreter, name)
            if len(methods) > 1:
                content = select_method(content, name)
                interpreter = make(model_content=content, num_threads=threads)
            rest = answer_logits(content) if answer == PROBABILITIES else None
            del content
            interpreter.allocate_tensors()
        except (RuntimeError, ValueError, OSError, struct.error, IndexError) as e:
            newest = framework.__name__.startswith(FRAMEWORKS[0])
            raise UserError(
                f"{path}: LiteRT cannot load it ({' '.join(str(e).split())})", "a .tflite file as exported",
                "export the model again" if newest else f"{BRINGS}, which knows more ops",
            ) from e  # fmt: skip
    tensors = interpreter.get_input_details(), interpreter.get_output_details()
    types = [[np.dtype(tensor["dtype"]).name for tensor in side] for side in tensors]
    if types not in ([["float32"], ["float32"]], [["uint8"], ["float32"]]):
        met = f"{path}: inputs of {types[0]}, outputs of {types[1]}"
        raise UserError(met, "one image in, float32 or uint8, and logits out", "export the model again")
    (image,), (logits,) = tensors

    def run(images: NDArray[Any], of: Any = interpreter) -> Array:
        answered = of.get_output_details()[0]["index"] if of is not interpreter else logits["index"]
        of.set_tensor(image["index"], images)
        of.invoke()
        return of.get_tensor(answered)  # type: ignore[no-any-return]

    @cache
    def open_rest() -> Any:
        """Once it is asked for: it has weights of its own."""
        with silenced():
            opened = make(model_content=rest, num_threads=threads)
            opened.allocate_tensors()
        return opened

    def read_logits(images: NDArray[Any]) -> Array:
        return run(images, open_rest())

    shape, answered = (tuple(map(int, tensor["shape"])) for tensor in (image, logits))
    return Runner(
        run, shape, answered, words, types[0][0], answer if answer in OUTPUTS else LOGITS, read_logits if rest else None
    )


def _name_answer(interpreter: Any, method: str) -> str:
    """What a signature calls its output; '' of a file without."""
    signature = interpreter.get_signature_list().get(method, {})
    return "".join(signature.get("outputs", []))


def _load_core(path: Path) -> None:
    """UserError, if our core as a delegate cannot be had, of the file that wants it."""
    try:
        load_library()
    except UserError as e:
        raise UserError(f"{path} is run by {LIBRARY}: {e.met}", e.expected, e.do) from e


def _choose_method(path: Path, methods: list[str], method: str | None) -> str:
    if method is None:
        return methods[0] if methods else ""  # others' files may have none, and one graph all the same
    if method not in methods:
        raise UserError(
            f"{path} has no signature {method!r}", f"one of {', '.join(methods)}", suggest(str(method), methods)
        )
    return method
