"""A program run twice, side by side: in float, and with its convolutions and the values of its int8 part rounded."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Interpreter, Node
from torch.fx.node import map_arg

from bigvit_edge.artifact import Array
from bigvit_edge.export.graph import read_constants
from bigvit_edge.export.integers import Range, Rounded
from bigvit_edge.export.products import CONVOLUTIONS, list_options, scale_rows
from bigvit_edge.export.quantization import BYTE, choose_scale

aten = torch.ops.aten

# Told a convolution, what it reads in the int8 part and what it gives in float, a tensor for each image.
Choose = Callable[[Node, list[Tensor], list[Tensor]], Rounded]


def emulate_integers(
    exported: ExportedProgram, ops: Collection[Node], spans: Mapping[str, Range], images: Array, choose: Choose
) -> None:
    """Run a program in float and in int8, side by side.

    ops and spans: as in Integers; images [n, 3, S, S]. Each convolution among the ops computes, from where it stands,
    with the weights that choose returns for it. Values are dropped behind their last reader.
    """
    both = _Both(exported, ops, spans, images, choose)
    last = {value: node for node in exported.graph.nodes for value in node.all_input_nodes}
    with torch.no_grad():
        for node in exported.graph.nodes:
            if node.op == "call_function":
                both.compute(node)
                both.drop(value for value in node.all_input_nodes if last[value] is node)


class _Both:
    def __init__(
        self, exported: ExportedProgram, ops: Collection[Node], spans: Mapping[str, Range], images: Array,
        choose: Choose,
    ) -> None:  # fmt: skip
        self.ops, self.choose = set(ops), choose
        self.steps = {name: choose_scale(span) for name, span in spans.items()}
        self.constants = read_constants(exported)
        module = exported.graph_module
        self.exact, self.rounded = ([Interpreter(module) for _ in images] for _ in range(2))
        for walk, image in zip(self.exact + self.rounded, (*images, *images), strict=True):
            image = torch.from_numpy(image[None])
            for node in exported.graph.find_nodes(op="placeholder"):
                walk.env[node] = self.constants.get(node, image)

    def compute(self, node: Node) -> None:
        for walk in self.exact:
            walk.env[node] = walk.run_node(node)
        if node not in self.ops:
            for walk, exact in zip(self.rounded, self.exact, strict=True):
                same = all(walk.env[value] is exact.env[value] for value in node.all_input_nodes)
                walk.env[node] = exact.env[node] if same else walk.run_node(node)
            return
        for walk, value in zip(self.rounded, self._compute_rounded(node), strict=True):
            walk.env[node] = self._round(node, value)

    def _compute_rounded(self, node: Node) -> list[Tensor]:
        given = [{x: self._round(x, walk.env[x]) for x in node.all_input_nodes} for walk in self.rounded]
        arguments: list[Any] = [map_arg((node.args, node.kwargs), values.__getitem__) for values in given]
        if node.target not in CONVOLUTIONS:
            return [node.target(*args, **kwargs) for args, kwargs in arguments]  # type: ignore[operator]
        inputs = [args[0] for args, _ in arguments]
        rounded = self.choose(node, inputs, [walk.env[node] for walk in self.exact])
        return [convolve(node, value, rounded, self.constants) for value in inputs]

    def _round(self, node: Node, value: Any) -> Any:
        if node.name not in self.steps:
            return value
        return torch.fake_quantize_per_tensor_affine(value, *self.steps[node.name], *BYTE[:2])

    def drop(self, values: Any) -> None:
        for value in values:
            for walk in self.exact + self.rounded:
                del walk.env[value]


def convolve(node: Node, value: Tensor, rounded: Rounded, constants: Mapping[Node, Tensor]) -> Tensor:
    """Compute a convolution with the weights and bias in their place."""
    bias, *options = list_options(node)
    weight = scale_rows(node, rounded.integers, rounded.scale)
    own = rounded.bias if rounded.bias is not None else constants.get(bias)
    return node.target(value, weight, own, *options)  # type: ignore[operator, no-any-return]
