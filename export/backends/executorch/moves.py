"""Ops that move numbers and change none, in those that XNNPACK takes: slices, views, permutes, cats, products."""

from collections.abc import Sequence

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from bigvit_edge.export.equivalents import HIGHEST_RANK
from bigvit_edge.export.graph import add_constant, describe_view, insert, redirect_uses, shape_of

aten = torch.ops.aten
SPLITS = (aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default, aten.unbind.int)
VIEWS = (aten.unsqueeze.default, aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims)
BROADCASTING = {
    aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor, aten.maximum.default, aten.minimum.default,
}  # fmt: skip


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


def write_expands(program: ExportedProgram) -> None:
    """Write what is repeated as a product with ones.

    A reader that repeats it by itself gets it as it is.
    """
    for node in list(program.graph.find_nodes(op="call_function", target=aten.expand.default)):
        (value, *_), shape = node.args, shape_of(node)
        before = shape_of(value)
        if before == shape or all(repeats_itself(user, node, before) for user in node.users):
            redirect_uses(program, node, value)
        elif node.meta["val"].is_floating_point() and len(shape) <= HIGHEST_RANK:
            padded = [1] * (len(shape) - len(before)) + list(before)
            ones = torch.ones([1 if a == b else b for a, b in zip(padded, shape, strict=True)])
            constant = add_constant(program, f"ones.{node.name}", ones.to(node.meta["val"].dtype))
            value = value if len(before) == len(shape) else view(node, value, padded)
            redirect_uses(program, node, insert(node, aten.mul.Tensor, value, constant))


def repeats_itself(user: Node, expanded: Node, shape: tuple[int, ...]) -> bool:
    """Tell whether a reader of an expanded value repeats it itself.

    It then gives the same of the value before the expansion, in that shape.
    """
    if user.target not in BROADCASTING:
        return False
    shapes = [shape if n is expanded else shape_of(n) for n in user.args if isinstance(n, Node)]
    return bool(torch.broadcast_shapes(*shapes) == shape_of(user))  # type: ignore[no-untyped-call]
