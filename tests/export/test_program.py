"""The .bve file: what is written is what runtime/core.h describes, and is read back whole."""

import re
import struct
from dataclasses import fields, replace
from pathlib import Path
from zlib import crc32

import pytest

from bigvit_edge.export import program
from bigvit_edge.export.program import (
    KINDS,
    Attention,
    Before,
    Buffer,
    BufferType,
    Entry,
    Fill,
    Linear,
    List,
    Mlp,
    Op,
    Patches,
    Program,
    Route,
    Type,
    Weight,
    WeightType,
    from_bytes,
    to_bytes,
)

ROOT = Path(__file__).parents[2]
CORE, KERNELS = ((ROOT / name).read_text() for name in ("runtime/core.h", "kernels_arm/kernels.h"))
CALLS = (
    Patches(0, 2, 8),
    List(3, 7),
    Fill(1, 2),
    Linear(2, 3, 5, Before.LAYERNORM, 0, 0, 2, 16, 32, 2, 1, 16, None, 4, 1),
    Linear(2, None, 5, Before.AS_IS, None, None, 2, 0, 16, 2, 0, 0, 3, None, 0),
    Attention(2, 5, 3, 4, Type.QD8),
    Route(2, 0, 0, 0, 1, 3, 3, None, 4),
    Mlp(2, None, 5, 0, 0, 2, 2, 4),
)
PROGRAM = Program(
    "int8",
    (
        Weight("norm.gain", WeightType.VECTOR, 1, 3, struct.pack("<3f", 1, 2, 3)),
        Weight("position", WeightType.MATRIX, 2, 1, struct.pack("<2f", 4, 5)),
        Weight("head", WeightType.QC8X4, 32, 5, bytes(range(256)) * 2),
    ),
    (
        Entry(
            "keep_0_5", 0.5, 16, 10, 2**40, (Buffer(BufferType.F32, 48, 16), Buffer(BufferType.I32, 1, 7)),
            tuple(Op(call, f"layers.{i}.ö", i // 2, i % 2) for i, call in enumerate(CALLS)),
        ),
        Entry("keep_0_1", 0.1, 16, 10, 5, (Buffer(BufferType.F32, 48, 16),), (Op(CALLS[0], "layers.0.ö", 0, 0),)),
    ),
    {"model": "a \"model\"", "labels": "null"},
)  # fmt: skip


def test_a_program_is_read_back_whole() -> None:
    assert from_bytes(to_bytes(PROGRAM)) == PROGRAM
    dense = replace(PROGRAM, entries=(replace(PROGRAM.entries[0], name="main", keep=None),))
    assert from_bytes(to_bytes(dense)) == dense


def test_equal_programs_are_equal_files() -> None:
    assert to_bytes(PROGRAM) == to_bytes(from_bytes(to_bytes(PROGRAM)))


def test_where_things_lie_in_the_file() -> None:
    data = to_bytes(PROGRAM)
    magic, version, size, start, checksum, precision = struct.unpack_from("<4sIQQII", data)
    assert (magic, version, size, precision) == (b"BVE1", 1, len(data), 2)
    assert start % 4096 == 0
    assert checksum == crc32(data[:24] + bytes(4) + data[28:start])
    tables = [struct.unpack_from("<QII", data, 32 + 16 * i) for i in range(6)]
    assert [count for _, count, _ in tables][1:5] == [3, 2, 3, 9]
    ends = [offset + count * size for (offset, count, _), size in zip(tables, (1, 40, 48, 16, 80, 1), strict=True)]
    assert tables[0][0] == 128
    for end, (offset, _, _) in zip(ends, tables[1:], strict=False):
        assert 0 <= offset - end < 8
        assert offset % 8 == 0
    assert data[ends[5] : start].count(0) == start - ends[5] < 4096
    name, count, kind, rows, columns, checksum, offset, size = struct.unpack_from("<6I2Q", data, tables[1][0] + 2 * 40)
    assert data[128 + name : 128 + name + count] == b"head"
    assert (kind, rows, columns, offset) == (4, 32, 5, 128)
    assert data[start + offset :] == PROGRAM.weights[2].data
    assert (size, checksum) == (512, crc32(PROGRAM.weights[2].data))
    second = struct.unpack_from("<2If7IQ", data, tables[2][0] + 48)
    assert second[2] == pytest.approx(0.1)
    assert second[3:] == (2, 1, 8, 1, 16, 10, 0, 5)
    linear = struct.unpack_from("<IHBBII16I", data, tables[4][0] + 3 * 80)
    assert linear[:4] == (3, 1, 1, 0)
    assert linear[6:] == (2, 3, 5, 1, 0, 0, 2, 16, 32, 2, 1, 16, 0xFFFFFFFF, 4, 1, 0)


def test_records_are_as_large_as_in_core_h() -> None:
    sizes = {name: int(count) for name, count in re.findall(r"static_assert\(sizeof\((\w+)\) == (\d+)\)", CORE)}
    ours = {name: getattr(program, name.upper()).size for name in ("Weight", "Entry", "Buffer", "Op")}
    assert sizes == {"Header": program.HEADER_BYTES, **ours}


def read_enum(text: str, name: str) -> list[str]:
    """The enumerators in order, 'kQc8x4' as 'QC8X4'."""
    match = re.search(rf"enum (?:class )?{name} : \w+ {{(.*?)}};", text, re.DOTALL)
    assert match
    body = re.sub(r"//.*", "", match[1])
    return [re.sub(r"^(bve_|k)", "", word.split("=")[0].strip()).upper() for word in body.split(",") if word.strip()]


def test_words_have_the_numbers_of_the_headers() -> None:
    assert read_enum(CORE, "WeightType") == [word.name for word in WeightType]
    assert read_enum(CORE, "BufferType") == [word.name for word in BufferType]
    assert read_enum(CORE, "OpKind") == [kind.__name__.upper() for kind in KINDS]
    assert read_enum(KERNELS, "bve_before") == [word.name for word in Before]
    assert read_enum(KERNELS, "bve_type") == [word.name for word in Type]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_arguments_come_as_core_h_lists_them(kind: type) -> None:
    match = re.search(rf"((?:  //.*\n)+)  k{kind.__name__} = ", CORE)
    assert match
    words = re.findall(r"(?:^|[,.] )([bwn])(\??) (\w+)", re.sub(r"\s*//\s*", " ", match[1]).strip())
    ours = [(field.name.removesuffix("_list"), "None" in str(field.type)) for field in fields(kind)]
    assert [(name, mark == "?") for _, mark, name in words] == ours


@pytest.mark.parametrize(
    ("at", "message"),
    [
        (0, "version 1 of"),
        (4, "expected b'BVE1' 1"),
        (8, "expected b'BVE1' 1"),
        (24, "checksum"),
        (28, "checksum"),
        (130, "checksum"),
        (-1, r"checksum of head at \d+"),
    ],
)
def test_a_damaged_file_is_refused(at: int, message: str) -> None:
    data = bytearray(to_bytes(PROGRAM))
    data[at] ^= 4
    with pytest.raises(ValueError, match=message):
        from_bytes(bytes(data))


@pytest.mark.parametrize("count", [0, 127, 128, 5000])
def test_a_file_cut_short_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        from_bytes(to_bytes(PROGRAM)[:-1][:count])


@pytest.mark.parametrize(("rows", "columns"), [(0, 1), (1, 65537)])
def test_sizes_that_a_record_cannot_hold_are_refused(rows: int, columns: int) -> None:
    entry = replace(PROGRAM.entries[0], buffers=(Buffer(BufferType.F32, rows, columns),))
    with pytest.raises(ValueError, match=f"a buffer of keep_0_5 is .{rows}, {columns}.; expected sides from 1"):
        to_bytes(replace(PROGRAM, entries=(entry,)))
