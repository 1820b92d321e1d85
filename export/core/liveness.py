"""Rows that nothing reads, left out: after the last layer CLS alone is read, and so are its queries."""

from dataclasses import replace
from itertools import chain, groupby

import numpy as np
from numpy.typing import NDArray

from bigvit_edge.export.core.ir import (
    Attention,
    Body,
    Linear,
    Mlp,
    Op,
    Route,
    RowSet,
    Value,
    View,
    list_reads,
)
from bigvit_edge.export.panels import PANEL

Needs = dict[Value, NDArray[np.bool_]]  # of each value [rows, columns], what later ops read


def drop_unread_rows(body: Body) -> None:
    """Compute no rows but those that something reads.

    Each op computes its first rows alone, up to the last that is read; one of which none is, is dropped. A Linear is
    parted where a panel of its columns is read of fewer rows than the next.
    """
    needs: Needs = {}
    for view in chain(*body.outputs):
        find_needs(needs, view)[...] = True
    for op in reversed(list(body.ops)):
        kept = shrink(op, needs)
        body.replace(op, *kept)
        for view in [view for each in kept for view in each.writes.values()]:
            if view.rows.list is None and not modifies(op):
                find_needs(needs, view)[...] = False
        for view in [view for each in kept for view in list_reads(each)]:
            find_needs(needs, view)[...] = True
            if view.rows.list is not None:
                needs[view.rows.list] = np.ones((1, view.rows.list.columns), bool)
        if kept and isinstance(op.kind, Linear | Mlp) and op.view.rows.list is not None:
            needs[op.view.rows.list] = np.ones((1, op.view.rows.list.columns), bool)


def modifies(op: Op) -> bool:
    """Tell whether what an op writes depends on what was there."""
    return isinstance(op.kind, Mlp) or (isinstance(op.kind, Linear) and op.kind.accumulates)


def find_needs(needs: Needs, view: View) -> NDArray[np.bool_]:
    """Find what is needed of a view's rows.

    It is of all rows where a list names them.
    """
    mask = needs.setdefault(view.value, np.zeros((view.value.rows, view.value.columns), bool))
    rows = slice(None) if view.rows.list else slice(view.rows.first, view.rows.first + view.rows.count)
    return mask[rows, view.first_column : view.first_column + view.columns]


def shrink(op: Op, needs: Needs) -> list[Op]:
    """Make ops of those rows and columns of one that are needed."""
    if isinstance(op.kind, Route):
        return [op] if any(find_needs(needs, view).any() for view in op.writes.values()) else []
    view, counts = op.view, count_needed(find_needs(needs, op.view), op.view.rows)  # [columns]
    if not isinstance(op.kind, Linear):
        return [take_first(op, int(counts.max()))] if counts.any() else []
    made, column = [], 0
    panels = np.pad(counts, (0, -len(counts) % PANEL)).reshape(-1, PANEL).max(1)
    for count, group in groupby(panels):
        columns = min(PANEL * len(list(group)), view.columns - column)
        if count:
            part = replace(view, first_column=view.first_column + column, columns=columns)
            kind = replace(op.kind, first=op.kind.first + column, columns=columns)
            made.append(take_first(Op(kind, dict(op.reads), {"out": part}, op.node, op.layer), int(count)))
        column += columns
    return made


def count_needed(needed: NDArray[np.bool_], rows: RowSet) -> NDArray[np.int64]:
    """Count each column's rows up to the last one needed.

    Of a list they are its first, row 0, or all.
    """
    some = needed.any(0)
    if rows.list is not None:
        return np.where(needed[1:].any(0), rows.count, some & (rows.list.name == "selected"))
    return np.where(some, rows.count - needed[::-1].argmax(0), 0)


def take_first(op: Op, count: int) -> Op:
    """Let an op compute the first rows alone."""
    if isinstance(op.kind, Linear | Mlp | Attention):
        op.reads["src"] = tuple(shorten(view, count) for view in op.reads["src"])
        op.writes = {"out": shorten(op.view, count)}
    return op


def shorten(view: View, count: int) -> View:
    rows = view.rows
    short = rows if count == rows.count else RowSet(1) if count == 1 and rows.list else replace(rows, count=count)
    return replace(view, rows=short)
