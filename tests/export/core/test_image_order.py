"""Rows behind a router, reached through its row lists."""

import pytest
import torch

from bigvit_edge.export.core.image_order import Disorder, keep_image_order
from bigvit_edge.export.core.ir import Add, Body, Norm, Op, Route, RowSet, Value, View, view_of
from bigvit_edge.export.program import BufferType
from tests.export.core.bodies import NODE, make_body, make_linear, make_op, take_rows

N, K = 9, 4


def make_route() -> tuple[Op, dict[str, Value]]:
    """A router of 4 rows out of 9; all values that it knows, by name, x and z as they were before."""
    values = {
        "selected": Value(1, K, BufferType.I32, name="selected"),
        "skipped": Value(1, N - K, BufferType.I32, name="skipped"),
        "gate": Value(1, K),
        "x": Value(N, 16),
        "z": Value(N, 8),
    }
    old = {"old x": Value(N, 16), "old z": Value(N, 8)}
    kind = Route("router", Norm("norm", torch.ones(8), torch.zeros(8), 1e-6), torch.ones(1, 8), torch.zeros(1), K)
    reads = {"src": (view_of(old["old z"]),), "x": (view_of(old["old x"]),)}
    return Op(kind, reads, {name: view_of(value) for name, value in values.items()}, NODE, "router"), values | old


def read(first: int, count: int) -> tuple[Body, dict[str, Value], View]:
    """What a Linear behind a router reads of x in the end, if those rows of it at first."""
    route, values = make_route()
    out = Value(count, 16)
    body = make_body(take_rows(out, 0, 1), route, make_linear("a", take_rows(values["x"], first, count), out))
    keep_image_order(body)
    return body, values, body.ops[1].reads["src"][0]


def test_the_first_rows_are_reached_by_the_list_of_the_selected() -> None:
    body, values, view = read(0, K)
    assert view == View(values["old x"], RowSet(K, list=values["selected"]), 0, 16)
    assert set(body.ops[0].writes) == {"selected", "skipped", "gate"}
    assert set(body.ops[0].reads) == {"src"}


def test_the_others_are_reached_by_the_list_of_the_skipped() -> None:
    _, values, view = read(K, N - K)
    assert view == View(values["old x"], RowSet(N - K, list=values["skipped"]), 0, 16)


def test_all_rows_and_the_first_need_no_list() -> None:
    for count in (N, 1):
        _, values, view = read(0, count)
        assert view == take_rows(values["old x"], 0, count)


@pytest.mark.parametrize(("first", "count"), [(0, K + 1), (1, K), (K, 2)])
def test_other_rows_are_refused(first: int, count: int) -> None:
    with pytest.raises(Disorder, match=f"reads rows {first} to {first + count} of those that a router reordered"):
        read(first, count)


def test_what_is_written_by_rows_of_a_list_is_so_by_that_list() -> None:
    route, values = make_route()
    out = take_rows(values["x"], 0, K)
    body = make_body(take_rows(values["x"], 0, 1), route, make_linear("a", Value(K, 16), out, accumulates=True))
    keep_image_order(body)
    assert body.ops[1].view == View(values["old x"], RowSet(K, list=values["selected"]), 0, 16)


def test_tokens_are_not_given_in_the_order_of_a_router() -> None:
    route, values = make_route()
    with pytest.raises(Disorder, match="given in their order"):
        keep_image_order(make_body(values["x"], route))


def test_tokens_of_before_may_not_be_read_again() -> None:
    route, values = make_route()
    out = Value(N, 16)
    body = make_body(out, route, make_linear("a", values["old x"], out))
    with pytest.raises(Disorder, match="its tokens are read again, as they were before"):
        keep_image_order(body)


def test_rows_of_different_orders_are_not_added() -> None:
    route, values = make_route()
    out = Value(N, 16)
    body = make_body(out, route, make_op(Add(), out, src=values["x"], other=Value(N, 16)))
    with pytest.raises(Disorder, match="reordered beside others"):
        keep_image_order(body)
