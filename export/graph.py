"""A captured model on its way to a file."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import torch
from torch.export import ExportedProgram
from torch.fx import Node

aten = torch.ops.aten


@dataclass(frozen=True)
class Graph:
    """exported: float ATen graph, batch 1, static shapes, one input [1, 3, S, S] and one output [1, num_classes]. int8:
    names of the Linear modules whose weights become int8 per output channel and whose inputs int8 per row at run time;
    empty for fp32.
    """

    exported: ExportedProgram
    int8: frozenset[str] = frozenset()

    @property
    def precision(self) -> str:
        """The word for it in manifests and file names."""
        return "int8" if self.int8 else "fp32"


def layer_of(node: Node) -> str:
    """The module a node came from, as in model.named_modules() ('layers.3.p.mlp.fc1'); '' for the model itself."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]).removeprefix("L['self'].") if stack else ""


def weight_name(exported: ExportedProgram, node: Node) -> str | None:
    """The state-dict key of a Linear's or convolution's weight, or None if it is computed."""
    weight = node.args[1]
    names = exported.graph_signature.inputs_to_parameters
    return names.get(weight.name) if isinstance(weight, Node) else None


def count_node_macs(node: Node) -> int:
    """Multiply-accumulates of one node, from its shapes; 0 for anything that is not a matrix product."""
    if node.op != "call_function":
        return 0
    name = getattr(node.target, "_opname", str(node.target)).split(".")[0]
    if name in ("linear", "bmm", "mm", "matmul"):
        return prod(_shape(node)) * _shape(node.args[0])[-1]
    if name == "addmm":
        return prod(_shape(node)) * _shape(node.args[1])[-1]
    if name in ("conv2d", "convolution"):
        return prod(_shape(node)) * prod(_shape(node.args[1])[1:])
    return 0


def matrix_products(exported: ExportedProgram) -> Iterator[tuple[Node, int]]:
    """Every node that multiplies matrices, with its multiply-accumulates."""
    for node in exported.graph.nodes:
        if macs := count_node_macs(node):
            yield node, macs


def _shape(node: object) -> tuple[int, ...]:
    assert isinstance(node, Node)
    return tuple(node.meta["val"].shape)
