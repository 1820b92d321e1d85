"""Graph rewrites that help every backend: the same function, fewer ops."""

from typing import Any

import torch
import torch.ao.quantization.fx._decomposed  # defines torch.ops.quantized_decomposed
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node
from torch.fx.node import map_arg

from bigvit_edge.export.branches import merge_branches
from bigvit_edge.export.equivalents import write_equivalents
from bigvit_edge.export.factors import fold_factors, write_norms_as_factors
from bigvit_edge.export.functionalization import functionalize
from bigvit_edge.export.graph import (
    add_constant,
    copy_program,
    insert,
    read_constants,
    replace_node,
    set_constant,
    shape_of,
)
from bigvit_edge.export.inlay import PROGRAM
from bigvit_edge.export.products import find_zeros, list_options, to_pair

aten = torch.ops.aten
LIKE = {
    aten.reshape_as.default: aten.reshape.default,
    aten.view_as.default: aten.reshape.default,
    aten.expand_as.default: aten.expand.default,
}
ALIASES = {aten.alias.default, aten.detach.default, aten.lift_fresh_copy.default}
KEEPERS = {
    aten.slice.Tensor,
    aten.reshape.default,
    aten.view.default,
    aten.to.dtype,
    aten._to_copy.default,
    aten.expand.default,
}
SUMS = {aten.add.Tensor, aten.sub.Tensor}
DROPOUTS = {aten.dropout.default, aten.feature_dropout.default, aten.alpha_dropout.default}
FLATTENS = (aten.flatten.using_ints, aten.view.default, aten.reshape.default)
# What stays an op though it reads constants alone: a program of ours, and integer weights, which kernels read as such.
KEPT = {
    PROGRAM,
    torch.ops.quantized_decomposed.dequantize_per_channel.default,
    torch.ops.quantized_decomposed.dequantize_per_channel_group.default,
}


def rewrite_all(exported: ExportedProgram) -> ExportedProgram:
    """Apply every rewrite, on a copy.

    Weights stay shared with the original except those that change.
    """
    program = copy_program(exported)
    for rewrite in (
        functionalize,
        write_equivalents,
        write_shapes,
        drop_copies,
        write_rolls,
        fold_constants,
        drop_open_masks,
        fold_padding,
        fold_factors,
        merge_branches,
        fold_factors,
        write_norms_as_factors,
        write_patches_as_linear,
    ):
        rewrite(program)
        program.graph.eliminate_dead_code()
    program.graph_module.recompile()
    return program


def write_shapes(program: ExportedProgram) -> None:
    """Write shapes that are another value's as numbers.

    That value is not read for them any more.
    """
    for node in program.graph.nodes:
        if node.target in LIKE:
            node.args, node.target = (node.args[0], list(shape_of(node))), LIKE[node.target]


def drop_copies(program: ExportedProgram) -> None:
    """Drop what gives its input as it is.

    x + 0, x[:, :n] of n columns and aliases, which is what torch.export makes of x[:], dropout, casts to the type
    that a value has; and torch.export's own checks of types.
    """
    for node in list(program.graph.nodes):
        if node.target is aten._assert_tensor_metadata.default:
            program.graph.erase_node(node)
            continue
        keeps = node.target in KEEPERS and _type(node) == _type(node.args[0])
        keeps |= node.target in SUMS and node.args[1] == 0 and _type(node) == _type(node.args[0])
        if keeps or node.target in ALIASES or (node.target in DROPOUTS and not node.args[2]):
            replace_node(program, node, node.args[0])


def write_rolls(program: ExportedProgram) -> None:
    """Write a roll as the two parts that it exchanges.

    Converters make gathers of computed places of it.
    """
    for roll in list(program.graph.find_nodes(op="call_function", target=aten.roll.default)):
        arguments: tuple[Any, ...] = roll.args
        value, shifts, dims = (*arguments, [])[:3]
        if not dims:  # of the whole value in one row
            continue
        for shift, dim in zip(shifts, dims, strict=True):
            size = shape_of(roll)[dim]
            if place := -shift % size:
                head, tail = (
                    insert(roll, aten.slice.Tensor, value, dim, *ends) for ends in ((place, size), (0, place))
                )
                value = insert(roll, aten.cat.default, [head, tail], dim)
        replace_node(program, roll, value)


def fold_constants(program: ExportedProgram) -> None:
    """Compute now what does not depend on the image.

    zeros_like and its kin take only a shape from their input, new_zeros and its kin only a type.
    """
    known = read_constants(program)
    folded: dict[Node, Tensor] = {}
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if node.op != "call_function" or not isinstance(value, Tensor) or node.target in KEPT:
            continue
        if node.target in (aten.zeros_like.default, aten.ones_like.default, aten.full_like.default):
            folded[node] = node.target(torch.empty(value.shape, dtype=value.dtype), *node.args[1:])
        elif node.target in (aten.new_zeros.default, aten.new_ones.default, aten.new_full.default):
            typed = torch.empty(0, dtype=node.all_input_nodes[0].meta["val"].dtype)
            folded[node] = node.target(typed, *node.args[1:], **node.kwargs)
        elif not draws(node) and all(n in known or n in folded for n in node.all_input_nodes):
            args, kwargs = map_arg((node.args, node.kwargs), lambda n: folded[n] if n in folded else known[n])
            folded[node] = node.target(*args, **kwargs)
    for node, data in folded.items():
        if any(user not in folded for user in node.users):
            constant = add_constant(program, f"folded.{node.name}", data.contiguous().clone())
            node.replace_all_uses_with(constant, delete_user_cb=lambda user: user not in folded)


