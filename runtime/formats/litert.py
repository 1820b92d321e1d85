"""A .tflite, run by LiteRT's interpreter with XNNPACK, or with bve where the file holds a program of ours."""

import struct
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigvit_edge.artifact import Runner
from bigvit_edge.console import silenced
from bigvit_edge.entry_points import choose_entry
from bigvit_edge.errors import UserError
from bigvit_edge.runtime.litert import BRINGS, FRAMEWORKS, LIBRARY, Session, import_framework, load_library
from bigvit_edge.runtime.litert import load as load_native
from bigvit_edge.runtime.tflite import answer_logits, holds_program, list_methods, read_strings, select_method
from bigvit_edge.signature import IMAGE, Array, Signature, Tensor
from bigvit_edge.tasks import TASKS, find_task
from bigvit_edge.tasks.classification import LOGITS, PROBABILITIES


def load(path: Path, threads: int = 1, method: str | None = None) -> Runner:
    """Open a .tflite.

    It takes an image, float32 or uint8, and gives its answer in float32. method: a signature's name; None: the
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
            # others' files may have no signature, and one graph all the same
            found = methods or method
            name = choose_entry(path, dict.fromkeys(methods), method, kind="signature") if found else ""
            if holds_program(content):
                _load_core(path)
                session = load_native(path, threads=threads, method=name)
                return _make_native_runner(session, read_strings(content))
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
        raise UserError(met, "one image in, float32 or uint8, and one answer out", "export the model again")
    (image,), (output,) = tensors

    def run(given: Mapping[str, NDArray[Any]], of: Any = interpreter, named: str = answer) -> dict[str, Array]:
        (images,) = given.values()
        of.set_tensor(image["index"], images)
        of.invoke()
        return {named: of.get_tensor(of.get_output_details()[0]["index"])}

    @cache
    def open_rest() -> Any:
        """Once it is asked for: it has weights of its own."""
        with silenced():
            opened = make(model_content=rest, num_threads=threads)
            opened.allocate_tensors()
        return opened

    def run_rest(given: Mapping[str, NDArray[Any]]) -> dict[str, Array]:
        return run(given, open_rest(), LOGITS)

    shape, answered = (tuple(map(int, tensor["shape"])) for tensor in (image, output))
    signature = Signature((Tensor(IMAGE, shape, types[0][0]),), (Tensor(answer, answered),))
    return Runner(run, signature, words, run_rest if rest else None)


def _make_native_runner(session: Session, words: Mapping[str, str]) -> Runner:
    def run(given: Mapping[str, NDArray[Any]]) -> dict[str, Array]:
        (image,) = given.values()
        return {LOGITS: session.run(image)}

    inputs = (Tensor(IMAGE, session.shape, session.dtype),)
    return Runner(run, Signature(inputs, (Tensor(LOGITS, (1, session.classes)),)), words)


def _name_answer(interpreter: Any, method: str) -> str:
    """What a signature calls its output; logits of a file without, or of one that calls it otherwise."""
    signature = interpreter.get_signature_list().get(method, {})
    name = "".join(signature.get("outputs", []))
    return name if any(name in find_task(task).OUTPUTS for task in TASKS) else LOGITS


def _load_core(path: Path) -> None:
    """UserError, if the bve runtime as a delegate cannot be had, of the file that wants it."""
    try:
        load_library()
    except UserError as e:
        raise UserError(f"{path} is run by {LIBRARY}: {e.met}", e.expected, e.do) from e
