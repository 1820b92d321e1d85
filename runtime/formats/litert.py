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
from bigvit_edge.preprocessing import FLOAT32, UINT8
from bigvit_edge.runtime.litert import BRINGS, FRAMEWORKS, LIBRARY, import_framework, load_library
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
                return Runner(session.step, session.signature, read_strings(content))
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
    given_by_name, made_by_name = _list_ends(interpreter, name, answer)
    signature = _describe(path, given_by_name, made_by_name)

    def run(given: Mapping[str, NDArray[Any]]) -> dict[str, Array]:
        for name, told in given_by_name.items():
            interpreter.set_tensor(told["index"], given[name])
        interpreter.invoke()
        return {name: interpreter.get_tensor(told["index"]) for name, told in made_by_name.items()}

    @cache
    def open_rest() -> Any:
        """Once it is asked for: it has weights of its own."""
        with silenced():
            opened = make(model_content=rest, num_threads=threads)
            opened.allocate_tensors()
        return opened

    def run_rest(given: Mapping[str, NDArray[Any]]) -> dict[str, Array]:
        of, (images,) = open_rest(), given.values()
        of.set_tensor(of.get_input_details()[0]["index"], images)
        of.invoke()
        return {LOGITS: of.get_tensor(of.get_output_details()[0]["index"])}

    return Runner(run, signature, words, run_rest if rest else None)


def _list_ends(interpreter: Any, method: str, answer: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What LiteRT says of each input and output. Of several the signature has the names; of one and one, whoever wrote
    the file, they are an image and its answer."""
    given, made = interpreter.get_input_details(), interpreter.get_output_details()
    if len(given) == len(made) == 1:
        return {IMAGE: given[0]}, {answer: made[0]}
    if method not in interpreter.get_signature_list():
        return {told["name"]: told for told in given}, {told["name"]: told for told in made}
    runner = interpreter.get_signature_runner(method)
    return runner.get_input_details(), runner.get_output_details()


def _describe(path: Path, given: Mapping[str, Any], made: Mapping[str, Any]) -> Signature:
    inputs, outputs = (
        tuple(Tensor(name, tuple(map(int, told["shape"])), np.dtype(told["dtype"]).name) for name, told in side.items())
        for side in (given, made)
    )
    if {tensor.dtype for tensor in inputs} - {FLOAT32, UINT8} or {tensor.dtype for tensor in outputs} - {FLOAT32}:
        met = f"{path}: {Signature(inputs, outputs)}"
        raise UserError(met, "float32 or uint8 in and float32 out", "export the model again")
    return Signature(inputs, outputs)


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
