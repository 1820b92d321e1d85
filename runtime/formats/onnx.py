"""An .onnx, run by ONNX Runtime on its CPU provider.

On x86 without VNNI, uint8 times int8 adds pairs of products in 16 bits and saturates there. Weights of 7 bits would
lose precision everywhere, and weights as uint8 half the speed where there is VNNI; so they are int8, and load asks the
runtime for its exact kernels (session.x64quantprecision) where it needs them. Who opens a file without load must too.
"""

import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bigvit_edge.artifact import Array, Runner
from bigvit_edge.console import silenced
from bigvit_edge.errors import UserError

with silenced():
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as state

METHOD = "main"  # what the graph is called in manifests; in the file it has the model's name
FLOAT = "tensor(float)"
FAULTS = (
    state.EPFail, state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf, state.NoModel,
    state.NotImplemented, state.RuntimeException,
)  # fmt: skip

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
NAME, EXTERNAL_DATA, DATA_LOCATION = 8, 13, 14  # fields of TensorProto
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # protobuf's wire types


def load(path: Path, threads: int = 1, method: str | None = None) -> Runner:
    """Open a .onnx on the CPU provider.

    It takes [1, 3, S, S] and gives [1, num_classes], float32. UserError if it is not one, wants data from other files,
    or a method is asked for that is not 'main'.
    """
    if method not in (None, METHOD):
        raise UserError(f"{path} has no method {method!r}", METHOD, "leave the method out: an ONNX file has one graph")
    session = open_session(path, set_options(threads))

    def run(images: Array) -> Array:
        return session.run(["logits"], {"image": images})[0]  # type: ignore[no-any-return]

    values = [*session.get_inputs(), *session.get_outputs()]
    image, logits = (tuple(n if isinstance(n, int) else -1 for n in value.shape) for value in values)
    return Runner(run, image, logits, session.get_modelmeta().custom_metadata_map)


def open_session(path: Path, options: Any) -> Any:
    """Open ONNX Runtime's session for a .onnx, from image to logits.

    UserError as of load.
    """
    with silenced():
        try:
            data = Path(path).read_bytes()
            refuse_outside_data(data)
            session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
            values = [*session.get_inputs(), *session.get_outputs()]
            if [(value.name, value.type) for value in values] != [("image", FLOAT), ("logits", FLOAT)]:
                found = ", ".join(f"{value.name} ({value.type})" for value in values)
                raise ValueError(f"it goes from and to {found} instead of from image to logits")
        except (*FAULTS, OSError, ValueError) as e:
            words = " ".join(str(e).split()) or type(e).__name__
            raise UserError(
                f"{path}: ONNX Runtime cannot load it ({words})", "an .onnx file as exported", "export the model again"
            ) from e
    return session


def set_options(threads: int) -> Any:
    """Make the session's options.

    It has that many threads, no log, and exact products of int8.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.x64quantprecision", str(int(saturates())))
    return options


def saturates(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Tell whether ONNX Runtime's int8 products are inexact on this CPU.

    Unless asked for, its products of uint8 and int8 are, on x86 without VNNI. Where the processor cannot be asked, we
    take it to be so.
    """
    if platform.machine().lower() not in ("x86_64", "amd64", "i386", "i686"):
        return False
    flags = set(cpuinfo.read_text().split()) if cpuinfo.is_file() else set()
    return not flags & {"avx512_vnni", "avx_vnni", "amx_int8"}


def refuse_outside_data(data: bytes) -> None:
    """Refuse a model that takes a tensor from outside itself.

    ValueError, as for bytes that are no ONNX model. Read here, because a board has ONNX Runtime and not onnx.
    """
    messages = [("ModelProto", memoryview(data))]
    while messages:
        kind, content = messages.pop()
        fields = list(_list_fields(content))
        if kind == "TensorProto":
            name = next((_read_text(value) for number, value in fields if number == NAME), "")
            if any(number == EXTERNAL_DATA or (number == DATA_LOCATION and value) for number, value in fields):
                raise ValueError(f"its tensor {name!r} is in another file")
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
