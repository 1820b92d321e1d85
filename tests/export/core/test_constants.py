"""Constants that are added to or read beside rows, filled in where these are written."""

import torch

from bigvit_edge.export.core.constants import fill_constants, stack_constants, stack_rows
from bigvit_edge.export.core.ir import Add, Attention, Fill, Linear, Value, Views, view_of
from tests.export.core.bodies import make_body, make_linear, make_op, take_rows

CLS = Value(1, 4, data=torch.full((1, 4), 3.0), name="cls")
POSITIONS = Value(5, 4, data=torch.arange(20.0).view(5, 4), name="positions")


def test_tokens_are_added_to_positions_that_are_there() -> None:
    patches, out = Value(4, 4), Value(5, 4)
    read: Views = (view_of(CLS), view_of(patches))
    body = make_body(out, make_op(Add(), out, src=read, other=POSITIONS))
    fill_constants(body)
    fill, add = body.ops
    assert isinstance(fill.kind, Fill)
    assert fill.kind.name == fill.layer == "positions"
    assert fill.view == view_of(out)
    expected = POSITIONS.data + torch.tensor([3.0, 0, 0, 0, 0])[:, None]  # type: ignore[operator]
    assert torch.equal(fill.kind.data, expected)
    assert add.reads == {"src": (take_rows(out, 1, 4),), "other": (view_of(patches),)}
    assert add.view == take_rows(out, 1, 4)


def test_sums_of_computed_rows_stay() -> None:
    out = Value(4, 4)
    body = make_body(out, make_op(Add(), out, src=Value(4, 4), other=Value(4, 4)))
    before = list(body.ops)
    fill_constants(body)
    assert body.ops == before


def test_rows_below_a_constant_are_written_below_it() -> None:
    patches, out = Value(4, 4), Value(5, 4)
    linear = make_linear("patches", Value(4, 8), patches)
    reader = make_op(make_linear("a", Value(5, 4), out).kind, out, src=(view_of(CLS), view_of(patches)))
    body = make_body(out, linear, reader)
    stack_constants(body)
    fill, *rest = body.ops
    assert rest == [linear, reader]
    whole = fill.view.value
    assert (whole.rows, whole.columns) == (5, 4)
    assert linear.view == take_rows(whole, 1, 4)
    assert reader.reads["src"] == (view_of(whole),)
    assert isinstance(fill.kind, Fill)
    assert fill.kind.name == "cls"
    assert torch.equal(fill.kind.data, torch.tensor([3.0, 0, 0, 0, 0])[:, None].expand(5, 4))


def test_rows_of_several_linears_that_are_read_as_one_are_written_as_one() -> None:
    first, second, out = Value(2, 4), Value(3, 4), Value(5, 4)
    makers = [make_linear(name, Value(value.rows, 8), value) for name, value in (("a", first), ("b", second))]
    reader = make_op(make_linear("c", Value(5, 4), out).kind, out, src=(view_of(second), view_of(first)))
    body = make_body(out, *makers, reader)
    stack_constants(body)
    assert makers[0].view == view_of(first)  # no constant is among them
    stack_rows(body)
    whole = reader.reads["src"][0].value
    assert [op.view for op in makers] == [take_rows(whole, 3, 2), take_rows(whole, 0, 3)]
    assert all(isinstance(op.kind, Linear) for op in body.ops)


def test_what_attention_reads_is_not_stacked() -> None:
    first, second, out = Value(2, 4), Value(3, 4), Value(5, 4)
    makers = [make_linear(name, Value(value.rows, 8), value) for name, value in (("a", first), ("b", second))]
    read: Views = (view_of(first), view_of(second))
    body = make_body(out, *makers, make_op(Attention(1), out, src=read, key=read, value=read))
    stack_rows(body)
    assert [op.view for op in makers] == [*read]
