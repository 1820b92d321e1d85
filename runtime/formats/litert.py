"""A .tflite, run by LiteRT's interpreter with XNNPACK, or with our core where the file holds a program of ours."""

import struct
from pathlib import Path

import numpy as np

from bigvit_edge.artifact import Array, Runner
from bigvit_edge.console import silenced
from bigvit_edge.errors import UserError, suggest
from bigvit_edge.runtime.litert import BRINGS, FRAMEWORKS, LIBRARY, import_framework, load_library
from bigvit_edge.runtime.litert import load as load_native
from bigvit_edge.runtime.tflite import holds_program, list_methods, read_strings, select_method


def load(path: Path, threads: int = 1, method: str | None = None) -> Runner:
    """Open a .tflite.

    It takes [1, 3, S, S] and gives [1, num_classes], float32. method: a signature's name; None: the first in the file.
    UserError if the file is none that LiteRT takes, or has no such signature.

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
                return Runner(session.run, session.shape, (1, session.classes), read_strings(content))
            words = read_strings(content)
            if len(methods) > 1:
                content = select_method(content, name)
                interpreter = make(model_content=content, num_threads=threads)
            del content
            interpreter.allocate_tensors()
        except (RuntimeError, ValueError, OSError, struct.error, IndexError) as e:
            newest = framework.__name__.startswith(FRAMEWORKS[0])
            raise UserError(
                f"{path}: LiteRT cannot load it ({' '.join(str(e).split())})", "a .tflite file as exported",
                "export the model again" if newest else f"{BRINGS}, which knows more ops",
            ) from e  # fmt: skip
    tensors = interpreter.get_input_details(), interpreter.get_output_details()
    if [[tensor["dtype"] for tensor in side] for side in tensors] != [[np.float32], [np.float32]]:
        met = f"{path}: {len(tensors[0])} inputs and {len(tensors[1])} outputs, or not of float32"
        raise UserError(met, "one image in, logits out", "export the model again")
    (image,), (logits,) = tensors

    def run(images: Array) -> Array:
        interpreter.set_tensor(image["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(logits["index"])  # type: ignore[no-any-return]

    return Runner(run, tuple(map(int, image["shape"])), tuple(map(int, logits["shape"])), words)


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
