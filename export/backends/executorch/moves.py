"""Ops that move numbers and change none, in those that XNNPACK takes: slices, views, permutes, cats, products."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from bigvit_edge.export.graph import SLICE, add_constant, describe_view, insert, redirect_uses, shape_of

aten = torch.ops.aten
SPLITS = (aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default, aten.unbind.int)
VIEWS = (aten.unsqueeze.default, aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims)
BROADCASTING = {
    aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor, aten.maximum.default, aten.minimum.default,
}  # fmt: skip
HIGHEST_RANK = 6  # of XNNPACK's values


def view(before: Node, value: Node, shape: Sequence[int]) -> Node:
    return insert(before, aten.reshape.default, value, list(shape))


def write_splits_as_slices(program: ExportedProgram) -> None:
    """Each part of a split as a slice of its own, and each of an unbind as a select."""
    for split in list(program.graph.nodes):
        for item in list(split.users) if split.target in SPLITS else ():
            target, args, kwargs = describe_view(item)
            redirect_uses(program, item, insert(split, target, split.args[0], *args, **kwargs))


def write_select_as_slice(program: ExportedProgram) -> None:
    """x[:, 0] as x[:, 0:1] without that dimension: XNNPACK slices, but does not select."""
    for select in program.graph.find_nodes(op="call_function", target=aten.select.int):
        value, dim, index = select.args
        if select.meta["val"].is_floating_point():
            index %= shape_of(value)[dim]
            part = insert(select, aten.slice.Tensor, value, dim, index, index + 1)
            redirect_uses(program, select, view(select, part, shape_of(select)))


def write_views(program: ExportedProgram) -> None:
    """Dimensions of one that come and go, as views: XNNPACK adds them at the end alone."""
    for node in list(program.graph.nodes):
        if node.target in VIEWS and node.meta["val"].is_floating_point():
            redirect_uses(program, node, view(node, node.args[0], shape_of(node)))


def write_strides(program: ExportedProgram) -> None:
    """x[:, ::2] as the first column of x in pairs: XNNPACK slices without steps."""
    for node in list(program.graph.find_nodes(op="call_function", target=aten.slice.Tensor)):
        arguments: tuple[Any, ...] = node.args
        value, dim, start, end, step = (*arguments, *SLICE[len(arguments) - 1 :])
        shape = shape_of(value)
        if step == 1 or not node.meta["val"].is_floating_point() or len(shape) >= HIGHEST_RANK:
            continue
        dim, (start, _, _) = dim % len(shape), slice(start, end).indices(shape[dim])
        redirect_uses(program, node, take_every(node, value, dim, start, step, shape_of(node)[dim]))


def take_every(before: Node, value: Node, dim: int, start: int, step: int, count: int) -> Node:
    """`count` elements along a dimension, from `start` on, each `step` after the one before."""
    shape = shape_of(value)
    first = max(0, min(start, shape[dim] - count * step))  # of whole groups that hold one element each
    place, last = start - first, start + (count - 1) * step
    if count == 1:
        return insert(before, aten.slice.Tensor, value, dim, start, start + 1)
    if first + count * step > shape[dim]:
        parts = take_every(before, value, dim, start, step, count - 1), take_every(before, value, dim, last, 1, 1)
        return insert(before, aten.cat.default, list(parts), dim)
    groups = insert(before, aten.slice.Tensor, value, dim, first, first + count * step)
    groups = view(before, groups, [*shape[:dim], count, step, *shape[dim + 1 :]])
    taken = insert(before, aten.slice.Tensor, groups, dim + 1, place, place + 1)
    return view(before, taken, [*shape[:dim], count, *shape[dim + 1 :]])


def write_expands(program: ExportedProgram) -> None:
    """What is repeated, as a product with ones; as it is for those who would repeat it themselves."""
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
    """Whether a reader of an expanded value gives the same of the value as it was, in that shape."""
    if user.target not in BROADCASTING:
        return False
    shapes = [shape if n is expanded else shape_of(n) for n in user.args if isinstance(n, Node)]
    return bool(torch.broadcast_shapes(*shapes) == shape_of(user))  # type: ignore[no-untyped-call]
