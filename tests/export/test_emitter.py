"""Programs against PyTorch, by an interpreter in numpy, and what the format asks of every program."""

from collections.abc import Iterator
from dataclasses import astuple, fields, replace
from functools import cache

import numpy as np
import pytest
import torch

from bigvit_edge.artifact import Array
from bigvit_edge.errors import UserError
from bigvit_edge.export.assembler import Assembler, Place, Rows, Table
from bigvit_edge.export.assignment import list_linears
from bigvit_edge.export.convert import capture
from bigvit_edge.export.emitter import emit_program
from bigvit_edge.export.graph import Graph
from bigvit_edge.export.program import (
    Attention,
    Buffer,
    BufferType,
    Entry,
    Linear,
    Mlp,
    Op,
    Program,
    Route,
    WeightType,
    from_bytes,
    to_bytes,
)
from bigvit_edge.models.blvit import BLViT, set_dispatch
from bigvit_edge.models.load import set_keep
from bigvit_edge.models.vit import ViT
from bigvit_edge.models.zoo import Card, count_macs, count_selected
from tests.export.program_interpreter import interpret

SHAPE = dict(image_size=32, patch=8, dim=32, depth=3, head_dim=16, num_classes=5)
CARD = Card("small", 32, 16, depth=3, head_dim=16, little_head_dim=8, patch=8, image_size=32, num_classes=5)
KEEPS = (0.3, 1.0, 0.06, 0.5)  # 0.06: CLS and one other of 17 tokens
FLOAT = ("router", "little", "down")


def build(little: bool = True, **shape: int) -> ViT | BLViT:
    torch.manual_seed(0)
    sizes = {**SHAPE, **shape}
    model = BLViT(**sizes, little_dim=16, little_head_dim=8) if little else ViT(**sizes)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3)
    return model.eval()


def draw_images(count: int) -> Array:
    return np.random.default_rng(0).standard_normal((count, 1, 3, 32, 32), dtype=np.float32)


@cache
def capture_once(little: bool) -> Graph:
    return capture(build(little), 32, KEEPS[0] if little else None)


def capture_all(model: ViT | BLViT, keeps: tuple[float | None, ...], precision: str = "fp32") -> list[Graph]:
    """Of the captured graph, a program takes the size of the image alone."""
    first = capture_once(isinstance(model, BLViT))
    layers = {layer: "int8" for layer in list_linears(first) if not set(layer.split(".")) & set(FLOAT)}
    chosen = layers if precision == "int8" else {}
    return [replace(first, precision=precision, layers=chosen, keep=keep, module=model) for keep in keeps]


def emit(model: ViT | BLViT, keeps: tuple[float | None, ...] = KEEPS, precision: str = "fp32", kr: int = 4) -> Program:
    return emit_program(capture_all(model, keeps, precision), kr, {})


def differ(program: Program, model: ViT | BLViT, images: Array) -> float:
    """The largest difference of any logit at any keep ratio."""
    largest = 0.0
    for entry in program.entries:
        if entry.keep is not None:
            set_keep(model, entry.keep)
        for image in images:
            with torch.no_grad():
                expected = model(torch.from_numpy(image)).numpy()
            found = interpret(program, entry, image)
            assert found.shape == expected.shape
            largest = max(largest, float(np.abs(found - expected).max()))
    return largest


@pytest.mark.parametrize("little", [True, False])
def test_fp32_says_what_pytorch_says(little: bool) -> None:
    model = build(little)
    program = emit(model, KEEPS if little else (None,))
    assert differ(program, model, draw_images(4)) < 1e-4
    assert differ(from_bytes(to_bytes(program)), model, draw_images(1)) < 1e-4


@pytest.mark.parametrize("little", [True, False])
@pytest.mark.parametrize(("precision", "kr", "limit"), [("fp16", 4, 0.01), ("int8", 4, 0.5), ("int8", 8, 0.5)])
def test_rounded_weights_stay_near(little: bool, precision: str, kr: int, limit: float) -> None:
    model = build(little)
    program = emit(model, (0.5,) if little else (None,), precision, kr)
    assert 1e-5 < differ(program, model, draw_images(2)) < limit  # logits are up to 10 large
    packed = {weight.name: weight.type for weight in program.weights if weight.type >= WeightType.F32}
    kind = {("fp16", 4): WeightType.F16, ("int8", 4): WeightType.QC8X4, ("int8", 8): WeightType.QC8X8}[precision, kr]
    others = {name for name, found in packed.items() if found != kind}
    stays = {"little", *(f"layers.{i}.down" for i in range(3))} if little else set()
    assert others == ({*stays, "embedding.patches"} if precision == "int8" else set())


def test_one_hot_dispatch_is_the_same_program() -> None:
    model = build()
    expected = emit(model)
    set_dispatch(model, "onehot")
    assert emit(model) == expected


def test_entries_come_by_falling_keep_and_share_their_weights() -> None:
    program = emit(build())
    assert [(entry.name, entry.keep) for entry in program.entries] == [
        ("keep_1", 1.0), ("keep_0_5", 0.5), ("keep_0_3", 0.3), ("keep_0_06", 0.06),
    ]  # fmt: skip
    names = [weight.name for weight in program.weights]
    assert len(set(names)) == len(names)
    assert len(emit(build(), (0.5,)).weights) == len(names)


