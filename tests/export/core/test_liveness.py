"""Rows that nothing reads, in bodies made by hand."""

import numpy as np
import pytest

from bigvit_edge.export.core.ir import Linear, RowSet, Value, View
from bigvit_edge.export.core.liveness import count_needed, drop_unread_rows
from tests.export.core.bodies import make_body, make_linear, take_rows


def test_a_row_that_alone_is_read_is_alone_computed() -> None:
    x, a, b = Value(9, 16), Value(9, 16), Value(9, 16)
    body = make_body(take_rows(b, 0, 1), make_linear("a", x, a), make_linear("b", a, b))
    drop_unread_rows(body)
    assert [(op.view.rows.count, op.reads["src"][0].rows.count) for op in body.ops] == [(1, 1), (1, 1)]


def test_rows_up_to_the_last_one_read_stay() -> None:
    a = Value(9, 16)
    body = make_body(take_rows(a, 3, 2), make_linear("a", Value(9, 16), a))
    drop_unread_rows(body)
    assert body.ops[0].view == take_rows(a, 0, 5)


def test_an_op_that_nothing_reads_is_dropped_with_what_led_to_it() -> None:
    x, a, b, out = (Value(9, 16) for _ in range(4))
    body = make_body(out, make_linear("a", x, a), make_linear("b", a, b), make_linear("out", x, out))
    drop_unread_rows(body)
    assert [op.layer for op in body.ops] == ["out"]


def test_what_is_added_to_is_needed_and_what_is_written_over_is_not() -> None:
    x, out = Value(9, 16), Value(9, 16)
    first, last = make_linear("first", x, out), make_linear("last", x, out)
    adding = make_linear("last", x, out, accumulates=True)
    for op, layers in ((last, ["last"]), (adding, ["first", "last"])):
        body = make_body(out, first, op)
        drop_unread_rows(body)
        assert [op.layer for op in body.ops] == layers


def test_a_linear_is_parted_where_a_panel_is_read_of_fewer_rows() -> None:
    qkv, q, kv = Value(9, 48), Value(1, 8), Value(9, 32)
    reads = View(qkv, RowSet(1), 0, 16), View(qkv, RowSet(9), 16, 32)
    out = Value(9, 8)
    ops = [make_linear(name, read, made) for name, read, made in zip("ab", reads, (q, kv), strict=True)]
    body = make_body(out, make_linear("qkv", Value(9, 16), qkv), *ops, make_linear("q", q, take_rows(out, 0, 1)))
    body.outputs += [(op.view,) for op in ops]
    drop_unread_rows(body)
    parts = [op for op in body.ops if op.layer == "qkv"]
    assert [op.view for op in parts] == list(reads)
    assert [(op.kind.first, op.kind.columns) for op in parts if isinstance(op.kind, Linear)] == [(0, 16), (16, 32)]


@pytest.mark.parametrize(
    ("name", "read", "count"),
    [("selected", [], 0), ("selected", [0], 1), ("selected", [0, 1], 4), ("skipped", [0], 0), ("skipped", [5], 4)],
)
def test_rows_of_a_list_are_all_needed_or_its_first(name: str, read: list[int], count: int) -> None:
    needed = np.zeros((9, 1), bool)
    needed[read] = True
    assert count_needed(needed, RowSet(4, list=Value(1, 4, name=name))).tolist() == [count]
