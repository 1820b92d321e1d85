"""Outputs have values of their own, and inputs are not written over."""

from bigvit_edge.export.core.ir import Add, Linear, RowSet, Value, View, view_of
from bigvit_edge.export.core.ports import copy_inputs, copy_outputs
from tests.export.core.bodies import make_body, make_linear, make_op, take_rows


def test_an_output_of_its_own_is_not_copied() -> None:
    src, out = Value(4, 8), Value(4, 8)
    body = make_body(out, make_linear("a", src, out))
    copy_outputs(body)
    assert len(body.ops) == 1
    assert body.outputs == [(view_of(out),)]


def test_what_others_may_write_over_is_copied_as_soon_as_it_is_made() -> None:
    src, out, other, last = (Value(4, 8) for _ in range(4))
    body = make_body(out, make_linear("a", src, out), make_linear("b", src, other))
    body.ops.append(make_op(Add(), last, src=out, other=other))
    copy_outputs(body)
    assert body.ops[1].reads == {"src": (view_of(out),)}
    assert body.outputs == [(body.ops[1].view,)]
    assert isinstance(body.ops[1].kind, Linear)


def test_rows_of_several_values_are_copied_below_one_another() -> None:
    src, first, second = Value(4, 8), Value(4, 8), Value(4, 8)
    body = make_body(first, make_linear("a", src, first), make_linear("b", src, second))
    body.outputs = [(take_rows(first, 1, 3), view_of(second))]
    copy_outputs(body)
    ((made,),) = body.outputs
    assert made == view_of(made.value)
    assert [op.view for op in body.ops if op.layer == "output"] == [
        View(made.value, RowSet(3), 0, 8),
        View(made.value, RowSet(4, 3), 0, 8),
    ]


def test_one_value_for_two_outputs_is_copied_once() -> None:
    src, out = Value(4, 8), Value(4, 8)
    body = make_body(out, make_linear("a", src, out))
    body.outputs.append((view_of(out),))
    copy_outputs(body)
    assert body.outputs == [(view_of(out),), (body.ops[1].view,)]


def test_an_input_is_copied_for_who_may_write_over_it_alone() -> None:
    made, out = Value(24, 8), Value(24, 8)
    body = make_body(out)
    (given,) = body.inputs
    body.ops = [make_linear("a", given, made), make_op(Add(), out, src=given, other=made)]
    copy_inputs(body)
    linear, copy, add = body.ops
    assert linear.reads == {"src": (view_of(given),)}
    assert copy.reads == {"src": (view_of(given),)}
    assert add.reads == {"src": (copy.view,), "other": (view_of(made),)}
