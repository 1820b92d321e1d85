"""What the layers of a model see on calibration images, and the ranges that int8-static takes from it."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Interpreter, Node

from bigvit_edge.artifact import Array
from bigvit_edge.export.graph import Ranges, read_constants, weight_name
from bigvit_edge.export.integers import Range
from bigvit_edge.target import Quant

aten = torch.ops.aten
BINS = 2048
SHRINKS = torch.linspace(0.2, 1, 81).tolist()  # shares of the whole range that the MSE observer tries

# Told a layer's name, node, arguments and output; returns another output in its place, or None.
Visit = Callable[[str, Node, tuple[Tensor, ...], Tensor], Tensor | None]


def visit_layers(exported: ExportedProgram, images: Array, visit: Visit) -> Array:
    """Run the program on images and show each layer's call.

    A layer is a Linear or a convolution.

    images [n, 3, S, S], one by one; the layer is a named one. Returns logits [n, classes].
    """
    walk = _Walk(exported, visit)
    with torch.no_grad():
        return np.concatenate([walk.answer(torch.from_numpy(image[None])) for image in images])


class _Walk(Interpreter):
    def __init__(self, exported: ExportedProgram, visit: Visit) -> None:
        super().__init__(exported.graph_module)
        self.visit = visit
        self.data = read_constants(exported)
        self.inputs = exported.graph.find_nodes(op="placeholder")
        names = {node: weight_name(exported, node) for node in exported.graph.nodes if node.target in PRODUCTS}
        self.layers = {node: name.removesuffix(".weight") for node, name in names.items() if name}

    def answer(self, image: Tensor) -> Array:
        (logits,) = self.run(*(self.data.get(node, image) for node in self.inputs))
        return logits.numpy()  # type: ignore[no-any-return]

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if n in self.layers:
            changed = self.visit(self.layers[n], n, self.fetch_args_kwargs_from_env(n)[0], value)
            return value if changed is None else changed
        return value


PRODUCTS = {aten.linear.default, aten.conv2d.default, aten.conv_transpose2d.input}


@dataclass
class Histogram:
    """Counts of which values occurred how often.

    counts [BINS] of equal width from low to high, both of which occurred.
    """

    low: float = float("inf")
    high: float = float("-inf")
    counts: Tensor = field(default_factory=lambda: torch.zeros(BINS))

    def stretch(self, values: Tensor) -> None:
        """Take in the range of some values; before the first count."""
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))

    def count(self, values: Tensor) -> None:
        """Add values within low and high."""
        self.counts += torch.histc(values, BINS, self.low, self.high)

    def centers(self) -> Tensor:
        """Compute the middle of each bin [BINS]."""
        return self.low + (torch.arange(BINS) + 0.5) * (self.high - self.low) / BINS


def calibrate(exported: ExportedProgram, layers: Collection[str], images: Array, quant: Quant) -> dict[str, Ranges]:
    """Measure what the named Linears' inputs and outputs span on images.

    The observer is the one that quant names.
    """
    seen: dict[str, tuple[Histogram, Histogram]] = {layer: (Histogram(), Histogram()) for layer in layers}

    def stretch(layer: str, node: Node, args: tuple[Tensor, ...], value: Tensor) -> None:
        if layer in seen:
            seen[layer][0].stretch(args[0])
            seen[layer][1].stretch(value)

    def count(layer: str, node: Node, args: tuple[Tensor, ...], value: Tensor) -> None:
        if layer in seen:
            seen[layer][0].count(args[0])
            seen[layer][1].count(value)

    visit_layers(exported, images, stretch)
    if quant.observer != "minmax":
        visit_layers(exported, images, count)
    return {
        layer: Ranges(choose_range(given, quant), choose_range(made, quant)) for layer, (given, made) in seen.items()
    }


def choose_range(seen: Histogram, quant: Quant) -> Range:
    """Choose what int8 shall span.

    It is all that was seen; the percentile at both ends; or the shares of the range, tried in steps of one hundredth,
    with the least squared error of clipping and rounding together.
    """
    if quant.observer == "minmax" or seen.low == seen.high:
        return seen.low, seen.high
    centers, share = seen.centers(), seen.counts / seen.counts.sum()
    if quant.observer == "percentile":
        outside = 1 - quant.percentile / 100
        ends = torch.tensor([outside, 1 - outside])
        low, high = torch.searchsorted(share.cumsum(0), ends).clamp(max=BINS - 1).tolist()
        return float(centers[low]), float(centers[high])
    tried = [(seen.low * shrink, seen.high * shrink) for shrink in SHRINKS]
    return min(tried, key=lambda span: _square_error(centers, share, span))


def _square_error(centers: Tensor, share: Tensor, span: Range) -> float:
    """Mean squared error of asymmetric int8 over a span widened to hold zero."""
    low, high = min(span[0], 0.0), max(span[1], 0.0)
    clipped = (centers - centers.clamp(low, high)).square()
    step = (high - low) / 255
    return float((share * torch.where(clipped > 0, clipped, step**2 / 12)).sum())


def measure_spans(exported: ExportedProgram, names: Collection[str], images: Array, quant: Quant) -> dict[str, Range]:
    """Measure what the named values of a program span on images."""
    walk = _Spans(exported, names)
    with torch.no_grad():
        for image in images:
            walk.answer(torch.from_numpy(image[None]))
    return walk.spans


class _Spans(Interpreter):
    def __init__(self, exported: ExportedProgram, names: Collection[str]) -> None:
        super().__init__(exported.graph_module)
        self.data = read_constants(exported)
        self.inputs = exported.graph.find_nodes(op="placeholder")
        self.names = names
        self.spans: dict[str, Range] = {}

    def answer(self, image: Tensor) -> None:
        self.run(*(self.data.get(node, image) for node in self.inputs))

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if n.name in self.names:
            low, high = self.spans.get(n.name, (float("inf"), float("-inf")))
            self.spans[n.name] = min(low, float(value.min())), max(high, float(value.max()))
        return value
