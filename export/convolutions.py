"""Weights and biases of convolutions in int8, chosen by what the int8 part itself meets on calibration images.

Three things are chosen. Weights by GPTQ (rounding.py) over the patches that a convolution reads, of which a few images
hold thousands; about their mean, which the bias takes. The bias so that each channel's mean is that of float (Nagel et
al. 2019, arXiv 1906.04721, section 4.2, measured rather than modelled): behind the activation that the kernel takes in,
for noise before a clip moves the mean behind it. And a scale wide enough for the bias.
"""

from collections.abc import Collection, Mapping, Sequence
from math import inf, prod

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node
from torch.nn.functional import pad

from bigvit_edge.artifact import Array
from bigvit_edge.export.emulation import convolve, emulate_integers
from bigvit_edge.export.graph import Graph, read_constants, shape_of
from bigvit_edge.export.integers import Range, Rounded
from bigvit_edge.export.placement import list_merged
from bigvit_edge.export.products import CONVOLUTIONS, list_options, list_rows, scale_rows, to_pair
from bigvit_edge.export.quantization import CHANNEL, LEAST, MOST_BIAS, choose_scale
from bigvit_edge.export.rounding import round_rows

aten = torch.ops.aten

IMAGES = 16  # that weights and biases are chosen on: 8 do nearly as well, 32 no better
ELEMENTS = 2**25  # of one value over all those images, at most: fewer are taken of large ones
ROWS = 2048  # patches for a moment, at the least; twice the inputs if that is more
INPUTS = 2304  # of one output, that are rounded by moments at most: their time grows with the cube
STEPS = 3  # towards a bias: a clip bends what it does
LIVE = 0.1  # share of a channel's values within the clip, at the least, that a step reckons with


def round_convolutions(
    graph: Graph, ops: Collection[Node], spans: Mapping[str, Range], images: Array
) -> dict[str, Rounded]:
    """Round the weights of the convolutions among the ops.

    ops and spans: as in Integers; images [n, 3, S, S] to calibrate on. The nearest integers and the graph's own biases
    where the graph has no calibration.
    """
    constants = read_constants(graph.exported)
    scales = _choose_scales([node for node in ops if node.target in CONVOLUTIONS], spans, constants)
    if graph.calibration is None or not scales:
        return {
            node.name: Rounded(_round_nearest(node, scale, constants), scale, None) for node, scale in scales.items()
        }
    merged, rounded, integers = list_merged(ops), dict[str, Rounded](), dict[Node, Tensor]()

    def choose(node: Node, inputs: list[Tensor], outputs: list[Tensor]) -> Rounded:
        weight, scale = node.all_input_nodes[1], scales[node]
        if weight not in integers:  # which another convolution may share
            integers[weight] = _round_by_inputs(node, scale, constants, inputs)
        found = Rounded(integers[weight], scale, None)
        made = torch.cat([convolve(node, value, found, constants) for value in inputs])
        own = constants.get(list_options(node)[0])
        shift = _match_means(made, torch.cat(outputs), _read_clip(node) if node in merged else (-inf, inf))
        bias = shift if own is None else own + shift
        rounded[node.name] = Rounded(found.integers, scale, _bound_bias(node, bias, scale, spans))
        return rounded[node.name]

    emulate_integers(graph.exported, ops, spans, _take_few(images, scales), choose)
    return rounded


# ---- scales and biases -----------------------------------------------------------------------------------------------


def _choose_scales(
    nodes: Sequence[Node], spans: Mapping[str, Range], constants: Mapping[Node, Tensor]
) -> dict[Node, Tensor]:
    """A scale for each output channel [out], the same for all that share a weight."""
    scales: dict[Node, Tensor] = {}
    for node in nodes:
        weight = node.all_input_nodes[1]
        largest = list_rows(node, constants[weight]).flatten(1).abs().amax(1) / CHANNEL[1]
        least = torch.full_like(largest, LEAST)
        bias = constants.get(list_options(node)[0])
        if bias is not None:
            bias = bias.abs().view(-1, len(largest)).amax(0)
            least = (bias / _read_step(node, spans) / (MOST_BIAS / 2)).clamp(
                min=LEAST
            )  # the rest is for its correction
        scales[weight] = torch.maximum(scales.get(weight, least), torch.maximum(largest, least))
    return {node: scales[node.all_input_nodes[1]] for node in nodes}


def _read_step(node: Node, spans: Mapping[str, Range]) -> float:
    """The step of what a convolution reads; a padding before it has none of its own."""
    value = node.all_input_nodes[0]
    while value.name not in spans:
        value = value.all_input_nodes[0]
    return choose_scale(spans[value.name])[0]


