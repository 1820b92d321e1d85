"""Sessions of programs that take and give several arrays by name."""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bigvit_edge.errors import UserError
from bigvit_edge.export.panels import pack_float
from bigvit_edge.export.program import (
    Before,
    Buffer,
    BufferType,
    Entry,
    Linear,
    Op,
    Port,
    Program,
    Rows,
    Weight,
    WeightType,
    from_bytes,
    to_bytes,
)
from bigvit_edge.runtime import Session
from tests.export.program_interpreter import interpret

EPSILON = 0.5
LEFT = np.array([[1, 2, 4, 9], [0, -1, 1, 4]], np.float32)
RIGHT = np.arange(8, dtype=np.float32).reshape(1, 2, 4)


def make_program() -> Program:
    """normed [3, 4]: rows 1, 0 and 0 of left, normalised; copied [8]: right as it is."""
    same, f32 = pack_float(np.eye(4, dtype=np.float32), np.zeros(4, np.float32), np.float32), BufferType.F32
    weights = (
        Weight("same", WeightType.F32, 4, 4, same),
        Weight("rows", WeightType.ROWS, 1, 3, struct.pack("<3i", 1, 0, 0)),
        Weight("gain", WeightType.VECTOR, 1, 4, struct.pack("<4f", 1, 1, 1, 1)),
        Weight("offset", WeightType.VECTOR, 1, 4, bytes(16)),
    )
    ports = (
        Port("left", 0, False, (2, 4)), Port("right", 1, False, (1, 2, 4)),
        Port("copied", 2, True, (8,)), Port("normed", 3, True, (3, 4)),
    )  # fmt: skip
    buffers = (Buffer(f32, 2, 4), Buffer(f32, 2, 4), Buffer(f32, 2, 4), Buffer(f32, 3, 4), Buffer(BufferType.I32, 1, 3))
    normed = Linear(0, 4, 3, Before.LAYERNORM, 2, 3, 0, 0, 4, 3, 0, 0, None, None, 0, EPSILON)
    copied = Linear(1, None, 2, Before.AS_IS, None, None, 0, 0, 4, 2, 0, 0, None, None, 0)
    ops = (Op(Rows(1, 4), "rows", 0, 0), Op(normed, "normed", 0, 0), Op(copied, "copied", 0, 0))
    return Program("fp32", weights, (Entry("main", None, ports, 80, buffers, ops),), {})


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    path = tmp_path / "two.bve"
    path.write_bytes(to_bytes(make_program()))
    with Session(path) as opened:
        yield opened


def test_named_arrays_go_in_and_come_out(session: Session) -> None:
    assert session.inputs == {"left": (2, 4), "right": (1, 2, 4)}
    assert session.outputs == {"copied": (8,), "normed": (3, 4)}
    made = session.run({"right": RIGHT, "left": LEFT})
    assert list(made) == ["copied", "normed"]
    assert np.array_equal(made["copied"], RIGHT.reshape(8))
    rows = LEFT[[1, 0, 0]]
    centred = rows - rows.mean(1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(1, keepdims=True) + EPSILON)
    assert np.allclose(made["normed"], expected, atol=1e-6)
    (entry,) = (program := from_bytes(to_bytes(make_program()))).entries
    assert program == make_program()
    assert np.allclose(interpret(program, entry, LEFT), expected, atol=1e-6)


def test_one_image_may_be_named_too() -> None:
    files = Path(__file__).parent / "files"
    with Session(files / "version1_vit_fp32.bve") as opened, np.load(files / "version1_answers.npz") as answers:
        made = opened.run({"image": answers["image"]})
        assert list(made) == ["logits"]
        assert np.array_equal(made["logits"], opened.run(answers["image"]))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"left": LEFT}, "no right; expected an array for each of left, right"),
        ({"left": LEFT, "rihgt": RIGHT}, "an input 'rihgt'; expected of left, right; .*right"),
        ({"left": LEFT, "right": RIGHT[0]}, r"right of float32 \[2, 4\]; expected .* float32 \[1, 2, 4\]"),
        ({"left": LEFT.astype(np.float64), "right": RIGHT}, r"left of float64 \[2, 4\]"),
        (LEFT, r"one array for main; expected an array for each of left, right; give"),
    ],
)
def test_other_arrays_are_refused(session: Session, arrays: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        session.run(arrays)  # type: ignore[call-overload]
