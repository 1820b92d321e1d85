"""What a .tflite holds, as objects: its ops, its strings; and how to change them (runtime/tflite.py only reads)."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from math import prod
from typing import Any

import numpy as np

from bigvit_edge.artifact import Array
from bigvit_edge.console import silenced
from bigvit_edge.runtime.tflite import KEY

with silenced():
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils
    from flatbuffers import Builder

Model = Any  # schema.ModelT: the file as objects, which the generated code leaves untyped
IDENTIFIER = b"TFL3"
LAST_BYTE = 127  # in place of an op's number in the field of one byte that old files have, where it does not fit


def _name_values(enumeration: Any) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if not name.startswith("_")}


OP_NAMES = _name_values(schema.BuiltinOperator)
TYPE_NAMES = _name_values(schema.TensorType)


@dataclass(frozen=True)
class Op:
    """One op of a signature.

    inputs, outputs: tensor numbers, -1 for an input left out; output: name of the first output; types: of inputs and
    outputs, 'FLOAT32' and so on; weight: second input, if constant and float32.
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    output: str
    types: frozenset[str]
    macs: int
    weight: Array | None

    @property
    def layer(self) -> str:
        """Name the module it came from, as simplify wrote it.

        '_layers/3/p/mlp;2' -> 'layers.3.p.mlp'; '' for the model.
        """
        first = self.output.split(";")[0]
        return first[1:].replace("/", ".") if first.startswith("_") else ""


def read_model(data: bytes) -> Model:
    """Read the file as objects.

    Its buffers stay views of the bytes.
    """
    return flatbuffer_utils.read_model_from_bytearray(data)


class _Builder(Builder):  # type: ignore[misc]
    """Writes equal vectors once; sets those of 16 bytes and more on multiples of `alignment` bytes: the schema demands
    16 of buffers, and the generated code forgets it."""

    def __init__(self, alignment: int) -> None:
        super().__init__(1024)
        self.alignment = alignment
        self.written: dict[Any, int] = {}

    def CreateNumpyVector(self, x: Any) -> int:
        key = x.dtype.str, sha256(x.data).digest()
        if key not in self.written:
            if x.nbytes >= 16:
                self.Prep(self.alignment, x.nbytes)
            self.written[key] = super().CreateNumpyVector(x)
        return self.written[key]


@dataclass(frozen=True)
class _Shared:
    """An object of the generated code that is written once, however many equal ones there are. Signatures of one model
    have most of their ops and constants in common, scales included."""

    item: Any

    def Pack(self, builder: Any) -> int:
        key = _freeze(self.item)
        if key not in builder.written:
            builder.written[key] = self.item.Pack(builder)
        return int(builder.written[key])


def _freeze(item: Any) -> Any:
    """What an object of the generated code says, as a key."""
    if isinstance(item, np.ndarray):
        return item.dtype.str, sha256(item.data).digest()
    if isinstance(item, list):
        return tuple(_freeze(part) for part in item)
    if isinstance(item, _Shared):
        return _freeze(item.item)
    return (type(item), *map(_freeze, vars(item).values())) if hasattr(item, "__dict__") else item


def write_model(model: Model, alignment: int = 16) -> bytes:
    """Write the file's bytes.

    What is equal is there once, buffers that nothing refers to are not; alignment: of buffers and custom options in the
    file, in bytes. The model is spent.
    """
    kept, places = [schema.BufferT()], {0: 0, b"": 0}  # number 0 is the empty one; old number, or content -> new number
    for holder in [*(t for graph in model.subgraphs for t in graph.tensors), *(model.metadata or [])]:
        if holder.buffer not in places:
            # anything but an array of bytes is packed byte by byte, in Python
            content = np.frombuffer(model.buffers[holder.buffer].data, np.uint8)
            place = places.setdefault(sha256(content.data).digest(), len(kept))
            if place == len(kept):
                kept.append(schema.BufferT(content))
            places[holder.buffer] = place
        holder.buffer = places[holder.buffer]
    model.buffers = kept
    names: dict[tuple[int, int], bytes] = {}  # of constants, so that signatures can share them
    for graph in model.subgraphs:
        seen: Counter[int] = Counter()
        for tensor in graph.tensors:
            tensor.shape = np.array(find_shape(tensor), np.int32)
            if tensor.buffer:
                tensor.name = names.setdefault((tensor.buffer, seen[tensor.buffer]), tensor.name)
                seen[tensor.buffer] += 1
            tensor.quantization = _Shared(tensor.quantization) if _is_quantized(tensor) else None
        for op in graph.operators:
            op.builtinOptions = None if op.builtinOptions is None else _Shared(op.builtinOptions)
        graph.tensors = [_Shared(tensor) for tensor in graph.tensors]
        graph.operators = [_Shared(op) for op in graph.operators]
    builder = _Builder(alignment)
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def _is_quantized(tensor: Any) -> bool:
    scheme = tensor.quantization
    return scheme is not None and (scheme.scale is not None or scheme.details is not None)


