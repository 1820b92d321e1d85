"""What a body is given and what it gives, apart from what its ops write over."""

import torch
from torch.fx import Node

from bigvit_edge.export.core.ir import (
    Add,
    Body,
    Linear,
    Mlp,
    Op,
    Route,
    RowSet,
    Value,
    View,
    Weights,
    count_rows,
    view_of,
)

WRITING = Add, Mlp, Route  # ops that may come to write over what they read


def change_nothing(layer: str, columns: int) -> Linear:
    """Make a Linear whose outputs are its inputs."""
    return Linear((Weights(f"{layer}.same", torch.eye(columns), None, "fp32"),), columns)


def copy_outputs(body: Body) -> None:
    """Give each output a computed value of its own.

    What others may write over later is copied as soon as it is made.
    """
    taken: set[Value] = set()
    for number, views in enumerate(body.outputs):
        is_own = len(views) == 1 and views[0].is_whole and views[0].value not in taken
        may_write = any(isinstance(op.kind, WRITING) for view in views for op in body.users_of(view.value))
        if body.ops and (not is_own or may_write or not body.producers_of(views[0])):
            value, row = Value(count_rows(views), views[0].columns), 0
            for view in views:
                makers = body.producers_of(view)
                place = body.ops.index(makers[-1]) + 1 if makers else len(body.ops)
                node = body.answers[number] if body.answers else body.ops[place - 1].node
                made = View(value, RowSet(view.rows.count, row), 0, value.columns)
                body.ops.insert(place, make_copy(view, made, node, "output"))
                row += view.rows.count
            body.outputs[number] = (view_of(value),)
        taken.add(body.outputs[number][0].value)


def copy_inputs(body: Body) -> None:
    """Copy the inputs that ops may write over, or read below others."""
    for op in list(body.ops):
        for name, views in op.reads.items():
            if len(views) > 1 or (isinstance(op.kind, WRITING) and name != "gate"):
                op.reads[name] = tuple(copy_input(body, op, view) for view in views)


def copy_input(body: Body, reader: Op, view: View) -> View:
    """Copy what an op reads of an input, and nothing else."""
    if view.value not in body.inputs:
        return view
    made = view_of(Value(view.rows.count, view.columns))
    body.ops.insert(body.ops.index(reader), make_copy(view, made, reader.node, "input"))
    return made


def make_copy(view: View, to: View, node: Node, layer: str) -> Op:
    return Op(change_nothing(layer, view.columns), {"src": (view,)}, {"out": to}, node, layer)
