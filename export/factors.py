"""Factors and offsets of channels (batch norm, LayerScale, 1/sqrt(d)), folded into the product beside them.

y = factor * x + offset, channel by channel, is linear: a Linear or convolution that alone makes x can have both in its
weight and bias, and so can one that alone reads y. Between them may lie what moves numbers and changes none.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node

from bigvit_edge.export.graph import add_constant, insert, read_constants, replace_node
from bigvit_edge.export.products import (
    OPTIONS,
    PADDING,
    list_options,
    owns_weights,
    read_weights,
    to_pair,
    write_weights,
)

aten = torch.ops.aten
MOVES = {
    aten.view.default, aten.reshape.default, aten.flatten.using_ints, aten.unflatten.int, aten._unsafe_view.default,
    aten.transpose.int, aten.permute.default, aten.clone.default, aten.contiguous.default,
    aten.unsqueeze.default, aten.squeeze.default, aten.squeeze.dim,
}  # fmt: skip


@dataclass(frozen=True)
class Affine:
    """The factor and offset that a node applies to `value`.

    It computes factor * value + offset, both [C] along `axis`, or one number for all, axis None.
    """

    value: Node
    factor: Tensor | None
    offset: Tensor | None
    axis: int | None


def fold_factors(program: ExportedProgram) -> None:
    """Fold what scales and shifts channels into a Linear or convolution.

    It goes into the one before it, else the one behind it: batch norms, LayerScale, 1/sqrt(d). Where a padding of zeros
    lies between, only a factor moves past it.
    """
    for find, scale, step in ((find_before, scale_outputs, 1), (find_behind, scale_inputs, -1)):
        for node in list(program.graph.nodes)[::step]:  # of two in a row, the one next to the product first
            data = read_constants(program) if node.target in READERS else {}
            affine = READERS[node.target](node, data) if data else None
            if affine and (product := find(node, affine, data)):
                scale(program, product, affine, data)
                replace_node(program, node, affine.value)


def write_norms_as_factors(program: ExportedProgram) -> None:
    """Write batch norms of tokens or rows as product and sum.

    No converter knows them by heart.
    """
    for norm in program.graph.find_nodes(op="call_function", target=aten.batch_norm.default):
        affine = read_batch_norm(norm, read_constants(program))
        rank = norm.meta["val"].dim()
        if affine is None or affine.factor is None or affine.offset is None or rank > 3:
            continue
        shape = (-1, *[1] * (rank - 2))
        vectors = (("factor", affine.factor), ("offset", affine.offset))
        factor, offset = (add_constant(program, f"{norm.name}.{name}", v.view(shape)) for name, v in vectors)
        product = insert(norm, aten.mul.Tensor, affine.value, factor)
        replace_node(program, norm, insert(norm, aten.add.Tensor, product, offset))


# ---- what a node does to channels ------------------------------------------------------------------------------------


def read_batch_norm(norm: Node, data: dict[Node, Tensor]) -> Affine | None:
    arguments: tuple[Any, ...] = norm.args
    value, *vectors, training, _, eps, _ = arguments
    if training or vectors[2] is None or any(v is not None and v not in data for v in vectors):
        return None
    gain, bias, mean, variance = vectors
    factor = (data[variance] + eps).rsqrt()
    factor = factor if gain is None else factor * data[gain]
    offset = -data[mean] * factor
    return Affine(value, factor, offset if bias is None else offset + data[bias], 1)


def read_product(node: Node, data: dict[Node, Tensor]) -> Affine | None:
    """Read a product with a number or a constant for each channel.

    x * c, c * x or x / c.
    """
    arguments: tuple[Any, ...] = node.args
    for value, other in (arguments, arguments[::-1])[: 1 if node.target is aten.div.Tensor else 2]:
        factor = torch.tensor(float(other)) if isinstance(other, int | float) else data.get(other)
        if factor is None or not isinstance(value, Node) or value in data or not factor.is_floating_point():
            continue
        factor = factor.reciprocal() if node.target is aten.div.Tensor else factor
        shape = node.meta["val"].shape
        if value.meta["val"].shape != shape or value.meta["val"].dtype != factor.dtype:
            continue
        wide = [dim for dim, size in enumerate(factor.shape, len(shape) - factor.dim()) if size > 1]
        if len(wide) <= 1:
            return Affine(value, factor.flatten(), None, wide[0] if wide else None)
    return None


def read_sum(node: Node, data: dict[Node, Tensor]) -> Affine | None:
    """Read a sum with a constant for each channel.

    x + c or c + x.
    """
    product = None if node.kwargs else read_product(node, data)
    return (
        None if product is None or product.axis is None else Affine(product.value, None, product.factor, product.axis)
    )


READERS: dict[Any, Any] = {
    aten.batch_norm.default: read_batch_norm,
    aten.add.Tensor: read_sum,
    aten.mul.Tensor: read_product,
    aten.div.Tensor: read_product,
}


# ---- the product next to it ------------------------------------------------------------------------------------------


def find_before(node: Node, affine: Affine, data: dict[Node, Tensor]) -> Node | None:
    """Find the product that alone makes what a node scales.

    Its channels are the node's axis, and it is read nowhere else.
    """
    node, axis = affine.value, affine.axis
    while len(node.users) == 1:
        if node.target in OPTIONS:
            right = axis is None or axis == find_channels(node, node.meta["val"].dim())
            return node if right and owns_weights(node, data) else None
        source = node.args[0] if node.args else None
        if node.target not in MOVES or not isinstance(source, Node):
            return None
        if axis is not None:
            rank = source.meta["val"].dim()
            axis = next((dim for dim in range(rank) if carry(node, dim) == axis), -1)
        node = source
    return None


def find_behind(node: Node, affine: Affine, data: dict[Node, Tensor]) -> Node | None:
    """Find the product that alone reads what a node gives.

    Its input channels are the node's axis.
    """
    axis = affine.axis
    while len(node.users) == 1 and axis is not None:
        (user,) = node.users
        if user.target in OPTIONS and user.args[0] is node:
            right = axis == find_channels(user, node.meta["val"].dim())
            return user if right and owns_weights(user, data) and passes(user, affine.offset) else None
        if user.target not in MOVES:
            return None
        axis, node = carry(user, axis), user
    return None


def find_channels(product: Node, rank: int) -> int:
    return rank - 1 if product.target is aten.linear.default else 1


def passes(product: Node, offset: Tensor | None) -> bool:
    """Tell whether factor and offset may move past a product's padding.

    offset: None if there is only a factor.
    """
    if product.target is aten.conv_transpose2d.input:
        return False
    padding = list_options(product)[2] if product.target in PADDING else 0
    return offset is None or padding == "valid" or (not isinstance(padding, str) and not any(to_pair(padding)))


def carry(move: Node, axis: int) -> int | None:
    """Find the axis of a move's output that its input's axis becomes.

    None if none does. The move itself tells: it is run on numbers that say where along the axis they stood.
    """
    arguments: tuple[Any, ...] = move.args
    shape = arguments[0].meta["val"].shape
    if shape[axis] == 1:
        return None
    moved = move.target(number_places(shape, axis).contiguous(), *arguments[1:], **move.kwargs)  # type: ignore[operator]
    same = (dim for dim, size in enumerate(moved.shape) if size == shape[axis])
    return next((dim for dim in same if torch.equal(moved, number_places(moved.shape, dim))), None)


def number_places(shape: torch.Size, axis: int) -> Tensor:
    return torch.arange(shape[axis], dtype=torch.int32).view(-1, *[1] * (len(shape) - axis - 1)).expand(shape)


# ---- its weights -----------------------------------------------------------------------------------------------------


def scale_outputs(program: ExportedProgram, product: Node, affine: Affine, data: dict[Node, Tensor]) -> None:
    """Scale a product's outputs: weight * factor, bias * factor + offset."""
    weight, bias, groups = read_weights(product, data)
    factor = affine.factor
    if factor is not None:
        bias = None if bias is None else bias * factor
        if product.target is aten.conv_transpose2d.input:  # [in, out / groups, ...]
            each = factor.expand(weight.shape[1] * groups).view(groups, 1, -1, *[1] * (weight.dim() - 2))
            weight = (weight.view(groups, -1, *weight.shape[1:]) * each).flatten(0, 1)
        else:
            weight = weight * factor.view(-1, *[1] * (weight.dim() - 1))
    if affine.offset is not None:
        bias = affine.offset if bias is None else bias + affine.offset
    write_weights(program, product, weight, bias)


def scale_inputs(program: ExportedProgram, product: Node, affine: Affine, data: dict[Node, Tensor]) -> None:
    """Scale a product's inputs: weight * factor, bias + weight * offset."""
    weight, bias, groups = read_weights(product, data)
    out, into, *rest = weight.shape
    factor, offset = (
        # [out, in / groups, 1, ...]
        None if v is None else v.view(groups, 1, -1).expand(-1, out // groups, -1).reshape(out, into, *[1] * len(rest))
        for v in (affine.factor, affine.offset)
    )
    if offset is not None:
        added = (weight * offset).flatten(1).sum(1)
        bias = added if bias is None else bias + added
    write_weights(program, product, weight if factor is None else weight * factor, bias)
