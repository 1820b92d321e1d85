"""Constant factors and offsets in front of a Linear, folded into it."""

from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node

from bigvit_edge.export.graph import read_constants

aten = torch.ops.aten
RESHAPES = {
    *(aten.view.default, aten.reshape.default, aten.view_as.default, aten.reshape_as.default),
    *(aten.flatten.using_ints, aten.unflatten.int, aten.unsqueeze.default, aten.squeeze.dim, aten.contiguous.default),
}


def fold_inputs(program: ExportedProgram) -> None:
    """Fold into a Linear the batch norm of its inputs, and factors and offsets a channel: W(g x + s) + b is
    (W g) x + (W s + b). LiteRT's converter does so by itself, and then nobody knows the weight again."""
    for linear in program.graph.find_nodes(op="call_function", target=aten.linear.default):
        while _fold(program, linear):
            pass


def _fold(program: ExportedProgram, linear: Node) -> bool:
    """Whether there was anything to fold."""
    keys, data = program.graph_signature.inputs_to_parameters, read_constants(program)
    weight, bias = linear.args[1], linear.args[2] if len(linear.args) > 2 else None
    norm = _find_source(linear)
    own = [node for node in (weight, bias) if isinstance(node, Node)]
    if norm is None or any(node.name not in keys or len(node.users) > 1 for node in own):
        return False
    scaled = _read_scale(norm, data)
    if scaled is None:
        return False
    value, scale, shift = scaled
    if bias is None and shift is not None:
        return False
    folded = {weight: data[own[0]] * scale} if scale is not None else {}
    if shift is not None:
        folded[bias] = data[own[1]] + data[own[0]] @ shift
    for node, new in folded.items():
        assert isinstance(node, Node)
        program.state_dict[keys[node.name]] = torch.nn.Parameter(new, requires_grad=False)
    norm.replace_all_uses_with(value)
    program.graph.erase_node(norm)
    return True


def _find_source(linear: Node) -> Node | None:
    """What the Linear reads, through changes of shape that keep its last dimension; None if others read it as well."""
    reader = linear
    while True:
        node = reader.args[0]
        if not isinstance(node, Node) or len(node.users) > 1 or not node.args:
            return None
        keeps = node.target in RESHAPES and _shape(node)[-1] == _shape(node.args[0])[-1]
        if not keeps:
            return node
        reader = node


def _read_scale(node: Node, data: dict[Node, Tensor]) -> tuple[Node, Tensor | None, Tensor | None] | None:
    """What the node scales, and by which factor and offset [C], of its last dimension; None if it is no such op."""
    args: tuple[Any, ...] = node.args
    if node.target is aten.batch_norm.default and len(_shape(node)) == 2:
        value, gain, offset, mean, variance, training, _, eps, *_ = args
        if training or mean is None:
            return None
        scale = (data[variance] + eps).rsqrt() * (1 if gain is None else data[gain])
        return value, scale, (0 if offset is None else data[offset]) - data[mean] * scale
    if node.target in (aten.mul.Tensor, aten.add.Tensor) and not node.kwargs:
        for value, constant in (args, args[::-1]):
            vector = data.get(constant) if isinstance(constant, Node) else None
            if vector is not None and isinstance(value, Node) and _shape(value) == _shape(node):
                if vector.numel() != _shape(node)[-1] or list(vector.shape[-1:]) != [vector.numel()]:
                    return None
                flat = vector.reshape(-1)
                return (value, flat, None) if node.target is aten.mul.Tensor else (value, None, flat)
    return None


def _shape(node: Any) -> tuple[int, ...]:
    return tuple(node.meta["val"].shape)
