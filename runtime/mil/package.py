"""Reading a saved .mlpackage: its manifest, the program in model.mlmodel and the numbers in weights/.

Written from the formats, not with coremltools' reader, so that a mistake of its writer shows. Source: mlmodel/format/
MIL.proto and Model.proto of coremltools, and mlmodel/src/MILBlob/Blob/StorageFormat.hpp for the weights: 64 bytes of
header, then for each tensor a record of 64 bytes (mark, type, size and place of the content).
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bigvit_edge.artifact import list_data
from bigvit_edge.console import silenced
from bigvit_edge.errors import UserError, suggest

with silenced():
    from coremltools.proto import FeatureTypes_pb2, MIL_pb2, Model_pb2
    from google.protobuf.message import DecodeError

Constant = Tensor | str | tuple[str, ...]

MANIFEST = "Manifest.json"
EXPORT_AGAIN = "export the model again"
MODEL_PATH = "@model_path/"  # how a program names the folder it lies in
RECORD = struct.Struct("<IIQQ")  # mark, type, bytes of content, place of content
MARK = 0xDEADBEEF

# MIL.DataType -> its word, the word's number in the weights file (0: never there), NumPy's type, bits if packed
TYPES: dict[int, tuple[str, int, Any, int]] = {
    MIL_pb2.BOOL: ("bool", 0, np.bool_, 0),
    MIL_pb2.STRING: ("string", 0, None, 0),
    MIL_pb2.FLOAT16: ("fp16", 1, np.float16, 0),
    MIL_pb2.FLOAT32: ("fp32", 2, np.float32, 0),
    MIL_pb2.INT8: ("int8", 4, np.int8, 0),
    MIL_pb2.INT16: ("int16", 6, np.int16, 0),
    MIL_pb2.INT32: ("int32", 14, np.int32, 0),
    MIL_pb2.INT64: ("int64", 0, np.int64, 0),
    MIL_pb2.UINT8: ("uint8", 3, np.uint8, 0),
    MIL_pb2.UINT16: ("uint16", 7, np.uint16, 0),
    MIL_pb2.UINT32: ("uint32", 15, np.uint32, 0),
    MIL_pb2.INT4: ("int4", 8, np.uint8, 4),
    MIL_pb2.UINT4: ("uint4", 11, np.uint8, 4),
    MIL_pb2.UINT2: ("uint2", 10, np.uint8, 2),
    MIL_pb2.UINT1: ("uint1", 9, np.uint8, 1),
}

COLORS = {FeatureTypes_pb2.ImageFeatureType.RGB: "RGB", FeatureTypes_pb2.ImageFeatureType.BGR: "BGR"}


@dataclass(frozen=True)
class Type:
    """The type of a value.

    dtype: 'fp16', 'int32', ..., 'list', 'dictionary'; shape: -1 in a place that is not fixed, () of a dictionary.
    """

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Op:
    """One op.

    inputs: for each argument the name of a value, or a constant; `values` of a concat has several. types: of the
    arguments that are constants in the op itself. outputs: name -> type. constant: the value of a `const`.
    """

    type: str
    inputs: dict[str, tuple[Constant, ...]]
    types: dict[str, Type]
    outputs: dict[str, Type]
    constant: Constant | None


@dataclass(frozen=True)
class Picture:
    """An input that takes pictures of 8 bits a channel.

    The program is given their values, 0..255, as floats [1, 3, height, width]. color: in which order it takes the
    channels, 'RGB' or 'BGR'; width and height in pixels.
    """

    color: str
    width: int
    height: int


@dataclass(frozen=True)
class Function:
    """One entry point.

    opset: which version its ops are of, as 'CoreML7'; inputs: name -> type; outputs: names of values; words: what the
    package says of itself, as its writer defined; pictures: by name, the inputs that take them; classes: of a
    classifier, whose outputs are the likeliest of these labels and the probabilities by label; None of others.
    """

    name: str
    opset: str
    inputs: dict[str, Type]
    outputs: tuple[str, ...]
    ops: tuple[Op, ...]
    words: Mapping[str, str]
    pictures: Mapping[str, Picture]
    classes: tuple[str, ...] | None


def read_folder(path: Path) -> dict[str, bytes]:
    """Read the files of an .mlpackage by relative path.

    UserError if it is not one.
    """
    try:
        if not (path / MANIFEST).is_file():
            raise UserError(f"{path}: no {MANIFEST} in it", "an .mlpackage folder as exported", EXPORT_AGAIN)
        return {file.relative_to(path).as_posix(): file.read_bytes() for file in list_data(path)}
    except OSError as e:
        raise UserError(f"{path}: {e.strerror}", "an .mlpackage folder that can be read") from e


def read_function(files: Mapping[str, bytes], where: object, name: str | None = None) -> Function:
    """Read an entry point of a package, None for the default one.

    UserError if there is none of that name, or a file is missing, cut or not what it should be. where: what to call the
    package in messages.
    """
    try:
        manifest = json.loads(files[MANIFEST])
        path = "Data/" + manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"]
        model = Model_pb2.Model.FromString(files[path])
        if model.WhichOneof("Type") != "mlProgram":
            raise ValueError(f"a model of kind {model.WhichOneof('Type')}, not mlProgram")
        wanted, known = name or model.description.defaultFunctionName or "main", sorted(model.mlProgram.functions)
        if wanted not in known:
            raise UserError(f"{where}: no method {wanted!r}", f"one of {', '.join(known)}", suggest(wanted, known))
        folder = path.rpartition("/")[0] + "/"
        return _read_function(wanted, model, files, folder)
    # whatever a damaged byte does to json, protobuf or NumPy
    except (LookupError, ValueError, TypeError, AttributeError, DecodeError, RecursionError, struct.error) as e:
        met = f"{where}: damaged ({type(e).__name__}: {e})"
        raise UserError(met, "an .mlpackage as exported", EXPORT_AGAIN) from e


def _read_function(name: str, model: Any, files: Mapping[str, bytes], folder: str) -> Function:
    function = model.mlProgram.functions[name]
    block = function.block_specializations[function.opset]
    ops = tuple(_read_op(op, files, folder) for op in block.operations)
    if not block.outputs:
        raise ValueError(f"function {name} has no output")
    inputs = {i.name: _read_type(i.type) for i in function.inputs}
    words = dict(model.description.metadata.userDefined)
    told = find_description(model.description, name)
    pictures = {i.name: _read_picture(i.type.imageType) for i in told.input if i.type.HasField("imageType")}
    for where, picture in pictures.items():
        if inputs[where] != Type("fp32", (1, 3, picture.height, picture.width)):
            raise ValueError(f"input {where} takes pictures of {picture.width} x {picture.height} pixels")
    classes = _read_classes(told, tuple(block.outputs), ops)
    return Function(name, function.opset, inputs, tuple(block.outputs), ops, words, pictures, classes)


def _read_classes(told: Any, outputs: tuple[str, ...], ops: tuple[Op, ...]) -> tuple[str, ...] | None:
    """The labels of a classifier's op, which is where the description says, None where there is none."""
    predicted = tuple(filter(None, (told.predictedFeatureName, told.predictedProbabilitiesName)))
    made = next((op for op in ops if op.type == "classify"), None)
    if (tuple(made.outputs) if made else ()) != predicted or (made and predicted != outputs):
        raise ValueError(f"outputs {', '.join(outputs)}, where {' and '.join(predicted) or 'logits'} are described")
    if not made:
        return None
    (classes,) = made.inputs["classes"]
    if not isinstance(classes, tuple) or not all(isinstance(label, str) for label in classes):
        raise ValueError("classes whose labels are no texts")
    return classes