def add_buffer(model: Model, content: bytes) -> int:
    """Add a buffer with that content; return its number."""
    model.buffers.append(schema.BufferT(np.frombuffer(content, np.uint8)))
    return len(model.buffers) - 1


def store_strings(model: Model, strings: Mapping[str, str]) -> None:
    """Keep strings in Model.metadata, in UTF-8, under KEY + their names.

    Runtimes pass over names they do not know.
    """
    entries = list(model.metadata or [])
    for name, text in strings.items():
        entry = schema.MetadataT()
        entry.name, entry.buffer = (KEY + name).encode(), add_buffer(model, text.encode())
        entries.append(entry)
    model.metadata = entries


def find_tensor_data(model: Model, tensor: Any) -> Any:
    """Find the bytes of a constant tensor, None of a computed one."""
    return model.buffers[tensor.buffer].data


def read_floats(model: Model, tensor: Any) -> Array | None:
    """Read a constant float32 tensor in its shape.

    None if it is computed or of another type.
    """
    content = find_tensor_data(model, tensor)
    if content is None or tensor.type != schema.TensorType.FLOAT32:
        return None
    return np.frombuffer(content, np.float32).reshape(find_shape(tensor))


def find_shape(tensor: Any) -> tuple[int, ...]:
    """Read a tensor's shape in elements; () of a scalar."""
    return () if tensor.shape is None else tuple(map(int, tensor.shape))


def name_op(code: Any) -> str:
    """Name the op of an operator code: 'FULLY_CONNECTED' and so on."""
    return OP_NAMES[int(flatbuffer_utils.get_builtin_code_from_operator_code(code))]


def list_ops(model: Model, number: int = 0) -> list[Op]:
    """List the ops of a subgraph, in the order of their run."""
    tensors, ops = model.subgraphs[number].tensors, []
    for op in model.subgraphs[number].operators:
        name = name_op(model.operatorCodes[op.opcodeIndex])
        inputs, outputs = tuple(map(int, op.inputs)), tuple(map(int, op.outputs))
        given = [tensors[i] for i in inputs if i >= 0]
        weight = read_floats(model, given[1]) if len(given) > 1 else None
        types = frozenset(TYPE_NAMES[t.type] for t in [*given, *(tensors[o] for o in outputs)])
        first = tensors[outputs[0]]
        macs = _count_macs(name, [find_shape(t) for t in given], find_shape(first))
        ops.append(Op(name, inputs, outputs, first.name.decode(), types, macs, weight))
    return ops


def write_batch_products(data: bytes) -> bytes:
    """Make a BATCH_MATMUL of each FULLY_CONNECTED whose weight is computed.

    The converter takes a product of attention for one where a single head, or one that all queries share, leaves a
    matrix; XNNPACK takes constant weights alone. Names of tensors stay, by which the quantiser knows them.
    """
    model, found = read_model(data), False
    for graph in model.subgraphs:
        for op in graph.operators:
            if name_op(model.operatorCodes[op.opcodeIndex]) != "FULLY_CONNECTED":
                continue
            source, weight, *bias = (None if i < 0 else graph.tensors[i] for i in op.inputs)
            options = op.builtinOptions
            flattens = not options.keepNumDims and len(find_shape(source)) > 2
            if any(bias) or options.fusedActivationFunction or flattens or find_tensor_data(model, weight) is not None:
                continue
            op.opcodeIndex, op.inputs = find_code(model, "BATCH_MATMUL", version=2), op.inputs[:2]
            op.builtinOptionsType = schema.BuiltinOptions.BatchMatMulOptions
            op.builtinOptions = schema.BatchMatMulOptionsT()
            op.builtinOptions.adjY = True
            found = True
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model)) if found else data


def find_code(model: Model, name: str, version: int) -> int:
    """Find the number of an op's operator code, or add one.

    version: the least it is to have.
    """
    for number, code in enumerate(model.operatorCodes):
        if name_op(code) == name:
            code.version = max(code.version, version)
            return number
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, name)
    code.deprecatedBuiltinCode = min(code.builtinCode, LAST_BYTE)
    code.version = version
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _count_macs(name: str, inputs: list[tuple[int, ...]], output: tuple[int, ...]) -> int:
    """Multiply-accumulates of one op. Weights are [O, I] in FULLY_CONNECTED, [O, h, w, I] in CONV_2D, [1, h, w, O] in
    DEPTHWISE_CONV_2D."""
    if name == "BATCH_MATMUL":
        return prod(inputs[0]) * output[-1]
    if name == "DEPTHWISE_CONV_2D":
        return prod(output) * prod(inputs[1][1:3])
    return prod(output) * prod(inputs[1][1:]) if name in ("FULLY_CONNECTED", "CONV_2D") else 0
