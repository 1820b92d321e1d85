"""Where an .onnx keeps its tensors: one that has some in other files is refused before anything opens it."""

from collections.abc import Iterator
from pathlib import Path

from bigvit_edge.errors import UserError

# Of messages in which a tensor can be, the fields that lead there, by their numbers. Source: onnx.proto3 of ONNX 1.23.
LEADING = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto", 6: "GraphProto", 10: "TensorProto", 11: "GraphProto", 22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
}  # fmt: skip
GRAPH = 7  # field of ModelProto
NAME, EXTERNAL_DATA, DATA_LOCATION = 8, 13, 14  # fields of TensorProto
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # protobuf's wire types


class OutsideDataError(ValueError):
    """A model that takes a tensor from another file."""


def explain_failure(path: Path, e: Exception) -> UserError:
    """Make the error of an .onnx that cannot be loaded."""
    words = " ".join(str(e).split()) or type(e).__name__
    return UserError(
        f"{path}: ONNX Runtime cannot load it ({words})", "an .onnx file as exported", "export the model again"
    )


def refuse_outside_data(data: bytes) -> None:
    """Refuse a model that takes a tensor from outside itself.

    OutsideDataError; ValueError for bytes that are no ONNX model. Read here, because a board has ONNX Runtime and not
    onnx, and whoever only measures has neither.
    """
    messages = [("ModelProto", memoryview(data))]
    while messages:
        kind, content = messages.pop()
        fields = list(_list_fields(content))
        if kind == "ModelProto" and not any(number == GRAPH for number, _ in fields):
            raise ValueError("no ONNX model: it has no graph")
        if kind == "TensorProto":
            name = next((_read_text(value) for number, value in fields if number == NAME), "")
            if any(number == EXTERNAL_DATA or (number == DATA_LOCATION and value) for number, value in fields):
                raise OutsideDataError(f"its tensor {name!r} is in another file")
        for number, value in fields:
            inner = LEADING.get(kind, {}).get(number)
            if inner and isinstance(value, memoryview):
                messages.append((inner, value))


def _read_text(value: int | memoryview) -> str:
    return bytes(value).decode(errors="replace") if isinstance(value, memoryview) else ""


def _list_fields(content: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """A message's fields in order, by number: integers, and views of what is bytes, a text or a message."""
    at = 0
    while at < len(content):
        value: int | memoryview | None = None
        tag, at = _read_varint(content, at)
        wire = tag & 7
        if wire == VARINT:
            value, at = _read_varint(content, at)
        elif wire in (FIXED64, FIXED32):
            at += 8 if wire == FIXED64 else 4
        elif wire == BYTES:
            size, at = _read_varint(content, at)
            value, at = content[at : at + size], at + size
        else:
            raise ValueError(f"no ONNX model: a field of wire type {wire}")
        if at > len(content):
            raise ValueError("no ONNX model: it ends within a field")
        if value is not None:
            yield (tag & 0xFFFFFFFF) >> 3, value


def _read_varint(content: memoryview, at: int) -> tuple[int, int]:
    """A number of at most ten bytes, seven bits each from the lowest on, and where it ends."""
    number = 0
    for place, byte in enumerate(content[at : at + 10]):
        number |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return number, at + place + 1
    raise ValueError("no ONNX model: it ends within a number")