@pytest.mark.parametrize("keep", KEEPS)
def test_macs_are_the_models_but_for_the_last_layers_dead_rows(keep: float) -> None:
    (entry,) = emit(build(), (keep,)).entries
    n, big, little = CARD.tokens, CARD.dim, 16
    k = count_selected(keep, n)
    dead = (k - 1) * (10 * big**2 + 2 * n * big + 2 * little * big) + (n - 1) * (10 * little**2 + 2 * n * little)
    assert entry.macs == count_macs(CARD, keep) - dead


def test_macs_of_a_dense_model() -> None:
    (entry,) = emit(build(little=False), (None,)).entries
    n, c = CARD.tokens, CARD.dim
    assert entry.macs == count_macs(replace(CARD, little_dim=None)) - (n - 1) * (10 * c**2 + 2 * n * c)


def list_reads(op: Op) -> set[int]:
    """Buffers."""
    call = op.call
    names = {
        Linear: ("src", "src_rows", "dst_rows", "gate"),
        Attention: ("qkv",),
        Route: ("src",),
        Mlp: ("data", "rows_list", "gate"),
    }.get(type(call), ())
    found = {getattr(call, name) for name in names}
    if isinstance(call, Linear) and call.accumulate:
        found.add(call.dst)
    return found - {None}


def list_writes(op: Op) -> set[int]:
    names = {Mlp: ("data",), Route: ("selected", "skipped", "gate")}.get(type(op.call), ("dst",))
    return {getattr(op.call, name) for name in names} - {None}


def group_stages(entry: Entry) -> Iterator[list[Op]]:
    for stage in sorted({op.stage for op in entry.ops}):
        yield [op for op in entry.ops if op.stage == stage]


def test_lanes_of_a_stage_are_independent() -> None:
    model, both = build(), 0
    for entry in emit(model).entries:
        assert [op.stage for op in entry.ops] == sorted(op.stage for op in entry.ops)
        for ops in group_stages(entry):
            lanes = [[op for op in ops if op.lane == lane] for lane in (0, 1)]
            both += all(lanes)
            writes = [set[int]().union(*map(list_writes, lane)) for lane in lanes]
            touches = [set[int]().union(*map(list_reads, lane)) | w for lane, w in zip(lanes, writes, strict=True)]
            assert not writes[0] & touches[1]
            assert not writes[1] & touches[0]
    assert both == len(KEEPS) * 3 * 3  # projections, attention and MLP of each layer


def test_arguments_are_in_range() -> None:
    program = emit(build())
    for entry in program.entries:
        for op in entry.ops:
            for field, value in zip(fields(op.call), astuple(op.call), strict=True):
                if field.name in ("src", "dst", "qkv", "data", "image", "selected", "skipped", "src_rows", "dst_rows"):
                    assert value is None or value < len(entry.buffers)
            if isinstance(op.call, Linear):
                weight, dst = program.weights[op.call.linear], entry.buffers[op.call.dst]
                assert op.call.first_column % 16 == 0
                assert op.call.first_column + op.call.columns <= weight.rows
                assert op.call.dst_first_column + op.call.columns <= dst.columns
                assert op.call.dst_first_row + op.call.rows <= dst.rows
    lists = [b for b in program.entries[1].buffers if b.type == BufferType.I32]
    assert lists == [Buffer(BufferType.I32, 1, 9), Buffer(BufferType.I32, 1, 8)]


def refuse(model: torch.nn.Module, message: str, layers: dict[str, str] | None = None, size: int = 32) -> None:
    known = isinstance(model, ViT | BLViT) and size == 32
    graph = capture_once(isinstance(model, BLViT)) if known else capture(model, size)
    graph = replace(graph, precision="int8", layers=layers or {}, module=model)
    with pytest.raises(UserError, match=message):
        emit_program([graph], 4, {})


def test_what_a_program_cannot_say_is_refused() -> None:
    refuse(torch.nn.Conv2d(3, 4, 2), r"torch.*Conv2d for our core; expected a ViT or big.LITTLE ViT of this package")
    model = build()
    refuse(model, r"p.attn.q in int8, .*attn.k in fp32.*expected all in the same", {"layers.0.p.attn.q": "int8"})
    refuse(model, r"layers.0.router in int8; expected routers in float", {"layers.0.router.score": "int8"})
    refuse(build(little=False), r"an image of 36 pixels; expected a multiple of the patch, 8", size=36)
    model.layers[1].arrange = lambda score: score.argsort(1)  # type: ignore[union-attr, operator]
    refuse(model, r"layers.1.router arranges tokens in a way of its own")


def test_outputs_are_split_only_between_panels() -> None:
    table = Table([capture_once(little=False)], 4)
    to = Assembler(table, 32, 5)
    weight = table.add_linear("head", {"head": torch.nn.Linear(32, 40)})
    src, dst = Place(to.add_buffer(3, 32), Rows(3)), Place(to.add_buffer(3, 40), Rows(3))
    to.add_linear("head", weight, src, dst, outputs=slice(32, None))
    assert [op.call.columns for op in to.ops if isinstance(op.call, Linear)] == [8]


def test_widths_need_not_be_whole_panels() -> None:
    model = build(dim=24, head_dim=12)
    program = emit_program([capture(model, 32, 0.5)], 4, {})
    for image in draw_images(2):
        with torch.no_grad():
            expected = model(torch.from_numpy(image)).numpy()
        assert np.abs(interpret(program, program.entries[0], image) - expected).max() < 1e-4
