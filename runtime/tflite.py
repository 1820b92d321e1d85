"""What a .tflite says of itself, read without a framework: signatures, strings, whether it holds ops of ours.

A .tflite is a FlatBuffer of LiteRT's schema.fbs. The bytes must be one that a runtime has taken: of others,
struct.error, IndexError or UnicodeDecodeError.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

KEY = "bigvit_edge."  # before the name of each string that we keep in Model.metadata
CUSTOM_OP = b"libbve_litert"  # what our delegate takes (runtime/doors/litert.cc); runtimes without it print the name

# Fields of schema.fbs, by their numbers, which never change: old files could not be read
OPERATOR_CODES, SUBGRAPHS, BUFFERS, METADATA, SIGNATURES = 1, 2, 4, 6, 7  # of Model
CUSTOM_CODE = 1  # of OperatorCode
SIGNATURE_OUTPUTS, SIGNATURE_KEY, SUBGRAPH_INDEX = 1, 2, 4  # of SignatureDef
TENSOR_INDEX = 1  # of TensorMap
OLD_CODE, CODE = 0, 3  # of OperatorCode: a byte, and what holds more than 127
TENSORS, GRAPH_OUTPUTS, OPERATORS = 0, 2, 3  # of SubGraph
OPCODE, INPUTS, OUTPUTS = 0, 1, 2  # of Operator
SHAPE, TYPE, TENSOR_NAME = 0, 1, 3  # of Tensor
BITS = {0: 32, 1: 16, 2: 32, 3: 8, 4: 64, 6: 8, 7: 16, 9: 8, 10: 64, 15: 32, 17: 4}  # of an element, by TensorType
SOFTMAX, FLOAT = 25, 0  # of BuiltinOperator, of TensorType
NAME, BUFFER = 0, 1  # of Metadata
DATA = 0  # of Buffer


@dataclass(frozen=True)
class Table:
    """A table of a FlatBuffer.

    Its bytes, and where it starts in them.
    """

    data: bytes | bytearray
    start: int

    def find(self, field: int) -> int:
        """Find where a field's value is; 0 if it is left out."""
        layout = self.start - self._read("<i", self.start)
        slot = 4 + 2 * field
        offset = self._read("<H", layout + slot) if slot < self._read("<H", layout) else 0
        return self.start + offset if offset else 0

    def find_vector(self, field: int) -> int:
        """Find where a vector begins; 0 if it is left out.

        The number of elements stands in the four bytes before.
        """
        place = self.find(field)
        return place + self._read("<I", place) + 4 if place else 0

    def read_number(self, field: int) -> int:
        """Read a number of 32 bits; 0 if it is left out."""
        place = self.find(field)
        return self._read("<I", place) if place else 0

    def read_byte(self, field: int) -> int:
        """Read a number of 8 bits; 0 if it is left out."""
        place = self.find(field)
        return self.data[place] if place else 0

    def read_numbers(self, field: int) -> tuple[int, ...]:
        """Read a vector of numbers of 32 bits; empty if left out."""
        start = self.find_vector(field)
        return struct.unpack_from(f"<{self._read('<I', start - 4)}i", self.data, start) if start else ()

    def read_bytes(self, field: int) -> bytes:
        """Read a text or bytes; empty if left out."""
        start = self.find_vector(field)
        return bytes(self.data[start : start + self._read("<I", start - 4)]) if start else b""

    def list_tables(self, field: int) -> Iterator["Table"]:
        """List the tables of a vector; none if it is left out."""
        start = self.find_vector(field)
        for place in range(start, start + 4 * self._read("<I", start - 4) if start else start, 4):
            yield Table(self.data, place + self._read("<I", place))

    def _read(self, layout: str, place: int) -> int:
        (number,) = struct.unpack_from(layout, self.data, place)
        return int(number)


def read_root(data: bytes | bytearray) -> Table:
    """Read where the Model is."""
    return Table(data, struct.unpack_from("<I", data)[0])


@dataclass(frozen=True)
class Tensor:
    """A tensor of a subgraph.

    bytes: of its elements, 0 where it is of a type with none, as a text.
    """

    name: str
    shape: tuple[int, ...]
    bytes: int


