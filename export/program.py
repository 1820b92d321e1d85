"""Our lowered form of a model, and its file, .bve, as the first comment of runtime/core.h lays it out.

A program has one table of weights and an entry for each keep ratio. An entry is a list of ops over numbered buffers:
buffer 0 is the image [3 * size, size], buffer 1 the logits [1, classes]. The fields of an op are its arguments in the
file's order; fields ending in _rows are row lists, and numbers of buffers or weights may be None where core.h marks
them so.
"""

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from enum import IntEnum
from zlib import crc32

MAGIC = b"BVE1"
VERSION = 1
NONE = 0xFFFFFFFF
PAGE = 4096  # the weights start on a multiple of it
MAX_DIM = 1 << 16
PRECISIONS = ("fp32", "fp16", "int8")

HEADER = struct.Struct("<4sIQQII")
TABLE = struct.Struct("<QII")
WEIGHT = struct.Struct("<IIIIIIQQ")
ENTRY = struct.Struct("<IIfIIIIIIIQ")
BUFFER = struct.Struct("<IIII")
OP = struct.Struct("<IHBBII16I")
HEADER_BYTES = HEADER.size + 6 * TABLE.size


class WeightType(IntEnum):
    """How a weight lies in the file.

    VECTOR float [columns]; MATRIX float [rows, columns]; the others are Linears packed in panels, rows = outputs.
    """

    VECTOR, MATRIX, F32, F16, QC8X4, QC8X8 = range(6)


class BufferType(IntEnum):
    F32, I32 = range(2)


class Before(IntEnum):
    """The step on a Linear's input, on its way in."""

    AS_IS, LAYERNORM, GELU = range(3)


class Type(IntEnum):
    """The type that an attention computes in."""

    F32, F16, QD8 = range(3)


@dataclass(frozen=True)
class Weight:
    """A tensor as the file has it."""

    name: str
    type: WeightType
    rows: int
    columns: int
    data: bytes


@dataclass(frozen=True)
class Buffer:
    type: BufferType
    rows: int
    columns: int


@dataclass(frozen=True)
class Patches:
    image: int
    dst: int
    patch: int


@dataclass(frozen=True)
class List:
    dst: int
    value: int


@dataclass(frozen=True)
class Fill:
    matrix: int
    dst: int


@dataclass(frozen=True)
class Linear:
    src: int
    src_rows: int | None
    rows: int
    before: int
    gain: int | None
    offset: int | None
    linear: int
    first_column: int
    columns: int
    dst: int
    dst_first_row: int
    dst_first_column: int
    dst_rows: int | None
    gate: int | None
    accumulate: int


@dataclass(frozen=True)
class Attention:
    qkv: int
    queries: int
    heads: int
    dst: int
    type: int


@dataclass(frozen=True)
class Route:
    src: int
    gain: int
    offset: int
    weight: int
    bias: int
    k: int
    selected: int
    skipped: int | None
    gate: int


@dataclass(frozen=True)
class Mlp:
    data: int
    rows_list: int | None
    rows: int
    gain: int
    offset: int
    fc1: int
    fc2: int
    gate: int | None


Call = Patches | List | Fill | Linear | Attention | Route | Mlp
KINDS: tuple[type[Call], ...] = (Patches, List, Fill, Linear, Attention, Route, Mlp)  # by their number in the file


@dataclass(frozen=True)
class Op:
    """A call with its place.

    `stage` never falls; within one, lane 0 (big) and 1 (LITTLE) do not touch what the other writes.
    """

    call: Call
    name: str
    stage: int
    lane: int


@dataclass(frozen=True)
class Entry:
    """One entry of a program, of one keep ratio.

    keep: None if the model has no keep ratio; macs: multiply-accumulates that the ops carry out.
    """

    name: str
    keep: float | None
    image_size: int
    classes: int
    macs: int
    buffers: tuple[Buffer, ...]
    ops: tuple[Op, ...]


@dataclass(frozen=True)
class Program:
    """The content of a .bve file.

    precision: what most of the arithmetic is in, one of PRECISIONS.
    """

    precision: str
    weights: tuple[Weight, ...]
    entries: tuple[Entry, ...]
    metadata: Mapping[str, str]


