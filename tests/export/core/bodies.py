"""Small bodies made by hand."""

from typing import Any

import torch
from torch import fx

from bigvit_edge.export.core.ir import Body, Kind, Linear, Op, RowSet, Value, View, Views, Weights, view_of

NODE = fx.Graph().placeholder("x")  # which every op comes from


def make_op(kind: Kind, writes: View | Value, layer: str = "", **reads: View | Value | Views) -> Op:
    """An op with one write; whole values stand for their views."""
    views = {name: read if isinstance(read, tuple) else (to_view(read),) for name, read in reads.items()}
    return Op(kind, views, {"out": to_view(writes)}, NODE, layer)


def make_linear(layer: str, src: View | Value, writes: View | Value, precision: str = "fp32", **options: Any) -> Op:
    src, writes = to_view(src), to_view(writes)
    weights = Weights(layer, torch.zeros(writes.columns, src.columns), None, precision)
    return make_op(Linear((weights,), writes.columns, **options), writes, layer, src=src)


def make_body(output: View | Value, *ops: Op) -> Body:
    return Body([Value(24, 8, name="image")], list(ops), [(to_view(output),)])


def to_view(of: View | Value) -> View:
    return view_of(of) if isinstance(of, Value) else of


def take_rows(value: Value, first: int, count: int, rows: Value | None = None) -> View:
    return View(value, RowSet(count, first, rows), 0, value.columns)
