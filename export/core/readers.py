"""The ATen ops that a program can compute: one reader each, in READERS. What has none is a leftover.

A reader is given the reading and the node, then the node's arguments. It adds ops to the body, and returns where the
elements of what the node gives lie, as Places numbers them. It raises Refusal on options that it cannot take.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node
from torch.fx.node import map_arg

from bigvit_edge.export.core.ir import (
    Add,
    Attention,
    Body,
    Gate,
    Gelu,
    Kind,
    Linear,
    Mix,
    Norm,
    Op,
    Patches,
    Route,
    Scale,
    Scores,
    Softmax,
    Value,
    Weights,
    count_rows,
    view_of,
)
from bigvit_edge.export.core.reading import Leftover, Reader, Reading, Refusal
from bigvit_edge.export.graph import Piece, read_constants, shape_of, weight_name
from bigvit_edge.export.products import to_pair
from bigvit_edge.export.program import BufferType
from bigvit_edge.models.dispatch import DISPATCH

aten = torch.ops.aten


# ---- what moves elements ---------------------------------------------------------------------------------------------


def read_move(to: Reading, node: Node, *args: Any, **kwargs: Any) -> Any:
    """Read what computes nothing, by running it on its input's numbers."""
    if to.left.issuperset(node.all_input_nodes):
        return to.leave(node)
    args, kwargs = map_arg((args, kwargs), to.place)
    return node.target(*args, **kwargs)  # type: ignore[operator]


MOVES: dict[Any, Reader] = dict.fromkeys(
    (
        aten.cat.default, aten.chunk.default, aten.clone.default, aten.contiguous.default, aten.expand.default,
        aten.flatten.using_ints, aten.mT.default, aten.movedim.int, aten.narrow.default, aten.permute.default,
        aten.reshape.default,
        aten.select.int, aten.slice.Tensor, aten.split.Tensor, aten.split_with_sizes.default, aten.squeeze.default,
        aten.squeeze.dim, aten.stack.default, aten.t.default, aten.transpose.int, aten.unbind.int,
        aten.unflatten.int, aten.unsqueeze.default, aten.view.default, aten._unsafe_view.default,
    ),
    read_move,
)  # fmt: skip


# ---- products --------------------------------------------------------------------------------------------------------


def read_linear(to: Reading, node: Node, x: Node, weight: Node, bias: Node | None = None) -> Tensor:
    src, data = to.find_rows(x), to.take(weight, "weight")
    weights = read_weights(to, node, weight, data, bias)
    kind = Linear((weights,), data.shape[0])
    return to.add(kind, node, count_rows(src), data.shape[0], weights.layer, src=src).view(shape_of(node))


def read_weights(to: Reading, node: Node, weight: Node, data: Tensor, bias: Node | None) -> Weights:
    """Read the weight [out, in] and bias of a product."""
    given = None if bias is None else to.take(bias, "bias").float()
    return Weights(to.name_layer(node, weight), data.float(), given)


