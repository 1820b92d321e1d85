"""In which order and lane the ops of a body run, and which buffers hold its values.

Lanes: an op that every other one comes before or after runs in lane 0. Between two of these, parts that hand nothing to
one another run side by side: the one with the most weights in lane 0 (big), the others in lane 1 (LITTLE), whatever the
keep ratio. Stages: one begins where the lanes part and where they meet, with a route, with an attention while they are
apart, and with what waits for the other lane.

Buffers: a value takes the first buffer of its shape that nothing of this stage in the other lane, nor anything later,
uses. They are numbered by the lane that first writes them, then as they are written.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from bigvit_edge.export.core.ir import (
    Attention,
    Body,
    Linear,
    Mlp,
    Op,
    Route,
    Value,
    View,
    list_reads,
    view_of,
)

BIG, LITTLE = 0, 1


@dataclass(frozen=True)
class Step:
    """An op in its place."""

    op: Op
    stage: int
    lane: int


def list_accesses(op: Op) -> Iterator[tuple[View, bool]]:
    """List the views that an op touches, row lists included.

    And whether it writes them.
    """
    for view in list_reads(op):
        yield view, False
    for view in op.writes.values():
        yield view, True
    for view in (*list_reads(op), *op.writes.values()):
        if view.rows.list is not None:
            yield view_of(view.rows.list), False


def schedule_ops(body: Body) -> list[Step]:
    """Give each op its lane and stage, and order them."""
    needs = list_needs(body)
    steps: list[Step] = []
    stage, is_apart = 0, False
    for is_joint, numbers in groupby(range(len(body.ops)), find_joints(needs).__getitem__):
        run = list(numbers)
        lanes = {} if is_joint else part_lanes([body.ops[i] for i in run])
        if steps and (lanes or is_apart):
            stage += 1
        is_apart, offsets = bool(lanes), dict[int, int]()
        for i in run:
            op = body.ops[i]
            lane = lanes.get(op, BIG)
            if not is_apart and isinstance(op.kind, Route) and steps and steps[-1].stage == stage:
                stage += 1
            before = [(offsets[j] + (lanes.get(body.ops[j], BIG) != lane)) for j in needs[i] if j in offsets]
            own = [offsets[j] for j in needs[i] if j in offsets]
            offsets[i] = max([0, *before, *(n + isinstance(op.kind, Attention) for n in own)]) if is_apart else 0
            steps.append(Step(op, stage + offsets[i], lane))
        stage += max(offsets.values())
    return sorted(steps, key=lambda step: (step.stage, step.lane))


def list_needs(body: Body) -> list[set[int]]:
    """List the earlier ops that each op waits for.

    Behind a route both streams are in a new order.
    """
    touched: dict[Value, list[tuple[int, View, bool]]] = {}
    needs: list[set[int]] = []
    route: int | None = None
    for i, op in enumerate(body.ops):
        found = set(range(i)) if isinstance(op.kind, Route) else set() if route is None else {route}
        for view, writes in list_accesses(op):
            pasts = touched.setdefault(view.value, [])
            found |= {j for j, other, wrote in pasts if (writes or wrote) and j != i and view.overlaps(other)}
            pasts.append((i, view, writes))
        route = i if isinstance(op.kind, Route) else route
        needs.append(found)
    return needs


def find_joints(needs: list[set[int]]) -> list[bool]:
    """Find the ops that every other op comes before or after."""
    count = len(needs)
    before, after = [0] * count, [0] * count  # sets of ops, as bits
    for i in range(count):
        for j in needs[i]:
            before[i] |= before[j] | 1 << j
    for i in reversed(range(count)):
        for j in needs[i]:
            after[j] |= after[i] | 1 << i
    return [(before[i] | after[i]).bit_count() == count - 1 for i in range(count)]


def part_lanes(ops: list[Op]) -> dict[Op, int]:
    """Give each op of a run its lane.

    None where the run does not fall into parts with weights of their own.
    """
    parts: list[list[Op]] = []
    for op in ops:
        linked = [part for part in parts if any(hands_on(other, op) for other in part)]
        parts = [part for part in parts if part not in linked]
        parts.append([*(other for part in linked for other in part), op])
    weighed = sorted((part for part in parts if weigh(part)), key=weigh)
    if len(weighed) < 2:
        return {}
    small = {op for part in weighed[:-1] for op in part}
    return {op: LITTLE if op in small else BIG for op in ops}


def hands_on(earlier: Op, later: Op) -> bool:
    """Tell whether an op touches what an earlier one wrote."""
    views = [*list_reads(later), *later.writes.values()]
    return any(view.value is written.value for written in earlier.writes.values() for view in views)


def weigh(part: list[Op]) -> int:
    """Count the weights of some ops."""
    kinds = [op.kind for op in part]
    linears = [weights for kind in kinds if isinstance(kind, Linear) for weights in kind.weights]
    linears += [weights for kind in kinds if isinstance(kind, Mlp) for weights in (kind.fc1, kind.fc2)]
    return sum(weights.weight.numel() for weights in linears)


# ---- buffers ---------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Room:
    """A buffer while it is planned.

    The value whose shape it has, the lane that first wrote it, where it is used, and until which step.
    """

    shape: Value
    lane: int
    uses: list[tuple[int, int]]
    last: int


def plan_buffers(body: Body, steps: list[Step]) -> tuple[dict[Value, int], list[Value]]:
    """Number the buffers of all values.

    Inputs come first, then outputs. Returns each value's, and a value of each buffer's shape.
    """
    ports = [*body.inputs, *(view.value for (view,) in body.outputs)]
    rooms: list[Room] = []
    owners: dict[Value, Room] = {}
    uses: dict[Value, list[int]] = {}
    for i, step in enumerate(steps):
        for view, _ in list_accesses(step.op):
            uses.setdefault(view.value, []).append(i)
    for i, step in enumerate(steps):
        for view in step.op.writes.values():
            value = view.value
            if value in owners or value in ports:
                continue
            places = [(steps[j].stage, steps[j].lane) for j in uses[value]]
            room = next((room for room in rooms if is_free(room, value, i, step)), None)
            if room is None:
                room = Room(value, step.lane, [], 0)
                rooms.append(room)
            room.uses, room.last = places, uses[value][-1]
            owners[value] = room
    ordered = sorted(rooms, key=lambda room: room.lane)
    numbers = {value: len(ports) + ordered.index(room) for value, room in owners.items()}
    shapes = [*ports, *(room.shape for room in ordered)]
    return {**numbers, **{value: number for number, value in enumerate(ports)}}, shapes


def is_free(room: Room, value: Value, place: int, step: Step) -> bool:
    """Tell whether a step may reuse a buffer for a value."""
    shape = room.shape
    if (shape.type, shape.rows, shape.columns) != (value.type, value.rows, value.columns):
        return False
    return room.last < place and all(stage < step.stage or lane == step.lane for stage, lane in room.uses)
