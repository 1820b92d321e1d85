"""Tensors of more dimensions than Core ML has, in five or fewer.

A value of more is kept as its numbers in row-major order, in whatever shape suits the next op: views of it cost
nothing, an op along one dimension sees three (before, along, after), a permutation merges the dimensions that stay
neighbours, or is done in several. Windows of Swin and MaxViT, and blocks of pixels, are made of these.
"""

import operator
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from math import prod
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node
from torch.fx.node import map_arg
from torch.utils._pytree import tree_leaves

from bigvit_edge.export.graph import insert, redirect_uses, shape_of
from bigvit_edge.export.lowering_errors import refuse_op

aten = torch.ops.aten
MOST = 5
Shape = tuple[int, ...]
Lower = Callable[["Lowering", Node], Any]

VIEWS = {
    aten.alias.default,
    aten.clone.default,
    aten.contiguous.default,
    aten.detach.default,
    aten.flatten.using_ints,
    aten.reshape.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unflatten.int,
    aten.unsqueeze.default,
    aten.view.default,
    aten._unsafe_view.default,
}


def lower_ranks(program: ExportedProgram) -> None:
    """Write ops of more than five dimensions in ops of fewer.

    These are all ops that take or make such values. UserError naming one that cannot be written so.
    """
    lowering = Lowering(program)
    for node in list(program.graph.nodes):
        if node.op == "call_function" and any(len(s) > MOST for s in lowering.list_shapes(node)):
            lowering.lower(node)
    for node in reversed(lowering.replaced):
        program.graph.erase_node(node)


class Lowering:
    """One pass over a program.

    flat: the numbers of each value of more than five dimensions; replaced: nodes that nothing reads.
    """

    def __init__(self, program: ExportedProgram) -> None:
        self.program = program
        self.flat: dict[Node, Node] = {}
        self.replaced: list[Node] = []

    def list_shapes(self, node: Node) -> Iterator[Shape]:
        for each in (node, *node.all_input_nodes):
            yield from (tuple(v.shape) for v in tree_leaves(each.meta.get("val")) if isinstance(v, torch.Tensor))

    def lower(self, node: Node) -> None:
        if node.target is operator.getitem:
            return  # done with the op that makes several
        rule = RULES.get(node.target)
        if rule is None and torch.Tag.pointwise in getattr(node.target, "tags", ()):
            rule = lower_pointwise
        made = rule(self, node) if rule else None
        if made is None:
            most = max(map(len, self.list_shapes(node)))
            raise refuse_op("coreml", node, f"on {most} dimensions, where Core ML has {MOST}")
        if isinstance(node.meta["val"], torch.Tensor):
            self.settle(node, made)
        else:
            self.replaced.append(node)
            for user in list(node.users):
                self.settle(user, insert(node, operator.getitem, made, user.args[1]))

    def settle(self, node: Node, made: Node) -> None:
        """Put `made` in the place of `node`.

        It takes the node's shape where that has few enough dimensions.
        """
        self.replaced.append(node)
        if len(shape_of(node)) > MOST:
            self.flat[node] = made
            return
        made = self.shape(node, made, shape_of(node))
        redirect_uses(self.program, node, made)

    def read(self, before: Node, value: Node, shape: Sequence[int]) -> Node:
        """Read the numbers of a value in a shape of few dimensions."""
        return self.shape(before, self.flat.get(value, value), shape)

    def shape(self, before: Node, value: Node, shape: Sequence[int]) -> Node:
        return value if shape_of(value) == tuple(shape) else insert(before, aten.reshape.default, value, list(shape))


def list_arguments(node: Node) -> tuple[Any, ...]:
    return node.args


# ---- rules: the numbers of what an op makes, or None if it cannot be written -----------------------------------------


def lower_view(lowering: Lowering, node: Node) -> Node:
    (value, *_) = list_arguments(node)
    made: Node = lowering.flat.get(value, value)
    return made


def lower_permute(lowering: Lowering, node: Node) -> Node:
    value, *dims = list_arguments(node)
    rank = len(shape_of(value))
    order = list(range(rank))
    if node.target is aten.transpose.int:
        first, second = (d % rank for d in dims)
        order[first], order[second] = second, first
    else:
        order = [d % rank for d in dims[0]]
    runs = _find_runs(order, shape_of(value))
    sizes = {run: prod(shape_of(value)[d] for d in run) for run in runs}
    have, want = sorted(runs), runs
    if len(runs) <= MOST:
        made = lowering.read(node, value, [sizes[run] for run in have])
        return insert(node, aten.permute.default, made, [have.index(run) for run in want])
    made = lowering.flat.get(value, value)
    for at, run in enumerate(want):  # one run after another is brought to the front of the rest
        place = have.index(run)
        if place == at:
            continue
        parts = [have[:at], have[at:place], [run], have[place + 1 :]]
        made = lowering.shape(node, made, [prod(sizes[r] for r in part) for part in parts])
        made = insert(node, aten.permute.default, made, [0, 2, 1, 3])
        have = [*parts[0], *parts[2], *parts[1], *parts[3]]
    return made


def _find_runs(order: list[int], shape: Shape) -> list[tuple[int, ...]]:
    """Dimensions of more than one place that are neighbours before and after a permutation, in their order after it."""
    runs: list[tuple[int, ...]] = []
    wide = [d for d in range(len(shape)) if shape[d] != 1]
    follows = dict(pairwise(wide))
    for d in (d for d in order if shape[d] != 1):
        if runs and follows.get(runs[-1][-1]) == d:
            runs[-1] = (*runs[-1], d)
        else:
            runs.append((d,))
    return runs or [(0,)]


