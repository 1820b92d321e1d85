"""Core ML programs evaluated here: what a saved .mlpackage answers, where Core ML itself runs on Apple's systems alone.

It reads the package as saved (manifest, program, weights), decompresses its weights and computes each op with PyTorch.
What Core ML's own kernels round inside an op does not show; with `half` what overflows or is lost between ops does.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bigvit_edge.artifact import CLASS_PROBABILITIES, LOGITS, Array, Runner
from bigvit_edge.errors import UserError
from bigvit_edge.preprocessing import FLOAT32, UINT8
from bigvit_edge.runtime.mil.definitions import list_defaults
from bigvit_edge.runtime.mil.ops import ABSENT, OPS, SEVERAL
from bigvit_edge.runtime.mil.package import Function, Op, Picture, Type, read_folder, read_function

Value = Tensor | str | dict[str, float]
Evaluate = Callable[[Mapping[str, Tensor]], dict[str, Value]]


def load_package(path: Path, function: str | None = None, half: bool | None = None, threads: int = 1) -> Runner:
    """Open an .mlpackage.

    It takes float32 [1, 3, S, S] or, where its input is a picture, uint8 [1, S, S, 3] in RGB, and gives float32
    [1, num_classes]: logits, or a classifier's own probabilities, in the order of its classes.

    function: an entry point; None for the default one. half: round to fp16 after every op (True), nowhere (False), or
    after those that the file declares as fp16 (None). UserError if it is no package that can be read, has no such
    function, or has an op that is not known here.
    """
    return load_files(read_folder(path), path, function, half, threads)


def load_files(
    files: Mapping[str, bytes], where: object, function: str | None = None, half: bool | None = None, threads: int = 1
) -> Runner:
    """Open a package in memory: relative path -> content.

    As load_package. where: what to call it in messages.
    """
    chosen = read_function(files, where, function)
    evaluate = open_function(chosen, where, half)
    answers = chosen.outputs if chosen.classes is None else chosen.outputs[1:]
    if len(chosen.inputs) != 1 or len(answers) != 1:
        met = f"{where}: {len(chosen.inputs)} inputs and {len(answers)} outputs"
        raise UserError(met, "one image in, logits or a classifier's probabilities out")
    ((image, type_),), (answer,) = chosen.inputs.items(), answers
    picture = chosen.pictures.get(image)
    shape, dtype = (type_.shape, FLOAT32) if picture is None else ((1, picture.height, picture.width, 3), UINT8)

    def run(images: NDArray[Any], by: Evaluate = evaluate, named: str = answer) -> Array:
        if images.shape != shape:
            raise UserError(f"{where}: an image of shape {images.shape}", f"one of shape {shape}", "resize it")
        if dtype == UINT8 and images.dtype != np.uint8:
            raise UserError(f"{where}: an image of {images.dtype}", "uint8, its pixels", "give them as they are")
        given = torch.from_numpy(np.ascontiguousarray(images, np.float32))
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            found = by({image: given if picture is None else _arrange(given, picture)})[named]
        finally:
            torch.set_num_threads(before)
        return _read_answer(found)

    rest = find_logits(chosen) if chosen.classes is not None else None

    @cache
    def open_rest() -> Evaluate:
        return open_function(replace(chosen, outputs=(str(rest),), classes=None), where, half)

    def read_logits(images: NDArray[Any]) -> Array:
        return run(images, open_rest(), str(rest))

    declared = {name: type_.shape for op in chosen.ops for name, type_ in op.outputs.items()}
    answered = declared.get(answer, ()) if chosen.classes is None else (1, len(chosen.classes))
    output = LOGITS if chosen.classes is None else CLASS_PROBABILITIES
    return Runner(run, shape, answered, chosen.words, dtype, output, None if rest is None else read_logits)


def find_logits(function: Function) -> str | None:
    """Find what a classifier's softmax is given, by the value's name.

    None where it ends with no softmax.
    """
    makers = {name: op for op in function.ops for name in op.outputs}
    op = next(op for op in function.ops if op.type == "classify")
    given = op.inputs.get("probabilities")
    while given and (made := makers.get(str(given[0]))) is not None and made.type in ("cast", "softmax"):
        given = made.inputs.get("x", ())
        if made.type == "softmax":
            return str(given[0])
    return None


def _arrange(pixels: Tensor, picture: Picture) -> Tensor:
    """Values [1, height, width, 3] in RGB as the program is given them."""
    return (pixels if picture.color == "RGB" else pixels.flip(3)).permute(0, 3, 1, 2)  # [1, 3, height, width]


def _read_answer(value: Value) -> Array:
    if isinstance(value, Tensor):
        return value.float().numpy()
    assert isinstance(value, dict)
    return np.array([list(value.values())], np.float32)


def list_ops(files: Mapping[str, bytes], where: object, function: str | None = None) -> list[Op]:
    """List the ops of a function in order, constants among them.

    UserError as in load_package.
    """
    return list(read_function(files, where, function).ops)


def unpack_blob(blob: bytes, where: object = "the delegate's blob") -> dict[str, bytes]:
    """Unpack an ExecuTorch Core ML delegate's blob for load_files.

    It holds an .mlpackage; UserError if there is none. Source: executorch's inmemoryfs: the files' contents one after
    another, then their index as JSON written backwards.
    """
    try:
        index, _ = json.JSONDecoder().raw_decode(blob[::-1].decode("latin-1"))
        nodes = index["nodes"]
        inner = {number for node in nodes for number in node["children"].values()}
        (root,) = set(range(len(nodes))) - inner
        if len(inner) < sum(len(node["children"]) for node in nodes):
            raise ValueError("a node with two parents")
        files = dict(_walk(blob, nodes, root, ""))
    except (KeyError, ValueError, TypeError, AttributeError, IndexError, RecursionError) as e:
        raise UserError(f"{where}: damaged ({type(e).__name__}: {e})", "files and their index") from e
    package = {path.removeprefix("model.mlpackage/"): content for path, content in files.items() if "/" in path}
    if not package:
        raise UserError(f"{where}: holds {', '.join(files)}", "a model.mlpackage")
    return package


def _walk(blob: bytes, nodes: list[Any], number: int, path: str) -> Iterator[tuple[str, bytes]]:
    node = nodes[number]
    if node["kind"] == 0:
        start, size = node["dataRegion"]["offset"], node["dataRegion"]["size"]
        if not 0 <= start <= start + size <= len(blob):
            raise ValueError(f"{path} ends at byte {start + size} of {len(blob)}")
        yield path, blob[start : start + size]
    for name, child in node["children"].items():
        yield from _walk(blob, nodes, child, f"{path}/{name}" if path else name)


def open_function(function: Function, where: object, half: bool | None = None) -> Evaluate:
    """Make a function callable, its constants computed once.

    Inputs by name -> outputs by name. UserError on an unknown op now, on one that does not fit its inputs or its
    declared type when it runs; constants run now.
    """
    for op in function.ops:
        if reason := explain_absence(op):
            raise UserError(f"{where}: op {op.type} ({_name(op)}): {reason}", "ops that can be evaluated here")
    constants: dict[str, Any] = {}
    rest = []
    for op in function.ops:
        known = op.type == "const" or all(not isinstance(v, str) or v in constants for v in _arguments(op))
        if known:
            constants |= _compute(op, function.opset, constants, half, where)
        else:
            rest.append(op)

    def evaluate(given: Mapping[str, Tensor]) -> dict[str, Value]:
        values = {**constants, **given}
        with torch.inference_mode():
            for op in rest:
                values |= _compute(op, function.opset, values, half, where)
        return {name: _find(values, name, where) for name in function.outputs}

    return evaluate


def explain_absence(op: Op) -> str:
    """Explain why the op cannot be evaluated here, '' if it can."""
    if op.type in OPS or op.type == "const":
        return ""
    return ABSENT.get(op.type, "an op that this version does not know")


def _arguments(op: Op) -> Iterable[object]:
    return (value for several in op.inputs.values() for value in several)


def _name(op: Op) -> str:
    return next(iter(op.outputs), "no output")


def _find(values: Mapping[str, Any], name: str, where: object) -> Any:
    if name not in values:
        raise UserError(f"{where}: nothing computes {name}", "an .mlpackage as exported", "export the model again")
    return values[name]


def _compute(op: Op, opset: str, values: Mapping[str, Any], half: bool | None, where: object) -> dict[str, Any]:
    """The op's outputs by name."""
    if op.type == "const":
        return {_name(op): op.constant}
    try:
        given = {
            key: tuple(_find(values, v, where) if isinstance(v, str) else v for v in several)
            for key, several in op.inputs.items()
        }
        arguments = {key: several if key in SEVERAL else several[0] for key, several in given.items()}
        result = OPS[op.type](**arguments, **list_defaults(op.type, opset, arguments))
        results = result if isinstance(result, tuple) else (result,)
        return {
            name: _settle(value, name, type_, half)
            for (name, type_), value in zip(op.outputs.items(), results, strict=True)
        }
    except UserError:
        raise
    except Exception as e:  # whatever a damaged attribute does to PyTorch
        said = str(e).splitlines()
        raise UserError(
            f"{where}: op {op.type} ({_name(op)}) cannot run: {said[0] if said else type(e).__name__}",
            "a program that fits together",
            "export the model again",
        ) from e


def _settle(value: Value, name: str, type_: Type, half: bool | None) -> Value:
    """The value as the file declares it."""
    dtype, shape = type_.dtype, type_.shape
    if not isinstance(value, Tensor):
        if {str: "string", dict: "dictionary"}[type(value)] != dtype or shape:
            raise ValueError(f"{name} is a {type(value).__name__}, declared as {dtype} {list(shape)}")
        return value
    if len(value.shape) != len(shape) or any(n not in (-1, m) for n, m in zip(shape, value.shape, strict=True)):
        raise ValueError(f"{name} is {list(value.shape)}, declared as {list(shape)}")
    if value.is_floating_point() != dtype.startswith("fp") or (value.dtype == torch.bool) != (dtype == "bool"):
        raise ValueError(f"{name} is {value.dtype}, declared as {dtype}")
    rounds = dtype == "fp16" if half is None else half and value.is_floating_point()
    return value.half().float() if rounds else value
