"""Rows of constants and rows that are read one below another, written into one value: CLS, positions and patches."""

import torch
from torch import Tensor

from bigvit_edge.export.core.ir import (
    Add,
    Attention,
    Body,
    Fill,
    Linear,
    Op,
    RowSet,
    Value,
    View,
    Views,
    count_rows,
    view_of,
)
from bigvit_edge.export.core.layout import move


def fill_constants(body: Body) -> None:
    """Add to constants in place, in rows that hold them.

    Tokens are, to their positions.
    """
    for add in [op for op in body.ops if isinstance(op.kind, Add)]:
        for name, other in (("src", "other"), ("other", "src")):
            if all(view.value.data is not None for view in add.reads[other]):
                value, row, adds = add.view.value, 0, []
                matrix = read_constant(add.reads[other])
                for view in add.reads[name]:
                    rows = slice(row, row := row + view.rows.count)
                    if view.value.data is not None:
                        matrix[rows] += read_constant((view,))
                        continue
                    place = View(value, RowSet(view.rows.count, rows.start), 0, value.columns)
                    reads: dict[str, Views] = {"src": (place,), "other": (view,)}
                    adds.append(Op(Add(), reads, {"out": place}, add.node, add.layer))
                body.replace(add, make_fill(add, add.reads[other], matrix, view_of(value)), *adds)
                break


def make_fill(like: Op, constants: Views, matrix: Tensor, place: View) -> Op:
    """Make the op that writes a matrix.

    It is named after the largest of the constants in it.
    """
    name = max(constants, key=lambda view: view.rows.count).value.name
    return Op(Fill(name, matrix), {}, {"out": place}, like.node, name)


def read_constant(views: Views) -> Tensor:
    """Read rows of constants [rows, columns]."""
    parts = []
    for view in views:
        rows, column = view.rows, view.first_column
        assert view.value.data is not None
        parts.append(view.value.data[rows.first : rows.first + rows.count, column : column + view.columns])
    return torch.cat(parts).float()


def stack_constants(body: Body) -> None:
    """Write what is read below a constant into one value with it."""
    for views in list_stacks(body):
        if any(view.value.data is not None for view in views):
            stack(body, views)


def stack_rows(body: Body) -> None:
    """Write what is read as rows of one value as such.

    But for attention, whose reads are laid out otherwise.
    """
    for views in list_stacks(body):
        stack(body, views)


def list_stacks(body: Body) -> list[Views]:
    """List what ops read as one of several values' rows."""
    reads = [views for op in body.ops if not isinstance(op.kind, Attention) for views in op.reads.values()]
    return list(dict.fromkeys(views for views in reads if len(views) > 1))


def stack(body: Body, views: Views) -> None:
    """Write values one below another, as they are read.

    Constants are filled in before.
    """
    parts = [view for view in views if view.value.data is None]
    makers = [op for op in body.ops if any(view.overlaps(made) for view in parts for made in op.writes.values())]
    is_free = all(isinstance(op.kind, Linear | Add | Fill) for op in makers)
    if not makers or not is_free or not all(view.is_whole and body.producers_of(view) for view in parts):
        return
    whole = Value(count_rows(views), views[0].columns)
    matrix, row, constants = torch.zeros(whole.rows, whole.columns), 0, list[View]()
    for op in body.ops:
        op.reads = {name: (view_of(whole),) if read == views else read for name, read in op.reads.items()}
    first = body.ops.index(makers[0])
    for view in views:
        rows = RowSet(view.rows.count, row)
        if view not in parts:
            matrix[row : row + rows.count] = read_constant((view,))
            constants.append(view)
        for op in [op for op in makers if isinstance(op.kind, Fill) and op.view == view]:
            assert isinstance(op.kind, Fill)
            matrix[row : row + rows.count] = op.kind.data
            constants.append(View(Value(rows.count, whole.columns, name=op.kind.name), rows, 0, whole.columns))
            body.erase(op)
        if view in parts:
            move(body, view.value, View(whole, rows, 0, whole.columns))
        row += rows.count
    if constants:
        body.ops.insert(first, make_fill(makers[0], tuple(constants), matrix, view_of(whole)))