def _bound_bias(node: Node, bias: Tensor, scale: Tensor, spans: Mapping[str, Range]) -> Tensor:
    most = MOST_BIAS * _read_step(node, spans) * scale.repeat(len(bias) // len(scale))
    return bias.clamp(-most, most)


def _read_clip(node: Node) -> Range:
    """The bounds of the activation behind a convolution."""
    (reader,) = node.users
    if reader.target is aten.relu.default:
        return 0.0, inf
    if reader.target is aten.relu6.default:
        return 0.0, 6.0
    low, high = [*reader.args[1:], -1.0, 1.0][:2] if len(reader.args) != 2 else [reader.args[1], 1.0]
    return float(low), float(high)  # type: ignore[arg-type]


def _match_means(made: Tensor, exact: Tensor, clip: Range) -> Tensor:
    """What to add to each channel so that its mean behind the clip is the exact one's: [out] of [n, out, h, w]."""
    dims = (0, 2, 3)
    shift = exact.mean(dims) - made.mean(dims)
    if clip == (-inf, inf):
        return shift
    goal = exact.clamp(*clip).mean(dims)
    for _ in range(STEPS):
        moved = made + shift.view(-1, 1, 1)
        clipped = moved.clamp(*clip)
        live = (clipped == moved).float().mean(dims).clamp(min=LIVE)
        shift = shift + (goal - clipped.mean(dims)) / live
    return shift


# ---- weights ---------------------------------------------------------------------------------------------------------


def _round_nearest(node: Node, scale: Tensor, constants: Mapping[Node, Tensor]) -> Tensor:
    return scale_rows(node, constants[node.all_input_nodes[1]], 1 / scale).round().to(torch.int8)


def _round_by_inputs(node: Node, scale: Tensor, constants: Mapping[Node, Tensor], inputs: Sequence[Tensor]) -> Tensor:
    """The integers that change a convolution's outputs least; the nearest for a transposed or a very large one."""
    weight = constants[node.all_input_nodes[1]]
    count = prod(weight.shape[1:])
    if node.target is not aten.conv2d.default or count > INPUTS:
        return _round_nearest(node, scale, constants)
    rows = -(-max(ROWS, 2 * count) // len(inputs))
    patches = torch.cat([_take_patches(node, value, rows, seed) for seed, value in enumerate(inputs)], 1)
    groups = len(patches)
    patches -= patches.mean(1, keepdim=True)  # [groups, rows, inputs]
    steps = (weight.flatten(1) / scale.unsqueeze(1)).view(groups, -1, count)  # [groups, out / groups, inputs]
    return _round_ordered(steps, patches.mT @ patches).view(weight.shape).to(torch.int8)


def _round_ordered(rest: Tensor, moment: Tensor) -> Tensor:
    """Rounds first what varies most, while there is much that can make up for it."""
    order = moment.diagonal(dim1=1, dim2=2).argsort(dim=1, descending=True, stable=True)  # [groups, inputs]
    columns = order.unsqueeze(1)
    moment = moment.gather(1, order.unsqueeze(2).expand_as(moment)).gather(2, columns.expand_as(moment))
    integers = round_rows(rest.gather(2, columns.expand_as(rest)), moment)
    return torch.empty_like(integers).scatter_(2, columns.expand_as(integers), integers)


def _take_patches(node: Node, image: Tensor, count: int, seed: int) -> Tensor:
    """Takes patches that a convolution reads of an image [1, C, H, W]: [groups, count or all, inputs]."""
    _, stride, padding, dilation, groups = list_options(node)
    (down, right), (rows, columns), (tall, wide) = map(to_pair, (stride, padding, dilation))
    (*_, height, width), (*_, kernel_height, kernel_width) = shape_of(node), shape_of(node.args[1])
    places = torch.randperm(height * width, generator=torch.Generator().manual_seed(seed))[:count]
    y = (places // width * down)[:, None] + torch.arange(kernel_height) * tall  # [places, kernel_height]
    x = (places % width * right)[:, None] + torch.arange(kernel_width) * wide
    padded = pad(image[0], (columns, columns, rows, rows))
    patches = padded[:, y[:, :, None], x[:, None, :]]  # [C, places, kernel_height, kernel_width]
    by_group: Tensor = patches.view(groups, -1, *patches.shape[1:])
    return by_group.transpose(1, 2).flatten(2)


def _take_few(images: Array, convolutions: Collection[Node]) -> Array:
    """Some of the images, spread over them; fewer where values are large."""
    largest = max(prod(shape_of(value)) for node in convolutions for value in (node, node.all_input_nodes[0]))
    count = max(1, min(IMAGES, ELEMENTS // largest, len(images)))
    few: Array = images[np.linspace(0, len(images) - 1, count).round().astype(int)]
    return few
