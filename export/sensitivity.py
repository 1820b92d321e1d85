"""Mixed precision: how much each layer suffers from each precision, and the cheapest assignment that is good enough.

The measure of suffering is the signal-to-quantisation-noise ratio (SQNR) of a layer's own output when that layer alone
is quantised, in decibels: 10 log10(sum y^2 / sum (y' - y)^2). The cost is bit operations (BOPs): multiply-accumulates
times bits of the weight times bits of the activation.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.nn.functional import linear

from bigvit_edge.artifact import Array
from bigvit_edge.export.calibration import visit_layers
from bigvit_edge.export.graph import Graph, matrix_products, name_layer, weight_name
from bigvit_edge.export.placement import list_convolutions
from bigvit_edge.export.products import list_rows
from bigvit_edge.export.quantization import choose_scale, quantize_groups_weight, quantize_rows_weight

STATIC = "int8-static"
BITS = {"fp32": (32, 32), "int8": (8, 8), "int8-static": (8, 8), "int4": (4, 8)}  # of a weight, of an activation


@dataclass(frozen=True)
class Sensitivity:
    """The loss of one layer at each precision.

    Given are its multiply-accumulates, and the SQNR of its output in dB at each precision it can have; fp32 is
    infinite.
    """

    layer: str
    macs: int
    sqnr_db: Mapping[str, float]

    def count_bops(self, precision: str) -> int:
        """Count the bit operations of one image."""
        weight, activation = BITS[precision]
        return self.macs * weight * activation


class Rounder:
    """The layers of a graph as their quantised kernels compute them.

    They compute in float arithmetic on rounded values. Rounded weights are kept.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.weights: dict[tuple[str, str], Tensor] = {}
        self.convolutions = {name_layer(graph, node): node for node in list_convolutions(graph.exported)}

    def round(self, layer: str, args: tuple[Tensor, ...], precision: str) -> Tensor:
        """Compute the output of a layer on rounded values.

        args: input [..., in], weight [out, in], bias or none; of a convolution as it takes them.
        """
        if layer in self.convolutions:
            return self._convolve(layer, args)
        x, weight, *bias = args
        if (layer, precision) not in self.weights:
            self.weights[layer, precision] = _round_weight(weight, precision, self.graph.group)
        rounded = self.weights[layer, precision]
        if precision != STATIC:
            return linear(_round_rows(x), rounded, *bias)
        ranges = self.graph.ranges[layer]
        y = linear(_round(x, *choose_scale(ranges.input)), rounded, *bias)
        return _round(y, *choose_scale(ranges.output))

    def _convolve(self, layer: str, args: tuple[Any, ...]) -> Tensor:
        node, ranges = self.convolutions[layer], self.graph.ranges[layer]
        x, weight, *rest = args
        if (layer, "int8") not in self.weights:
            rows = list_rows(node, weight)  # [out, ...]
            rounded = _round_weight(rows.flatten(1), "int8", self.graph.group).view(rows.shape)
            self.weights[layer, "int8"] = list_rows(node, rounded)
        product: Any = node.target
        y: Tensor = product(_round(x, *choose_scale(ranges.input)), self.weights[layer, "int8"], *rest)
        return _round(y, *choose_scale(ranges.output))


def measure_sensitivities(graph: Graph, candidates: Mapping[str, tuple[str, ...]], images: Array) -> list[Sensitivity]:
    """Measure the sensitivity of every layer named in candidates.

    They come in the graph's order; the graph has ranges for convolutions and for Linears that may be int8-static.
    """
    signal: dict[str, float] = {}
    noise: dict[tuple[str, str], float] = {}
    macs: dict[str, int] = {}
    for node, count in matrix_products(graph.exported):
        layer = (weight_name(graph.exported, node) or "").removesuffix(".weight")
        if layer in candidates:
            macs[layer] = macs.get(layer, 0) + count
    rounder = Rounder(graph)

    def visit(layer: str, node: Node, args: tuple[Tensor, ...], value: Tensor) -> None:
        if layer not in candidates:
            return
        signal[layer] = signal.get(layer, 0.0) + float(value.double().square().sum())
        for precision in candidates[layer]:
            if precision != "fp32":
                error = float((rounder.round(layer, args, precision) - value).double().square().sum())
                noise[layer, precision] = noise.get((layer, precision), 0.0) + error

    visit_layers(graph.exported, images, visit)
    return [
        Sensitivity(layer, n, {p: _decibels(signal[layer], noise.get((layer, p), 0.0)) for p in candidates[layer]})
        for layer, n in macs.items()
    ]


def _round_weight(weight: Tensor, precision: str, group: int) -> Tensor:
    """[out, in], rounded and back in float."""
    if precision == "int4":
        integers, scale = quantize_groups_weight(weight, group)
        return (integers.reshape(*scale.shape, group) * scale.unsqueeze(2)).reshape(weight.shape)
    integers, scale = quantize_rows_weight(weight)
    return integers * scale.unsqueeze(1)


def _round_rows(x: Tensor) -> Tensor:
    low, high = x.amin(-1, keepdim=True).clamp(max=0), x.amax(-1, keepdim=True).clamp(min=0)
    scale = ((high - low) / 255).clamp(min=torch.finfo(torch.float32).eps)
    return _round(x, scale, torch.round(-128 - low / scale))


def _round(x: Tensor, scale: Tensor | float, zero: Tensor | float) -> Tensor:
    return (torch.clamp(torch.round(x / scale) + zero, -128, 127) - zero) * scale


def _decibels(signal: float, noise: float) -> float:
    return 10 * math.log10(signal / noise) if noise > 0 and signal > 0 else math.inf


def choose_precisions(
    sensitivities: list[Sensitivity], good_enough: Callable[[Mapping[str, str]], bool]
) -> dict[str, str]:
    """Choose the precision of each Linear.

    All start at their cheapest and are raised one step at a time, first where a raised bit operation removes most
    noise, until the model is good enough; by bisection, so that few assignments are tried. If it never is, every Linear
    ends at its best.
    """
    steps = sorted((step for s in sensitivities for step in _list_steps(s)), key=lambda step: -step[0])

    def assign(count: int) -> dict[str, str]:
        chosen = {s.layer: _by_cost(s)[0] for s in sensitivities}
        return chosen | {layer: precision for _, layer, precision in steps[:count]}

    low, high = 0, len(steps)
    while low < high:
        middle = (low + high) // 2
        if good_enough(assign(middle)):
            high = middle
        else:
            low = middle + 1
    return assign(high)


def _by_cost(s: Sensitivity) -> list[str]:
    """A layer's precisions from the cheapest to the best; one that costs more and rounds worse than another is out."""
    ordered: list[str] = []
    for precision in sorted(s.sqnr_db, key=lambda p: (s.count_bops(p), -s.sqnr_db[p])):
        if not ordered or s.sqnr_db[precision] > s.sqnr_db[ordered[-1]]:
            ordered.append(precision)
    return ordered


def _list_steps(s: Sensitivity) -> list[tuple[float, str, str]]:
    """Raises of one layer as (worth, layer, precision raised to), worth falling, so that their order holds when the
    steps of all layers are sorted: relative noise removed by each bit operation more."""
    ordered = _by_cost(s)
    steps: list[tuple[float, str, str]] = []
    for worse, better in pairwise(ordered):
        removed = 10 ** (-s.sqnr_db[worse] / 10) - 10 ** (-s.sqnr_db[better] / 10)
        worth = removed / (s.count_bops(better) - s.count_bops(worse))
        steps.append((min(worth, steps[-1][0]) if steps else worth, s.layer, better))
    return steps
