"""Dynamic int8 written into the ATen graph: weights per output channel, activations per row at run time.

No observers, no calibration, no second export: a Linear's weight becomes an int8 constant, and its input goes through
quantise and dequantise ops whose scales are computed while the model runs. A backend recognises the pattern and calls
its int8 kernel; run as it stands, the program emulates that kernel in PyTorch.
"""

from operator import getitem

import torch
import torch.ao.quantization.fx._decomposed  # defines torch.ops.quantized_decomposed
from torch.export import ExportedProgram
from torch.fx import Node

from bigvit_edge.export.graph import add_constant, copy_program, insert, remove_parameter

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
