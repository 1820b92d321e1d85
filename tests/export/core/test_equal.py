"""Programs read from graphs against those that were written by hand from our two models, op by op."""

from dataclasses import asdict, replace
from typing import Any

import pytest

from bigvit_edge.export.core.lowering import lower_graphs
from bigvit_edge.export.program import Attention, Entry, Program
from bigvit_edge.models.blvit import BLViT
from bigvit_edge.models.vit import ViT
from tests.export.test_emitter import KEEPS, build, capture_all, emit, read

WEIGHTS = ("linear", "gain", "offset", "weight", "bias", "fc1", "fc2", "matrix")


def describe(program: Program) -> list[Any]:
    """All that it says, with weights by name: their order is that of their first use here, and was another.

    An attention's result is as many rows as it has queries here, and was as many as it has keys.
    """
    entries = []
    for entry in program.entries:
        ops = [
            (type(op.call), op.name, op.stage, op.lane, name_weights(asdict(op.call), program)) for op in entry.ops
        ]  # fmt: skip
        entries.append((entry.name, entry.keep, entry.ports, entry.macs, shapes(entry), ops))
    weights = {weight.name: weight for weight in program.weights}
    return [program.precision, weights, entries]


def name_weights(call: dict[str, Any], program: Program) -> dict[str, Any]:
    return {k: program.weights[v].name if k in WEIGHTS and v is not None else v for k, v in call.items()}


def shapes(entry: Entry) -> list[Any]:
    mixed = {op.call.dst for op in entry.ops if isinstance(op.call, Attention)}
    return [replace(buffer, rows=0) if i in mixed else buffer for i, buffer in enumerate(entry.buffers)]


def compare(model: ViT | BLViT, keeps: tuple[float | None, ...], precision: str = "fp32", kr: int = 4) -> None:
    expected = emit(model, keeps, precision, kr)
    found = lower_graphs([read(graph) for graph in capture_all(model, keeps, precision)], kr, {})
    assert describe(found) == describe(expected)


@pytest.mark.parametrize("little", [True, False])
@pytest.mark.parametrize(("precision", "kr"), [("fp32", 4), ("fp16", 4), ("int8", 4), ("int8", 8)])
def test_programs_are_equal(little: bool, precision: str, kr: int) -> None:
    compare(build(little), KEEPS if little else (None,), precision, kr)


def test_widths_that_are_no_whole_panels() -> None:
    compare(build(dim=48, head_dim=12), (0.5,))
