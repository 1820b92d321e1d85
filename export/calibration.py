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
from bigvit_edge.errors import UserError
from bigvit_edge.export.graph import Ranges, layer_of, read_constants, weight_name
from bigvit_edge.export.integers import Range
from bigvit_edge.export.products import PRODUCTS
from bigvit_edge.target import Quant

aten = torch.ops.aten
BINS = 2048
SAMPLED = 32  # images whose values are counted for the spans of an int8 part; the ends are of all images
SAMPLES = 2**12  # values that are counted of each, of one tensor
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


def measure_spans(exported: ExportedProgram, names: Collection[str], images: Array) -> dict[str, Range]:
    """Measure what the named values of a program span on images.

    Of all that was seen, the part with the least squared error; its ends are seen on all images, how often a value
    occurs on some of them. (0, 1) for what is always zero. UserError if a value is not finite.
    """
    walk = _Spans(exported, names)
    sampled = np.linspace(0, len(images) - 1, min(SAMPLED, len(images))).round().astype(int)
    with torch.no_grad():
        for i, image in enumerate(images):
            walk.sampling = i in sampled
            walk.run(*(walk.data.get(node, torch.from_numpy(image[None])) for node in walk.inputs))
    return {name: walk.choose(name) for name in names}


class _Spans(Interpreter):
    def __init__(self, exported: ExportedProgram, names: Collection[str]) -> None:
        super().__init__(exported.graph_module)
        self.data = read_constants(exported)
        self.inputs = exported.graph.find_nodes(op="placeholder")
        self.seen = {name: Histogram() for name in names}
        self.samples: dict[str, list[Tensor]] = {name: [] for name in names}
        self.sampling, self.generator = True, torch.Generator().manual_seed(0)

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if n.name in self.seen:
            ends = torch.stack(value.aminmax())
            if not ends.isfinite().all():
                met = f"{layer_of(n) or n.name} gives NaN or infinity on calibration images"
                raise UserError(met, "finite numbers", "check the weights, or calibrate on other images")
            self.seen[n.name].stretch(ends)
            if self.sampling:
                places = torch.randint(value.numel(), (SAMPLES,), generator=self.generator)
                self.samples[n.name].append(value.flatten()[places] if value.numel() > SAMPLES else value.flatten())
        return value

    def choose(self, name: str) -> Range:
        seen = self.seen[name]
        if not seen.low < seen.high:
            return (seen.low, seen.high) if seen.low else (0.0, 1.0)
        seen.count(torch.cat(self.samples[name]))
        return choose_range(seen, Quant(observer="mse"))