def drop_open_masks(program: ExportedProgram) -> None:
    """Drop masks of attention that let everything through, as transformers gives them."""
    known = read_constants(program)
    for node in program.graph.find_nodes(op="call_function", target=aten.scaled_dot_product_attention.default):
        given = [*node.args[3:4], *(value for key, value in node.kwargs.items() if key == "attn_mask")]
        if given and given[0] in known and known[given[0]].dtype == torch.bool and known[given[0]].all():
            node.args = (*node.args[:3], *((None, *node.args[4:]) if node.args[3:] else ()))
            node.kwargs = {key: value for key, value in node.kwargs.items() if key != "attn_mask"}


def fold_padding(program: ExportedProgram) -> None:
    """Fold zeros around an image into a convolution's padding.

    The convolution alone reads them.

    They are as many on either side; a convolution knows no other padding.
    """
    for conv in program.graph.find_nodes(op="call_function", target=aten.conv2d.default):
        pad: Any = conv.args[0]
        zeros = find_zeros(pad) if len(pad.users) == 1 else None
        if zeros is None or zeros[::2] != zeros[1::2]:
            continue
        bias, stride, padding, *others = list_options(conv)
        rows, columns = to_pair(padding)
        padding = [rows + zeros[2], columns + zeros[0]]
        conv.args = (pad.args[0], conv.args[1], bias, stride, padding, *others)


def draws(node: Node) -> bool:
    """Tell whether an op takes random numbers, or may."""
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def write_patches_as_linear(program: ExportedProgram) -> None:
    """Write a convolution over patches as a Linear over them.

    A convolution over patches that do not overlap, and the flatten and transpose that make tokens of its output, are a
    transpose and a Linear over whole patches: one product of inner length 3 * p * q, where XNNPACK's convolution sums p
    * q products of inner length 3 and wants its input copied to channels-last.

    The Linear's weight is a view, so it has no name in the state dict and stays float in int8; but where a patch is one
    pixel, for then it is a Linear over the channels of a feature map, and no embedding of an image.
    """
    for conv in program.graph.find_nodes(op="call_function", target=aten.conv2d.default):
        tokens = _find_tokens(conv)
        if tokens is None:
            continue
        arguments: tuple[Any, ...] = conv.args
        x, weight, (bias, stride, padding, dilation, groups) = *arguments[:2], list_options(conv)
        (b, channels, rows, columns), (out, _, height, width) = shape_of(x), shape_of(weight)
        plain = to_pair(padding) == [0, 0] and to_pair(dilation) == [1, 1] and groups == 1
        if to_pair(stride) != [height, width] or not plain or rows % height or columns % width:
            continue
        grid = [b, channels, rows // height, height, columns // width, width]
        size = channels * height * width
        pixels = insert(conv, aten.permute.default, insert(conv, aten.reshape.default, x, grid), [0, 2, 4, 1, 3, 5])
        pixels = insert(conv, aten.reshape.default, pixels, [b, grid[2] * grid[4], size])  # [B, N, 3 * p * q]
        if size == channels != 3 and len(weight.users) == 1 and weight in (known := read_constants(program)):
            set_constant(program, weight, known[weight].reshape(out, size))
            weight.meta["val"] = weight.meta["val"].reshape(out, size)
            flat = weight
        else:
            flat = insert(conv, aten.reshape.default, weight, [out, size])
        replace_node(program, tokens, insert(conv, aten.linear.default, pixels, flat, bias))


def _find_tokens(conv: Node) -> Node | None:
    """The node that holds a convolution's output [B, C, h, w] as tokens [B, h * w, C]; None if there is none, or if
    anything else reads what lies between."""
    flat = _only_user(conv)
    tokens = _only_user(flat) if flat else None
    if not flat or not tokens or len(shape_of(conv)) != 4:
        return None
    b, c, h, w = shape_of(conv)
    dims: tuple[Any, ...] = tokens.args[1:]
    flattens = flat.target in FLATTENS and shape_of(flat) == (b, c, h * w)
    swaps = tokens.target is aten.transpose.int and {dim % 3 for dim in dims} == {1, 2}
    permutes = tokens.target is aten.permute.default and dims == ([0, 2, 1],)
    return tokens if flattens and (swaps or permutes) else None


def _only_user(node: Node) -> Node | None:
    users = list(node.users)
    return users[0] if len(users) == 1 else None


def _type(node: Any) -> tuple[tuple[int, ...], torch.dtype]:
    return shape_of(node), node.meta["val"].dtype
