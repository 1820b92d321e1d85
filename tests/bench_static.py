"""Which ops static int8 hurts: `python tests/bench_static.py blvit_demo`.

Rounds the outputs of one kind of op at a time to int8, with one range a tensor seen on calibration images, and compares
the logits with those in float on held-out images. Last, what the exports do: Linears alone, less the routers and what
writes into their stream, by each observer.
"""

import argparse
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import Interpreter, Node

from bigvit_edge import tables
from bigvit_edge.artifact import Array
from bigvit_edge.demo.digits import held_out
from bigvit_edge.export.assignment import assign_layers
from bigvit_edge.export.calibration import visit_layers
from bigvit_edge.export.convert import capture, rewrite
from bigvit_edge.export.graph import Graph, read_constants
from bigvit_edge.export.integers import Range
from bigvit_edge.export.parity import compare
from bigvit_edge.export.quantization import choose_scale, insert_quantization
from bigvit_edge.export.references import draw_calibration, make_references
from bigvit_edge.models.load import has_keep, load
from bigvit_edge.target import OBSERVERS, load_target

Change = Callable[[Node, Tensor], Tensor]


class Changing(Interpreter):
    """Runs a graph with every float output changed."""

    def __init__(self, graph: Graph, change: Change) -> None:
        super().__init__(graph.exported.graph_module)
        self.change, self.data = change, read_constants(graph.exported)
        self.inputs = graph.exported.graph.find_nodes(op="placeholder")

    def answer(self, images: Array) -> Array:
        with torch.no_grad():
            return np.concatenate([self._answer(torch.from_numpy(image[None])) for image in images])

    def _answer(self, image: Tensor) -> Array:
        (logits,) = self.run(*(self.data.get(node, image) for node in self.inputs))
        return logits.numpy()

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        is_float = n.op == "call_function" and isinstance(value, Tensor) and value.is_floating_point()
        return self.change(n, value) if is_float else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="blvit_demo")
    parser.add_argument("--images", type=int, default=300)
    options = parser.parse_args()
    model = load(options.model)
    keep = 0.5 if has_keep(model.module) else None
    reference = make_references(model, (keep,), options.images)[keep]
    graph = rewrite(capture(model.module, model.image_size, keep))
    calibration, labels = draw_calibration(model), held_out().labels.numpy()[: options.images]

    def row(name: str, logits: Array, step: str = "") -> tuple[str, ...]:
        parity = compare(logits, reference.logits)
        right = (logits.argmax(1) == labels).mean()
        figures = (
            f"{parity.cosine_mean:.5f}",
            f"{parity.cosine_min:.5f}",
            f"{parity.top1_agreement:.1%}",
            f"{right:.1%}",
        )
        return name, step, *figures

    ranges = observe(graph, calibration)
    kinds = sorted({str(node.target) for node in ranges})
    rows = []
    for kind in [*kinds, "all of these"]:
        chosen = {node for node in ranges if kind in (str(node.target), "all of these")}
        widest = max(choose_scale(ranges[node])[0] for node in chosen)
        logits = Changing(graph, round_outputs(ranges, chosen)).answer(reference.images)
        rows.append(row(kind, logits, f"{widest:.4f}"))
    target = load_target("host")
    for observer in OBSERVERS:
        quant = replace(target.quant, observer=observer)
        (static,) = assign_layers(
            [graph], "int8-static", replace(target, quant=quant), calibration, True, lambda *_: None
        )
        logits = visit_layers(insert_quantization(static), reference.images, lambda *_: None)
        rows.append(row(f"Linears, {observer}", logits))
    tables.print_rows(("rounded to int8", "widest step", "cosine", "smallest", "top-1 agrees", "accuracy"), rows)


def observe(graph: Graph, images: Array) -> dict[Node, Range]:
    """What every float output spans."""
    ranges: dict[Node, Range] = {}

    def widen(node: Node, value: Tensor) -> Tensor:
        low, high = ranges.get(node, (0.0, 0.0))
        ranges[node] = min(low, float(value.min())), max(high, float(value.max()))
        return value

    Changing(graph, widen).answer(images)
    return ranges


def round_outputs(ranges: dict[Node, Range], chosen: Collection[Node]) -> Change:
    def change(node: Node, value: Tensor) -> Tensor:
        if node not in chosen:
            return value
        scale, zero = choose_scale(ranges[node])
        return (torch.clamp(torch.round(value / scale) + zero, -128, 127) - zero) * scale

    return change


if __name__ == "__main__":
    main()