def find_description(description: Any, name: str) -> Any:
    """Find what a package's description says of an entry point.

    It is the description itself where that lists none. ValueError where it lists others alone.
    """
    if not description.functions:
        return description
    found = [function for function in description.functions if function.name == name]
    if len(found) != 1:
        raise ValueError(f"function {name} is described {len(found)} times")
    return found[0]


def _read_picture(image: Any) -> Picture:
    color = COLORS.get(image.colorSpace)
    if color is None or image.WhichOneof("SizeFlexibility"):
        raise ValueError("an input takes pictures without colour, or of several sizes")
    return Picture(color, image.width, image.height)


def _read_op(op: Any, files: Mapping[str, bytes], folder: str) -> Op:
    inputs: dict[str, tuple[Constant, ...]] = {}
    types = {}
    for key, argument in op.inputs.items():
        values = []
        for binding in argument.arguments:
            if binding.WhichOneof("binding") == "name":
                values.append(binding.name)
            else:
                values.append(_read_value(binding.value, files, folder))
                types[key] = _read_type(binding.value.type)
        inputs[key] = tuple(values)
    for key, value in op.attributes.items():  # before iOS18 a constexpr's arguments stand there
        if key not in ("name", "val"):
            inputs[key] = (_read_value(value, files, folder),)
            types[key] = _read_type(value.type)
    constant = _read_value(op.attributes["val"], files, folder) if op.type == "const" else None
    return Op(op.type, inputs, types, {output.name: _read_type(output.type) for output in op.outputs}, constant)


