"""Convolutions side by side, merged into one: the branches that a network has for its training alone.

Convolutions of the same value, in the same steps, whose results are added are one convolution whose kernel is the sum
of theirs, the smaller set in the middle of the larger; the value itself is a kernel of one weight (Ding et al. 2021,
RepVGG, arXiv 2101.03697, section 3.3).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node
from torch.nn.functional import pad

from bigvit_edge.export.factors import read_batch_norm
from bigvit_edge.export.graph import read_constants, replace_node, shape_of
from bigvit_edge.export.products import list_options, owns_weights, read_weights, to_pair, write_weights

aten = torch.ops.aten


@dataclass(frozen=True)
class Branch:
    """A convolution whose middle stays in place.

    Its kernel is odd, and padded by its half.

    weight: [out, in / groups, h, w]; the others as of conv2d, pairs as lists of two.
    """

    value: Node
    weight: Tensor
    bias: Tensor | None
    stride: list[int]
    dilation: list[int]
    groups: int

    def contains(self, other: "Branch") -> bool:
        """Tell whether the other's kernel can be set into this one's."""
        (*_, height, width), (*_, rows, columns) = self.weight.shape, other.weight.shape
        same = (self.value, self.stride, self.groups) == (other.value, other.stride, other.groups)
        spread = self.dilation == other.dilation or rows == columns == 1
        channels = self.weight.shape[:2] == other.weight.shape[:2]
        return same and channels and spread and height >= rows and width >= columns


def merge_branches(program: ExportedProgram) -> None:
    """Merge sums and differences of convolutions of one value into a convolution.

    The value itself, or a batch norm of it, is a convolution of one weight a channel.
    """
    for total in [node for node in program.graph.nodes if node.target in SIGNS]:
        nodes: tuple[Any, ...] = total.args
        if total.kwargs or nodes[0] is nodes[1] or not all(isinstance(node, Node) for node in nodes):
            continue
        data = read_constants(program)
        for base, added in (nodes, nodes[::-1]):
            large = _read_branch(base, data)
            small = large and (_read_branch(added, data) or _read_channels(added, large, data))
            if large and small and large.contains(small):
                signs = (1.0, SIGNS[total.target]) if base is nodes[0] else (SIGNS[total.target], 1.0)
                write_weights(program, base, *_add(large, small, signs))
                replace_node(program, total, base)
                break


SIGNS = {aten.add.Tensor: 1.0, aten.sub.Tensor: -1.0}  # of what is added second


def _add(large: Branch, small: Branch, signs: tuple[float, float]) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of both, the smaller kernel in the middle of the larger."""
    sizes = zip(large.weight.shape[2:], small.weight.shape[2:], strict=True)
    rows, columns = ((whole - part) // 2 for whole, part in sizes)
    weight = signs[0] * large.weight + signs[1] * pad(small.weight, (columns, columns, rows, rows))
    biases = [sign * part.bias for sign, part in zip(signs, (large, small), strict=True) if part.bias is not None]
    return weight, torch.stack(biases).sum(0) if biases else None


def _read_branch(node: Node, data: dict[Node, Tensor]) -> Branch | None:
    """A convolution that is read once, with weights of its own."""
    if node.target is not aten.conv2d.default or len(node.users) != 1 or not owns_weights(node, data):
        return None
    _, stride, padding, dilation, groups = list_options(node)
    stride, padding, dilation = map(to_pair, (stride, padding, dilation))
    weight, bias, _ = read_weights(node, data)
    halves = [(size - 1) * step // 2 for size, step in zip(weight.shape[2:], dilation, strict=True)]
    if padding != halves or not all(size % 2 for size in weight.shape[2:]) or len(shape_of(node)) != 4:
        return None
    return Branch(node.args[0], weight, bias, stride, dilation, groups)  # type: ignore[arg-type]


def _read_channels(node: Node, beside: Branch, data: dict[Node, Tensor]) -> Branch | None:
    """What a convolution reads, or a batch norm of it, as a convolution of one weight a channel."""
    out, into, *_ = beside.weight.shape
    value = node
    factor: Tensor | None = torch.ones(out)
    offset: Tensor | None = None
    if node.target is aten.batch_norm.default and len(node.users) == 1 and (affine := read_batch_norm(node, data)):
        value, factor, offset = affine.value, affine.factor, affine.offset
    if factor is None or value is not beside.value or out != into * beside.groups or beside.stride != [1, 1]:
        return None
    places = torch.eye(into, dtype=beside.weight.dtype).repeat(beside.groups, 1)  # [out, in / groups]
    weight = (factor.unsqueeze(1) * places).view(out, into, 1, 1)
    return Branch(value, weight, offset, [1, 1], [1, 1], beside.groups)
