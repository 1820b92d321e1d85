"""Linears and convolutions of a graph: their options, weights and biases, and the zeros set around what they read."""

from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node

from bigvit_edge.export.graph import add_constant, set_constant, shape_of

aten = torch.ops.aten
CONVOLUTIONS = {aten.conv2d.default, aten.conv_transpose2d.input}  # of images
PRODUCTS = CONVOLUTIONS | {aten.linear.default}
# those that set zeros around what they read
PADDING = {aten.conv1d.default, aten.conv2d.default, aten.conv1d.padding, aten.conv2d.padding}
PADS = {aten.pad.default, aten.constant_pad_nd.default}
# arguments behind the weight, where they are not given: bias, stride, padding, dilation, groups; of a transposed one
# bias, stride, padding, padding of the output, groups, dilation
OPTIONS: dict[Any, tuple[Any, ...]] = {
    aten.linear.default: (None,),
    **dict.fromkeys((aten.conv1d.default, aten.conv1d.padding), (None, [1], [0], [1], 1)),
    **dict.fromkeys((aten.conv2d.default, aten.conv2d.padding), (None, [1, 1], [0, 0], [1, 1], 1)),
    aten.conv_transpose2d.input: (None, [1, 1], [0, 0], [0, 0], 1, [1, 1]),
}
GROUPS: dict[Any, int] = {**dict.fromkeys(PADDING, 6), aten.conv_transpose2d.input: 6}  # which of all arguments


def list_options(product: Node) -> list[Any]:
    """List a product's arguments behind its weight."""
    given = product.args[2:]
    return [*given, *OPTIONS[product.target][len(given) :]]


def to_pair(value: Any) -> list[int]:
    """Give an option of two dimensions as a list of two."""
    given = list(value) if isinstance(value, list | tuple) else [value]
    return given * 2 if len(given) == 1 else given


def owns_weights(product: Node, data: dict[Node, Tensor]) -> bool:
    """Tell whether a product alone reads its weight and bias.

    They are constants then.
    """
    weights = [a for a in product.args[1:3] if a is not None]
    if not all(isinstance(w, Node) and w in data and len(w.users) == 1 for w in weights):
        return False
    return product.target is aten.linear.default or product.meta["val"].dim() == len(shape_of(product.args[1]))


def read_weights(product: Node, data: dict[Node, Tensor]) -> tuple[Tensor, Tensor | None, int]:
    """Read a product's weight, bias and groups."""
    arguments: tuple[Any, ...] = (*product.args[:2], *list_options(product))
    place = GROUPS.get(product.target)
    return data[arguments[1]], data.get(arguments[2]), arguments[place] if place else 1


def write_weights(program: ExportedProgram, product: Node, weight: Tensor, bias: Tensor | None) -> None:
    """Write a product's weight and bias in place of its own."""
    arguments: tuple[Any, ...] = product.args
    set_constant(program, arguments[1], weight)
    given = (*arguments, None)[2]
    if given is not None and bias is not None:
        set_constant(program, given, bias)
    elif bias is not None:
        product.args = (*arguments[:2], add_constant(program, f"{product.name}.bias", bias), *arguments[3:])


def list_rows(product: Node, weight: Tensor) -> Tensor:
    """List a product's weight by output channel, [out, ...].

    Twice gives it back: a transposed convolution's is [in, out / groups, ...].
    """
    return weight.transpose(0, 1) if product.target is aten.conv_transpose2d.input else weight


def scale_rows(product: Node, weight: Tensor, scale: Tensor) -> Tensor:
    """Multiply a product's weight by a scale for each output channel [out]."""
    rows = list_rows(product, weight)
    return list_rows(product, rows * scale.view(-1, *[1] * (rows.dim() - 1)))


def find_zeros(node: Node) -> tuple[int, int, int, int] | None:
    """Find how many zeros a padding sets around an image.

    On the left, the right, above and below. None where it is no padding, or pads otherwise.
    """
    arguments: tuple[Any, ...] = node.args
    if node.target not in PADS or node.kwargs or len(shape_of(arguments[0])) != 4:
        return None
    _, sides, *how = arguments
    zeros = how in ([], [0], ["constant"], ["constant", None], ["constant", 0])
    left, right, above, below = (*sides, 0, 0, 0, 0)[:4]
    return (left, right, above, below) if zeros and len(sides) <= 4 and min(sides) >= 0 else None
