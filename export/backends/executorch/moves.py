"""Ops that move numbers and change none, in those that XNNPACK takes: slices and views."""

from collections.abc import Sequence

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from bigvit_edge.export.graph import describe_view, insert, redirect_uses, shape_of

aten = torch.ops.aten
SPLITS = (aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default, aten.unbind.int)
VIEWS = (aten.unsqueeze.default, aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims)


def view(before: Node, value: Node, shape: Sequence[int]) -> Node:
    return insert(before, aten.reshape.default, value, list(shape))


def write_splits_as_slices(program: ExportedProgram) -> None:
    """Write parts of a split as slices, of an unbind as selects."""
    for split in list(program.graph.nodes):
        for item in list(split.users) if split.target in SPLITS else ():
            target, args, kwargs = describe_view(item)
            redirect_uses(program, item, insert(split, target, split.args[0], *args, **kwargs))


def write_select_as_slice(program: ExportedProgram) -> None:
    """Write x[:, 0] as x[:, 0:1] without that dimension.

    XNNPACK slices, but does not select.
    """
    for select in program.graph.find_nodes(op="call_function", target=aten.select.int):
        value, dim, index = select.args
        if select.meta["val"].is_floating_point():
            index %= shape_of(value)[dim]
            part = insert(select, aten.slice.Tensor, value, dim, index, index + 1)
            redirect_uses(program, select, view(select, part, shape_of(select)))


def write_views(program: ExportedProgram) -> None:
    """Write dimensions of one that come and go as views.

    XNNPACK adds dimensions at the end alone.
    """
    for node in list(program.graph.nodes):
        if node.target in VIEWS and node.meta["val"].is_floating_point():
            redirect_uses(program, node, view(node, node.args[0], shape_of(node)))