def _read_type(value: Any) -> Type:
    match value.WhichOneof("type"):
        case "dictionaryType":
            return Type("dictionary", ())
        case "listType":
            return Type("list", (value.listType.length.constant.size,))
    tensor = value.tensorType
    shape = [d.constant.size if d.WhichOneof("dimension") == "constant" else -1 for d in tensor.dimensions]
    return Type(TYPES[tensor.dataType][0], tuple(shape))


def _read_value(value: Any, files: Mapping[str, bytes], folder: str) -> Any:
    """A constant: floats as float32, integers as int32 (int64 where they were so), texts as str, lists as tuples."""
    if value.type.WhichOneof("type") == "listType":
        return tuple(_read_value(one, files, folder) for one in value.immediateValue.list.values)
    tensor = value.type.tensorType
    _, number, dtype, bits = TYPES[tensor.dataType]
    shape = [d.constant.size for d in tensor.dimensions]
    if value.WhichOneof("value") == "blobFileValue":
        place = value.blobFileValue
        data = files[folder + place.fileName.removeprefix(MODEL_PATH)]
        content = _unpack(_read_record(data, place.offset, number), dtype, bits, prod(shape))
    else:
        immediate = value.immediateValue.tensor
        field = immediate.WhichOneof("value")
        values = getattr(immediate, field).values
        if tensor.dataType == MIL_pb2.STRING:
            return tuple(values) if shape else values[0]
        content = _unpack(values, dtype, bits, prod(shape)) if field == "bytes" else np.array(values).astype(dtype)
    if tensor.dataType == MIL_pb2.INT4:
        content = (content.astype(np.int8) ^ 8) - 8
    wide = np.float32 if content.dtype.kind == "f" else content.dtype if content.dtype.kind == "b" else np.int32
    wide = np.int64 if content.dtype in (np.int64, np.uint32) else wide
    return torch.from_numpy(content.astype(wide).reshape(shape))


def _read_record(data: bytes, at: int, number: int) -> bytes:
    mark, kind, size, start = RECORD.unpack_from(data, at)
    if mark != MARK or kind != number:
        raise ValueError(f"no tensor of type {number} at byte {at} of the weights, but mark {mark:#x}, type {kind}")
    if start + size > len(data):
        raise ValueError(f"the weights end at byte {len(data)}, before {start + size}")
    return data[start : start + size]


def _unpack(data: bytes, dtype: Any, bits: int, count: int) -> Any:
    """Bytes as numbers; packed ones lie lowest bits first."""
    numbers = np.frombuffer(data, dtype)
    if bits:
        spread = numbers[:, None] >> np.arange(0, 8, bits, dtype=np.uint8)
        numbers = (spread & ((1 << bits) - 1)).reshape(-1)[:count]
    return numbers
