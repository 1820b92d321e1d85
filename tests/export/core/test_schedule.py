"""Lanes, stages and buffers of bodies made by hand."""

from bigvit_edge.export.core.ir import Add, Body, Value
from bigvit_edge.export.core.schedule import BIG, LITTLE, plan_buffers, schedule_ops
from tests.export.core.bodies import make_body, make_linear, make_op


def make_chain(count: int) -> tuple[Body, list[Value]]:
    """Linears, each on what the last one gives."""
    values = [Value(4, 8) for _ in range(count)]
    ops = [make_linear(f"{i}", values[i - 1] if i else Value(4, 8), value) for i, value in enumerate(values)]
    return make_body(values[-1], *ops), values


def make_fork(sides: tuple[int, int]) -> tuple[Body, list[Value]]:
    """Two branches, each of two Linears by way of so many columns, that are added."""
    x, a, b, out = (Value(4, 8) for _ in range(4))
    wide = [Value(4, side) for side in sides]
    branches = [
        op
        for value, end in zip(wide, (a, b), strict=True)
        for op in (make_linear("up", x, value), make_linear("down", value, end))
    ]
    first = make_linear("first", Value(4, 8), x)
    return make_body(out, first, *branches, make_op(Add(), out, src=a, other=b)), [x, a, b, out]


def test_a_chain_is_one_stage_in_the_big_lane() -> None:
    body, _ = make_chain(4)
    assert [(step.stage, step.lane) for step in schedule_ops(body)] == [(0, BIG)] * 4


def test_branches_run_side_by_side_the_lighter_one_in_the_little_lane() -> None:
    for sides, lanes in (((64, 16), [BIG, BIG, LITTLE, LITTLE]), ((16, 64), [LITTLE, LITTLE, BIG, BIG])):
        body, _ = make_fork(sides)
        found = {step.op: (step.stage, step.lane) for step in schedule_ops(body)}
        assert [found[op] for op in body.ops] == [(0, BIG), *((1, lane) for lane in lanes), (2, BIG)]


def test_branches_that_hand_something_on_do_not_part() -> None:
    body, values = make_fork((64, 16))
    _, a, b, _ = values
    link = make_linear("link", a, Value(4, 8))
    body.ops.insert(3, link)
    body.ops.insert(-1, make_op(Add(), Value(4, 8), src=link.view, other=b))
    assert {step.lane for step in schedule_ops(body)} == {BIG}


def test_a_buffer_is_used_again_once_nothing_reads_it() -> None:
    body, values = make_chain(4)
    numbers, shapes = plan_buffers(body, schedule_ops(body))
    assert [numbers[value] for value in values] == [2, 3, 2, 1]
    assert len(shapes) == 4
    assert numbers[body.inputs[0]] == 0


def test_a_buffer_keeps_its_shape() -> None:
    body, values = make_chain(4)
    values[2].columns = 16
    numbers, _ = plan_buffers(body, schedule_ops(body))
    assert [numbers[value] for value in values] == [2, 3, 4, 1]


def test_lanes_of_a_stage_share_no_buffer() -> None:
    body, _ = make_fork((16, 16))
    numbers, _ = plan_buffers(body, schedule_ops(body))
    written = [numbers[op.view.value] for op in body.ops[1:5]]
    assert not set(written[:2]) & set(written[2:])