def to_bytes(program: Program) -> bytes:
    """Write a program as a file's bytes.

    ValueError on a size that the format cannot hold.
    """
    check_sizes(program)
    strings = _Strings()
    weights, data = [], bytearray()
    for w in program.weights:
        data += bytes(-len(data) % 64)
        weights.append(
            WEIGHT.pack(*strings.add(w.name), w.type, w.rows, w.columns, crc32(w.data), len(data), len(w.data))
        )
        data += w.data
    entries: list[bytes] = []
    buffers: list[bytes] = []
    ops: list[bytes] = []
    for e in program.entries:
        spans = len(buffers), len(e.buffers), len(ops), len(e.ops)
        sizes = e.image_size, e.classes, 0, e.macs
        entries.append(ENTRY.pack(*strings.add(e.name), e.keep or 0, *spans, *sizes))
        buffers += [BUFFER.pack(b.type, b.rows, b.columns, 0) for b in e.buffers]
        ops += [_pack_op(op, *strings.add(op.name)) for op in e.ops]
    metadata = json.dumps(dict(program.metadata)).encode()
    sections: list[tuple[bytes, int]] = [(bytes(strings.data), len(strings.data))]
    sections += [(b"".join(table), len(table)) for table in (weights, entries, buffers, ops)]
    sections.append((metadata, len(metadata)))
    tables, body = b"", bytearray()
    for section, count in sections:
        body += bytes(-len(body) % 8)
        tables += TABLE.pack(HEADER_BYTES + len(body), count, 0)
        body += section
    body += bytes(-(HEADER_BYTES + len(body)) % PAGE)
    start = HEADER_BYTES + len(body)
    rest = tables + bytes(body)
    fields = MAGIC, VERSION, start + len(data), start
    precision = PRECISIONS.index(program.precision)
    checksum = crc32(HEADER.pack(*fields, 0, precision) + rest)
    return HEADER.pack(*fields, checksum, precision) + rest + bytes(data)


def from_bytes(data: bytes) -> Program:
    """Read the program in a file's bytes.

    ValueError if they are none, damaged, or of another version.
    """
    if len(data) < HEADER_BYTES:
        raise ValueError(f"{len(data)} bytes; expected a header of {HEADER_BYTES}")
    magic, version, size, start, checksum, precision = HEADER.unpack_from(data)
    if (magic, version, size) != (MAGIC, VERSION, len(data)):
        raise ValueError(f"{magic!r} version {version} of {size} bytes in {len(data)}; expected {MAGIC!r} {VERSION}")
    if crc32(HEADER.pack(magic, version, size, start, 0, precision) + data[HEADER.size : start]) != checksum:
        raise ValueError("the tables' checksum is wrong; expected a file as exported")
    strings, weights, entries, buffers, ops, metadata = TABLE.iter_unpack(data[HEADER.size : HEADER_BYTES])

    def text(offset: int, count: int) -> str:
        return data[strings[0] + offset : strings[0] + offset + count].decode()

    def take(name: str, offset: int, count: int, checksum: int) -> bytes:
        taken = data[start + offset : start + offset + count]
        if crc32(taken) != checksum:
            raise ValueError(f"the checksum of {name} at {start + offset} is wrong; expected a file as exported")
        return taken

    all_buffers = [Buffer(BufferType(kind), *shape) for kind, *shape, _ in _unpack(BUFFER, data, buffers)]
    all_ops = [
        Op(_read_call(kind, args), text(offset, count), stage, lane)
        for kind, stage, lane, _, offset, count, *args in _unpack(OP, data, ops)
    ]
    return Program(
        PRECISIONS[precision],
        tuple(
            Weight(text(*name), WeightType(kind), rows, columns, take(text(*name), offset, count, checksum))
            for *name, kind, rows, columns, checksum, offset, count in _unpack(WEIGHT, data, weights)
        ),
        tuple(
            Entry(text(*name), _read_keep(keep), size, classes, macs, tuple(all_buffers[b : b + b_count]),
                  tuple(all_ops[op : op + op_count]))
            for *name, keep, b, b_count, op, op_count, size, classes, _, macs in _unpack(ENTRY, data, entries)
        ),
        json.loads(data[metadata[0] : metadata[0] + metadata[1]]),
    )  # fmt: skip


def check_sizes(program: Program) -> None:
    """Check that no dimension is beyond what a record may hold.

    ValueError if one is.
    """
    shapes = [(w.name, w.rows, w.columns) for w in program.weights]
    shapes += [(f"a buffer of {e.name}", b.rows, b.columns) for e in program.entries for b in e.buffers]
    for name, rows, columns in shapes:
        if not (0 < rows <= MAX_DIM and 0 < columns <= MAX_DIM):
            raise ValueError(f"{name} is [{rows}, {columns}]; expected sides from 1 to {MAX_DIM}")


def _pack_op(op: Op, *name: int) -> bytes:
    args = [NONE if value is None else value for value in astuple(op.call)]
    return OP.pack(KINDS.index(type(op.call)), op.stage, op.lane, 0, *name, *args, *[0] * (16 - len(args)))


def _read_call(kind: int, args: Sequence[int]) -> Call:
    call = KINDS[kind]
    return call(*(None if value == NONE else value for value in args[: len(fields(call))]))  # type: ignore[arg-type]


def _read_keep(keep: float) -> float | None:
    return float(f"{keep:.7g}") if keep else None


def _unpack(record: struct.Struct, data: bytes, table: tuple[int, int, int]) -> Iterator[tuple[int, ...]]:
    return record.iter_unpack(data[table[0] : table[0] + table[1] * record.size])


class _Strings:
    """Each text once."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.places: dict[str, tuple[int, int]] = {}

    def add(self, text: str) -> tuple[int, int]:
        """Add a text; return its offset and bytes."""
        if text not in self.places:
            encoded = text.encode()
            self.places[text] = len(self.data), len(encoded)
            self.data += encoded
        return self.places[text]