def read_convolution(
    to: Reading, node: Node, x: Node, weight: Node, bias: Node | None = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Read a convolution over patches of an image that do not overlap."""
    data = to.take(weight, "weight")  # [out, 3, side, side]
    out, channels, side, width = data.shape
    *_, size, other = shape_of(x)
    plain = to_pair(padding) == [0, 0] and to_pair(dilation) == [1, 1] and groups == 1
    is_square = (channels, side, size) == (3, width, other)
    if not plain or to_pair(stride) != [side, width] or not is_square:
        raise Refusal("bve convolves a square image alone, over squares that do not overlap")
    if size % side:
        raise Refusal(f"an image of {size} pixels; expected a multiple of the patch, {side}")
    if x not in to.given:
        to.refuse(x, "it makes an image, which bve takes as it is given")
        to.leave(x)
    count = size // side
    layer = to.name_layer(node, weight)
    to.add(Patches(side), node, count**2, channels * side**2, layer, src=to.find_rows(x))
    pixels = to.body.ops[-1].view
    kind = Linear((read_weights(to, node, weight, data.flatten(1), bias),), out)
    return to.add(kind, node, count**2, out, layer, src=(pixels,)).T.reshape(shape_of(node))


def read_product(to: Reading, node: Node, a: Node, b: Node) -> Tensor:
    """Read a product of two computed matrices.

    Of attention: scores, or what they mix.
    """
    first, second = (to.place(x).flatten(0, -3) for x in (a, b))  # [heads, rows, d], [heads, d, keys]
    heads, rows, _ = first.shape
    if isinstance(find_maker(to, first), Softmax):
        src = to.places.find_views(first.reshape(heads * rows, -1))
        other = to.places.find_views(merge_heads(second))
        width = other[0].columns // heads
        numbers = to.add(Mix(heads), node, rows, heads * width, src=src, other=other)
        return numbers.view(rows, heads, width).transpose(0, 1).reshape(shape_of(node))
    src, other = (to.places.find_views(merge_heads(x)) for x in (first, second.transpose(1, 2)))
    return to.add(Scores(heads), node, heads * rows, count_rows(other), src=src, other=other).view(shape_of(node))


def find_maker(to: Reading, numbers: Tensor) -> Kind | None:
    """Find what makes the value that elements are of."""
    value = to.places.find_value(int(numbers.flatten()[0]))
    return next((op.kind for op in reversed(to.body.ops) if op.view.value is value), None)


def merge_heads(numbers: Tensor) -> Tensor:
    """[heads, rows, width] -> [rows, heads * width]."""
    return numbers.transpose(0, 1).reshape(numbers.shape[1], -1)


def read_attention(
    to: Reading, node: Node, q: Node, k: Node, v: Node, mask: Node | None = None, dropout: float = 0.0,
    causal: bool = False, *, scale: float | None = None, enable_gqa: bool = False, **words: Any,
) -> Tensor:  # fmt: skip
    given = words.get("attn_mask") if mask is None else mask
    if not is_open(to, given) or dropout or causal or enable_gqa:
        raise Refusal("bve attends to all rows alike, without mask, dropout or shared heads")
    parts = [to.place(x).flatten(0, -3) for x in (q, k, v)]  # [heads, rows, width]
    heads, rows, width = parts[0].shape
    src, key, value = (to.places.find_views(merge_heads(part)) for part in parts)
    kind = Attention(heads, width**-0.5 if scale is None else scale)
    numbers = to.add(kind, node, rows, value[0].columns, src=src, key=key, value=value)
    return numbers.view(rows, heads, -1).transpose(0, 1).reshape(shape_of(node))


def is_open(to: Reading, mask: Node | None) -> bool:
    """Tell whether a mask lets everything through."""
    if mask is None or mask not in to.data:
        return mask is None
    data = to.data[mask]
    return bool((data if data.dtype == torch.bool else data == 0).all())


# ---- what works on rows and elements ---------------------------------------------------------------------------------


def read_norm(
    to: Reading, node: Node, x: Node, shape: list[int], gain: Node | None = None, offset: Node | None = None,
    epsilon: float = 1e-5, _: bool = True,
) -> Tensor:  # fmt: skip
    src = to.find_rows(x)
    (columns,) = shape
    data = torch.ones(columns) if gain is None else to.take(gain, "gain")
    shift = torch.zeros(columns) if offset is None else to.take(offset, "offset")
    layer = to.name_layer(node, gain)
    kind = Norm(layer, data, shift, epsilon)
    return to.add(kind, node, count_rows(src), columns, layer, src=src).view(shape_of(node))


def read_gelu(to: Reading, node: Node, x: Node, *, approximate: str = "none") -> Tensor:
    if approximate != "none":
        raise Refusal(f"gelu by {approximate}, where bve has the exact one")
    order, (src,) = to.places.arrange(to.place(x))
    return to.add_alike(Gelu(), node, order, src=src)


def read_softmax(to: Reading, node: Node, x: Node, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    if dim % len(shape_of(node)) != len(shape_of(node)) - 1:
        raise Refusal("a softmax over another than the last dimension")
    src = to.find_rows(x)
    return to.add(Softmax(), node, count_rows(src), src[0].columns, src=src).view(shape_of(node))


def read_sum(to: Reading, node: Node, a: Any, b: Any, *, alpha: Any = 1) -> Tensor:
    if alpha != 1 or not isinstance(a, Node) or not isinstance(b, Node):
        raise Refusal("a sum with a number, where bve adds rows to rows")
    order, (src, other) = to.places.arrange(*(to.place(x).expand(shape_of(node)) for x in (a, b)))
    return to.add_alike(Add(), node, order, src=src, other=other)


def read_scaling(to: Reading, node: Node, a: Any, b: Any) -> Tensor:
    """Read a product with a number, or one a column.

    One a row may be computed.
    """
    x, other = (b, a) if not isinstance(a, Node) or a in to.data else (a, b)
    shape = shape_of(node)
    if isinstance(other, Node) and other not in to.data:
        return read_gating(to, node, x, other)
    order, (src,) = to.places.arrange(to.place(x).expand(shape))
    factor = to.data[other] if isinstance(other, Node) else torch.tensor(float(other))
    factors = factor.float().expand(shape).flatten()[order].view(-1, src[0].columns)
    if not torch.equal(factors, factors[:1].expand_as(factors)):
        raise Refusal("a factor that differs from row to row, where bve has one for each column")
    return to.add_alike(Scale(factors[0].clone()), node, order, src=src)


def read_gating(to: Reading, node: Node, a: Node, b: Node) -> Tensor:
    shape = shape_of(node)
    x, gate = (a, b) if shape_of(a) == shape else (b, a)
    if shape_of(gate) != (*shape[:-1], 1) or shape_of(x) != shape:
        raise Refusal("a product of two computed values")
    src, factors = to.find_rows(x), to.places.find_views(to.place(gate).reshape(1, -1))
    return to.add(Gate(), node, count_rows(src), shape[-1], src=src, gate=factors).view(shape)


def read_division(to: Reading, node: Node, a: Any, b: Any) -> Tensor:
    if isinstance(b, Node):
        raise Refusal("a division by anything but a number")
    return read_scaling(to, node, a, 1 / b)


# ---- routing ---------------------------------------------------------------------------------------------------------


def read_route(
    to: Reading, node: Node, x: Node, z: Node, gain: Node, offset: Node, weight: Node, bias: Node, epsilon: float,
    k: int,
) -> tuple[Tensor, Tensor, Tensor, None]:  # fmt: skip
    """Read a router.

    x and z come out as values of their own, whose first k rows are the selected ones.
    """
    src, layer = to.find_rows(z), to.name_layer(node, weight)
    if any(user.args[1] == 3 and user.users for user in node.users):
        raise Refusal("the order of its tokens is read, which bve never makes")
    n, at = count_rows(src), layer.rpartition(".")[0]
    norm = Norm(to.name_layer(node, gain), to.take(gain, "gain"), to.take(offset, "offset"), epsilon)
    kind = Route(layer, norm, to.take(weight, "weight"), to.take(bias, "bias"), k)
    made = {"selected": Value(1, k, BufferType.I32, name="selected")}
    if k < n:
        made["skipped"] = Value(1, n - k, BufferType.I32, name="skipped")
    made["gate"] = Value(1, k)
    gate = to.places.add(made["gate"]).view(1, k, 1)
    if k == n:  # the order is as it was
        first, second = to.place(x), to.place(z)
        reads = {"src": src}
    else:
        made |= {"x": Value(n, shape_of(x)[-1]), "z": Value(n, shape_of(z)[-1])}
        first, second = (to.places.add(made[name]).view(shape_of(t)) for name, t in (("x", x), ("z", z)))
        reads = {"src": src, "x": to.find_rows(x)}
    to.body.ops.append(Op(kind, reads, {name: view_of(value) for name, value in made.items()}, node, at))
    return first, second, gate, None


READERS: dict[Any, Reader] = {
    aten.linear.default: read_linear,
    aten.conv2d.default: read_convolution,
    aten.bmm.default: read_product,
    aten.matmul.default: read_product,
    aten.scaled_dot_product_attention.default: read_attention,
    aten.layer_norm.default: read_norm,
    aten.gelu.default: read_gelu,
    aten.softmax.int: read_softmax,
    aten._softmax.default: read_softmax,
    aten.add.Tensor: read_sum,
    aten.mul.Tensor: read_scaling,
    aten.div.Tensor: read_division,
    DISPATCH: read_route,
}


def list_patches(program: ExportedProgram, pieces: Sequence[Piece] = ()) -> list[str]:
    """List the layers that make tokens of patches.

    They are all convolutions of pieces, or of a graph, without leftovers.
    """
    nodes = [node for piece in pieces or [take_whole(program)] for node in piece.nodes]
    convolutions = [node for node in nodes if node.target is aten.conv2d.default]
    return [(weight_name(program, node) or "").removesuffix(".weight") for node in convolutions]


def read_graph(program: ExportedProgram, piece: Piece | None = None) -> tuple[Body, list[Leftover]]:
    """Read the ops of a graph or piece and its leftovers."""
    piece = piece or take_whole(program)
    reading = Reading(program, MOVES | READERS, piece)
    reading.run(piece)
    nodes, reading.body.answers = (*piece.inputs, *piece.outputs), list(piece.outputs)
    reading.body.ports = [(node.name, shape_of(node)) for node in nodes]
    return reading.body, reading.leftovers


def take_whole(program: ExportedProgram) -> Piece:
    """Take all of a graph as one piece."""
    constants, graph = read_constants(program), program.graph
    inputs = tuple(node for node in graph.find_nodes(op="placeholder") if node not in constants)
    (outputs,) = graph.output_node().args
    return Piece(tuple(node for node in graph.nodes if node.op == "call_function"), inputs, tuple(outputs))
