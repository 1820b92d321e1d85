"""Dynamic int8 written into the ATen graph: weights per output channel, activations per row at run time.

No observers, no calibration, no second export: a Linear's weight becomes an int8 constant, and its input goes through
quantise and dequantise ops whose scales are computed while the model runs. A backend recognises the pattern and calls
its int8 kernel; run as it stands, the program emulates that kernel in PyTorch.
"""

from copy import deepcopy
from operator import getitem
from typing import Any

import torch
import torch.ao.quantization.fx._decomposed  # defines torch.ops.quantized_decomposed
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, TensorArgument
from torch.fx import Node
from torch.fx.node import map_arg
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
ops = torch.ops.quantized_decomposed

ROW = (-128, 127, torch.int8)  # an activation: asymmetric, one scale and zero point a row
CHANNEL = (-127, 127, torch.int8)  # a weight: symmetric, one scale an output channel


def insert_dynamic_int8(exported: ExportedProgram, layers: frozenset[str]) -> ExportedProgram:
    """A copy of the program in which the named Linears have int8 weights and take their inputs quantised per row.
    Linears that read the same value share one quantisation of it. ValueError if a name has no Linear."""
    program = copy_program(exported)
    names = program.graph_signature.inputs_to_parameters
    rows: dict[Node, Node] = {}  # a value -> itself, quantised and dequantised
    found = set()
    for linear in program.graph.find_nodes(op="call_function", target=aten.linear.default):
        value, weight, *bias = linear.args
        layer = names.get(weight.name, "").removesuffix(".weight")
        if layer not in layers:
            continue
        found.add(layer)
        if value not in rows:
            rows[value] = _quantize_rows(value, linear)
        linear.args = (rows[value], _quantize_weight(program, weight, linear), *bias)
        if not weight.users:
            remove_parameter(program, weight)
    if missing := layers - found:
        raise ValueError(f"no Linear in the graph for {', '.join(sorted(missing))}; expected names from Graph.int8")
    program.graph_module.recompile()
    return program


def _quantize_rows(value: Node, before: Node) -> Node:
    scale_and_zero = insert(before, ops.choose_qparams_per_token_asymmetric.default, value, torch.int8)
    scale, zero = (insert(before, getitem, scale_and_zero, i) for i in (0, 1))
    quantized = insert(before, ops.quantize_per_token.default, value, scale, zero, *ROW)
    return insert(before, ops.dequantize_per_token.default, quantized, scale, zero, *ROW, torch.float32)


def _quantize_weight(program: ExportedProgram, weight: Node, before: Node) -> Node:
    key = program.graph_signature.inputs_to_parameters[weight.name]
    data = program.state_dict[key].detach()  # [out, in]
    scale = (data.abs().amax(1) / CHANNEL[1]).clamp(min=torch.finfo(torch.float32).eps)  # [out]
    quantized = torch.round(data / scale.unsqueeze(1)).to(torch.int8)  # [out, in]
    parts = {"int8": quantized, "scale": scale, "zero": torch.zeros_like(scale, dtype=torch.int64)}
    nodes = [add_constant(program, f"{key}.{part}", tensor) for part, tensor in parts.items()]
    return insert(before, ops.dequantize_per_channel.default, *nodes, 0, *CHANNEL)


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