@dataclass(frozen=True)
class Node:
    """An op of a subgraph.

    code: LiteRT's number of it, as BuiltinOperator has them; 32 is a custom one.
    """

    code: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def list_nodes(data: bytes, subgraph: int) -> list[Node]:
    """List the ops of a subgraph, in order.

    An input that is left out is not there.
    """
    root = read_root(data)
    codes = [max(code.read_byte(OLD_CODE), code.read_number(CODE)) for code in root.list_tables(OPERATOR_CODES)]
    graph = list(root.list_tables(SUBGRAPHS))[subgraph]
    tensors = [_read_tensor(tensor) for tensor in graph.list_tables(TENSORS)]

    def find(node: Table, field: int) -> tuple[Tensor, ...]:
        return tuple(tensors[number] for number in node.read_numbers(field) if number >= 0)

    return [
        Node(codes[node.read_number(OPCODE)], find(node, INPUTS), find(node, OUTPUTS))
        for node in graph.list_tables(OPERATORS)
    ]


def _read_tensor(tensor: Table) -> Tensor:
    shape = tensor.read_numbers(SHAPE)
    bits = BITS.get(tensor.read_byte(TYPE), 0)
    return Tensor(tensor.read_bytes(TENSOR_NAME).decode(), shape, prod(shape) * bits // 8)


def list_methods(data: bytes) -> dict[str, int]:
    """List each signature's name and its subgraph's number, in order.

    The order is the file's.
    """
    signatures = read_root(data).list_tables(SIGNATURES)
    return {each.read_bytes(SIGNATURE_KEY).decode(): each.read_number(SUBGRAPH_INDEX) for each in signatures}


def read_strings(data: bytes) -> dict[str, str]:
    """Read the strings that an export kept in the file."""
    model = read_root(data)
    buffers = list(model.list_tables(BUFFERS))
    own = {entry.read_bytes(NAME).decode(): buffers[entry.read_number(BUFFER)] for entry in model.list_tables(METADATA)}
    return {
        name.removeprefix(KEY): text.decode()
        for name, buffer in own.items()
        if name.startswith(KEY) and (text := buffer.read_bytes(DATA))
    }


def holds_program(data: bytes) -> bool:
    """Tell whether the file has an op of ours."""
    return CUSTOM_OP in list_custom_ops(data)


def list_custom_ops(data: bytes) -> list[bytes]:
    """List the names of ops that are none of LiteRT's own."""
    codes = read_root(data).list_tables(OPERATOR_CODES)
    return [name for code in codes if (name := code.read_bytes(CUSTOM_CODE))]


def select_method(data: bytes, method: str) -> bytes:
    """Edit the file as if it had that signature alone.

    The others' bytes stay, unreached.

    XNNPACK packs a copy of the weights of every subgraph when the first tensor is allocated, whichever signature is
    run: 275 MB for four of 68 MB together, 79 MB for one. Edited in place, because reading and writing it as objects
    takes seconds.
    """
    methods, copy = list_methods(data), bytearray(data)
    model = read_root(copy)
    number = list(methods).index(method)
    if place := list(model.list_tables(SIGNATURES))[number].find(SUBGRAPH_INDEX):  # left out of the file where it is 0
        struct.pack_into("<I", copy, place, 0)
    _keep_one(model, copy, SUBGRAPHS, methods[method])
    _keep_one(model, copy, SIGNATURES, number)
    return bytes(copy)


def answer_logits(data: bytes) -> bytes | None:
    """Edit a file to answer with what its softmax is given.

    It has one signature. None where it does not end with a softmax of float32.
    """
    copy = bytearray(data)
    model = read_root(copy)
    (graph,), (signature,) = model.list_tables(SUBGRAPHS), model.list_tables(SIGNATURES)
    codes = [max(code.read_byte(OLD_CODE), code.read_number(CODE)) for code in model.list_tables(OPERATOR_CODES)]
    last, place = list(graph.list_tables(OPERATORS))[-1], graph.find_vector(GRAPH_OUTPUTS)
    (logits, *_), answers = last.read_numbers(INPUTS), last.read_numbers(OUTPUTS)
    type_ = list(graph.list_tables(TENSORS))[logits].read_byte(TYPE)
    if codes[last.read_number(OPCODE)] != SOFTMAX or type_ != FLOAT or answers != graph.read_numbers(GRAPH_OUTPUTS):
        return None
    struct.pack_into("<i", copy, place, logits)
    for output in signature.list_tables(SIGNATURE_OUTPUTS):
        struct.pack_into("<i", copy, output.find(TENSOR_INDEX), logits)
    return bytes(copy)


def _keep_one(model: Table, data: bytearray, field: int, number: int) -> None:
    """Make a vector of tables hold one of its elements only. An element is an offset from where it stands itself."""
    start = model.find_vector(field)
    (offset,) = struct.unpack_from("<I", data, start + 4 * number)
    struct.pack_into("<I", data, start, offset + 4 * number)
    struct.pack_into("<I", data, start - 4, 1)