def lower_pointwise(lowering: Lowering, node: Node) -> Node | None:
    """Write a pointwise op on operands with neighbouring dimensions merged.

    Dimensions are merged where all operands are spread alike along them.
    """
    inputs = node.all_input_nodes
    shapes = [shape_of(n) for n in inputs]
    merged = _merge_alike(shape_of(node), shapes)
    if merged is None:
        return None
    given = {n: lowering.read(node, n, shape) for n, shape in zip(inputs, merged, strict=True)}
    args, kwargs = map_arg((node.args, node.kwargs), lambda n: given[n])
    return insert(node, node.target, *args, **kwargs)


def _merge_alike(out: Shape, shapes: Sequence[Shape]) -> list[list[int]] | None:
    """Shapes of operands that are spread to `out`, in few dimensions; None if those are too many."""
    padded = [(1,) * (len(out) - len(shape)) + shape for shape in shapes]
    merged: list[list[int]] = [[] for _ in shapes]
    before: list[bool] | None = None
    for d in (d for d in range(len(out)) if out[d] != 1):
        spread = [shape[d] == 1 for shape in padded]
        if spread != before:
            for sizes in merged:
                sizes.append(1)
        for sizes, shape in zip(merged, padded, strict=True):
            sizes[-1] *= shape[d]
        before = spread
    return merged if merged and len(merged[0]) <= MOST else None


def lower_expand(lowering: Lowering, node: Node) -> Node | None:
    value: Any = node.args[0]
    out = shape_of(node)
    merged = _merge_alike(out, [shape_of(value), out])
    if merged is None:
        return None
    return insert(node, aten.expand.default, lowering.read(node, value, merged[0]), merged[1])


def lower_along(lowering: Lowering, node: Node) -> Node:
    """Write an op along one dimension, the first if none is named."""
    value, *rest = list_arguments(node)
    at = DIM.get(node.target, 0)
    dim = node.kwargs.get("dim", rest[at] if len(rest) > at else 0)
    given = lowering.read(node, value, split_at(shape_of(value), dim, dim))
    others = {name: option for name, option in node.kwargs.items() if name != "dim"}
    return insert(node, node.target, given, *rest[:at], 1, *rest[at + 1 :], **others)


def split_at(shape: Shape, first: Any, last: Any) -> Shape:
    """Split a shape into three dimensions.

    What is before, from `first` to `last`, and after.
    """
    low, high = first % len(shape), last % len(shape)
    return prod(shape[:low]), prod(shape[low : high + 1]), prod(shape[high + 1 :])


def lower_reduction(lowering: Lowering, node: Node) -> Node | None:
    value, dims, *_ = list_arguments(node)
    shape = shape_of(value)
    chosen = sorted(d % len(shape) for d in dims or range(len(shape)))
    wide = [d for d in chosen if shape[d] != 1] or chosen[:1]
    if any(shape[d] != 1 and d not in chosen for d in range(wide[0], wide[-1])):
        return None
    given = lowering.read(node, value, split_at(shape, wide[0], wide[-1]))
    return insert(node, node.target, given, [1], False, **node.kwargs)


def lower_cat(lowering: Lowering, node: Node) -> Node:
    values, *dims = list_arguments(node)
    dim = dims[0] if dims else 0
    given = [lowering.read(node, v, split_at(shape_of(v), dim, dim)) for v in values]
    return insert(node, aten.cat.default, given, 1)


def lower_stack(lowering: Lowering, node: Node) -> Node:
    values, *dims = list_arguments(node)
    dim = dims[0] if dims else 0
    before, _, after = split_at(shape_of(node), dim, dim)
    return insert(node, aten.cat.default, [lowering.read(node, v, (before, 1, after)) for v in values], 1)


def lower_last(lowering: Lowering, node: Node) -> Node:
    """Write a Linear or a norm over the last dimensions."""
    value, *rest = list_arguments(node)
    count = 1 if node.target is aten.linear.default else len(rest[0])
    shape = shape_of(value)
    given = lowering.read(node, value, (prod(shape[: len(shape) - count]), *shape[len(shape) - count :]))
    return insert(node, node.target, given, *rest, **node.kwargs)


def lower_product(lowering: Lowering, node: Node) -> Node | None:
    """Write a matrix product, or attention, of batches that are alike."""
    inputs = node.all_input_nodes
    if len({shape_of(n)[:-2] for n in inputs}) > 1:
        return None
    given = {n: lowering.read(node, n, (prod(shape_of(n)[:-2]), *shape_of(n)[-2:])) for n in inputs}
    args, kwargs = map_arg((node.args, node.kwargs), lambda n: given[n])
    return insert(node, node.target, *args, **kwargs)


# where ops along one dimension name it, if not next to what they take
DIM: dict[Any, int] = {aten.split.Tensor: 1, aten.split_with_sizes.default: 1, aten.chunk.default: 1}
RULES: dict[Any, Lower] = {
    **dict.fromkeys(VIEWS, lower_view),
    **dict.fromkeys((aten.permute.default, aten.transpose.int), lower_permute),
    **dict.fromkeys((aten.sum.dim_IntList, aten.mean.dim, aten.amax.default, aten.amin.default), lower_reduction),
    **dict.fromkeys(
        (
            aten.chunk.default,
            aten.select.int,
            aten.slice.Tensor,
            aten.softmax.int,
            aten._softmax.default,
            aten.split.Tensor,
            aten.split_with_sizes.default,
            aten.unbind.int,
            aten.index_select.default,
        ),
        lower_along,
    ),
    **dict.fromkeys((aten.linear.default, aten.layer_norm.default), lower_last),
    **dict.fromkeys((aten.matmul.default, aten.scaled_dot_product_attention.default), lower_product),
    aten.cat.default: lower_cat,
    aten.expand.default: lower_expand,
    aten.stack.default: lower_stack,
}
