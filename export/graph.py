"""A captured model on its way to a file, and the tools to read and edit it."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, TensorArgument
from torch.fx import Node
from torch.fx.node import map_arg
from torch.utils._pytree import tree_leaves

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


# ---- editing a program; metadata stays true, so that every node still has a shape and a layer ------------------------


def copy_program(exported: ExportedProgram) -> ExportedProgram:
    """A program that may be edited: graph and signature of its own, tensors shared with the original."""
    module = deepcopy(exported.graph_module)
    for original, copy in zip(exported.graph.nodes, module.graph.nodes, strict=True):
        copy.name = (
            original.name
        )  # copying renames an input that is called like a built-in, and the signature knows it not
    return ExportedProgram(
        root=module,
        graph=module.graph,
        graph_signature=deepcopy(exported.graph_signature),
        state_dict=dict(exported.state_dict),
        range_constraints=exported.range_constraints,
        module_call_graph=exported.module_call_graph,
        example_inputs=exported.example_inputs,
        constants=dict(exported.constants),
        verifiers=[exported.verifier],
    )


def insert(before: Node, target: Any, *args: Any) -> Node:
    """A new call in front of a node, in the same layer."""
    with before.graph.inserting_before(before):
        node = before.graph.call_function(target, args)
    with tree_leaves(before.meta["val"])[0].fake_mode:
        node.meta["val"] = target(*map_arg(args, lambda n: n.meta["val"]))
    node.meta["nn_module_stack"] = before.meta.get("nn_module_stack", {})
    return node


def add_constant(program: ExportedProgram, name: str, data: Tensor) -> Node:
    """A tensor that becomes part of the program under a name of its own."""
    specs = program.graph_signature.input_specs
    place = next(i for i, spec in enumerate(specs) if spec.kind == InputKind.USER_INPUT)
    user_input = program.graph.find_nodes(op="placeholder")[place]
    with program.graph.inserting_before(user_input):
        node: Node = program.graph.placeholder("c_" + name.replace(".", "_"))
    node.meta["val"] = user_input.meta["val"].fake_mode.from_tensor(data, static_shapes=True)
    specs.insert(place, InputSpec(InputKind.CONSTANT_TENSOR, TensorArgument(node.name), name, None))
    program.constants[name] = data
    return node


def remove_parameter(program: ExportedProgram, node: Node) -> None:
    """Drop a parameter that nothing reads any more."""
    specs = program.graph_signature.input_specs
    spec = next(spec for spec in specs if spec.arg.name == node.name)
    specs.remove(spec)
    program.state_dict.pop(spec.target)
    program.graph.erase_node(node)
