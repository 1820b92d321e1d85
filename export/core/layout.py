"""Queries, keys and values side by side in one value, as the kernel of attention wants them."""

from dataclasses import replace
from itertools import takewhile

from bigvit_edge.export.core.ir import (
    Attention,
    Body,
    Linear,
    Op,
    RowSet,
    Value,
    View,
    Views,
    count_rows,
    cut_rows,
    view_of,
)


def lay_out_attention(body: Body) -> None:
    """Lay queries, keys and values side by side, [keys, 3 * width].

    The Linears that make them write them so. Not where anything else reads them, or where they lie so already.
    """
    for op in [op for op in body.ops if isinstance(op.kind, Attention)]:
        parts = [op.reads[name] for name in ("src", "key", "value")]
        makers = [find_linear(body, view) for views in parts for view in views]
        if makers[0] is not None:
            op.layer = name_parent(makers[0].layer)
        keys, width = count_rows(parts[1]), parts[0][0].columns
        together = Value(keys, 3 * width)
        homes = find_homes(parts, together)
        if are_together(parts, together) or not homes or not all(maker and maker.view.is_whole for maker in makers):
            continue
        for value, place in homes.items():
            move(body, value, place)


def find_homes(parts: list[Views], together: Value) -> dict[Value, View]:
    """Find where queries, keys and values belong in a value.

    A value may hold several of them, side by side as they belong there; none if one belongs to two places.
    """
    homes: dict[Value, View] = {}
    for n, views in enumerate(parts):
        column, row = n * together.columns // 3, 0
        for view in views:
            value, first = view.value, RowSet(view.value.rows, row - view.rows.first)
            place = View(together, first, column - view.first_column, value.columns)
            if homes.setdefault(value, place) != place or not is_inside(place):
                return {}
            row += view.rows.count
    places = list(homes.values())
    return {} if any(a.overlaps(b) for i, a in enumerate(places) for b in places[:i]) else homes


def is_inside(view: View) -> bool:
    """Tell whether a view has no row or column outside its value."""
    value, rows, column = view.value, view.rows, view.first_column
    fits = rows.first + rows.count <= value.rows and column + view.columns <= value.columns
    return fits and min(rows.first, column) >= 0


def are_together(parts: list[Views], shape: Value) -> bool:
    """Tell whether queries, keys and values lie side by side.

    They do so in a value of that shape.
    """
    value, width = parts[0][0].value, shape.columns // 3
    rows = [count_rows(parts[0]), shape.rows, shape.rows]
    expected = [(View(value, RowSet(count), n * width, width),) for n, count in enumerate(rows)]
    return (value.rows, value.columns) == (shape.rows, shape.columns) and parts == expected


def find_linear(body: Body, view: View) -> Op | None:
    """Find the one Linear that writes a view, and all of it."""
    producers = body.producers_of(view)
    if len(producers) != 1 or not isinstance(producers[0].kind, Linear):
        return None
    whole = producers[0].view
    return producers[0] if cut_rows((whole,), 0, whole.rows.count) == (whole,) else None


def move(body: Body, value: Value, place: View) -> None:
    """Move a whole value into a part of another.

    Those who write and read it do so there.
    """
    for op in body.ops:
        op.writes = {name: place if view == view_of(value) else view for name, view in op.writes.items()}
    body.redirect(value, (place,))


def merge_linears(body: Body) -> None:
    """Write Linears that write side by side as one.

    They read the same rows: queries, keys and values.
    """
    linears = [op for op in body.ops if isinstance(op.kind, Linear) and not op.kind.accumulates]
    groups: dict[object, list[Op]] = {}
    for op in linears:
        assert isinstance(op.kind, Linear)
        precision = op.kind.weights[0].precision
        key = op.reads["src"], id(op.kind.before), op.view.value, op.view.rows, precision, "gate" in op.reads
        groups.setdefault(key, []).append(op)
    for group in groups.values():
        ordered = sorted(group, key=lambda op: op.view.first_column)
        ends = [op.view.first_column + op.view.columns for op in ordered]
        begins = [op.view.first_column for op in ordered[1:]]
        if len(group) > 1 and ends[:-1] == begins and not any(is_changed(body, group[0], op) for op in group):
            merge(body, group[0], ordered)


def is_changed(body: Body, first: Op, op: Op) -> bool:
    return first is not op and body.is_written_between(op.reads["src"], first, op)


def merge(body: Body, first: Op, ordered: list[Op]) -> None:
    """Put one Linear where the first stands.

    It has all their columns, in order.
    """
    weights = tuple(part for op in ordered if isinstance(op.kind, Linear) for part in op.kind.weights)
    assert isinstance(first.kind, Linear)
    columns = sum(op.view.columns for op in ordered)
    first.kind = replace(first.kind, weights=weights, columns=columns)
    first.writes = {"out": replace(ordered[0].view, columns=columns)}
    first.layer = join_names([part.layer for part in weights])
    for op in ordered:
        if op is not first:
            body.erase(op)


def name_parent(layer: str) -> str:
    """Name the module that a layer is in: 'layers.0.mlp' of 'layers.0.mlp.fc1'."""
    return layer.rpartition(".")[0] or layer


def join_names(layers: list[str]) -> str:
    """Join names but for what they share.

    'attn.qkv' of 'attn.q', 'attn.k' and 'attn.v'.
    """
    if len(layers) == 1:
        return layers[0]
    start = find_start([name_parent(layer) + "." for layer in layers])
    rest = [layer.removeprefix(start) for layer in layers]
    end = find_start([name[::-1] for name in rest])[::-1]
    return start + "".join(name.removesuffix(end) for name in rest) + end


def find_start(texts: list[str]) -> str:
    """Find what all texts begin with."""
    return "".join(some[0] for some in takewhile(lambda some: len(set(some)) == 1, zip(*texts, strict=False)))
