"""Quantisation written into the ATen graph: a Linear's weight becomes an integer constant, and its input (for static
int8 its output too) goes through quantise and dequantise ops.

A backend recognises the pattern and calls its integer kernel; run as it stands, the program emulates that kernel in
PyTorch, in float arithmetic on rounded values.
"""

from dataclasses import replace
from operator import getitem
from typing import Any

import torch
import torch.ao.quantization.fx._decomposed  # defines torch.ops.quantized_decomposed
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node

from bigvit_edge.export.graph import (
    Graph,
    Ranges,
    add_constant,
    copy_program,
    insert,
    name_layer,
    read_constants,
    remove_constant,
    replace_node,
    weight_name,
)
from bigvit_edge.export.integers import Integers, Range, Rounded
from bigvit_edge.export.products import PADS, list_options

aten = torch.ops.aten
ops = torch.ops.quantized_decomposed

BYTE = (-128, 127, torch.int8)  # an activation: asymmetric, a scale and zero point for each row or for all
CHANNEL = (-127, 127, torch.int8)  # a weight in int8: symmetric, a scale for each output channel
NIBBLE = (-8, 7, torch.int8)  # a weight in int4: symmetric, a scale for each output channel and group of inputs
MOST_BIAS = 2**30  # steps of a bias in int32: as much room is left for the products
LEAST = torch.finfo(torch.float32).eps  # of a scale: what is all zeros needs one too, and float16 has it
FAINTEST = 1e-25  # of a scale of values: times that of a weight it is a normal float32 still
# What int4 tries as the largest value of a group, by the group's own: sixteen steps are few, and clipping a single
# large weight can cost less than wide steps for all the others. The smallest squared error wins.
CLIPS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)


def insert_quantization(graph: Graph, exported: ExportedProgram | None = None, rows: bool = True) -> ExportedProgram:
    """Copy the program with its Linears quantised as graph.layers says.

    `exported`: the same model already rewritten, instead of graph.exported. rows: False for a runtime that cannot
    quantise inputs row by row while it runs; int8 and int4 are then the weights' alone. Linears that read the same
    value share its quantisation.

    ValueError if a name has no Linear, an int8-static one no range, or an int4 one inputs that are no multiple of the
    group.
    """
    program = copy_program(exported or insert_integers(graph.exported, graph.integers))
    writer = _Writer(program, graph, rows)
    found = set()
    for linear in program.graph.find_nodes(op="call_function", target=aten.linear.default):
        layer = (weight_name(program, linear) or "").removesuffix(".weight")
        if layer in graph.layers and linear.name not in graph.integers.weights:
            found.add(layer)
            writer.quantize(linear, layer)
    if missing := graph.layers.keys() - found - list_rounded(graph):
        raise ValueError(f"no Linear in the graph for {', '.join(sorted(missing))}; expected names from Graph.layers")
    program.graph_module.recompile()
    return program


def insert_integers(program: ExportedProgram, integers: Integers, unsigned: bool = False) -> ExportedProgram:
    """Copy the program with the ops of integers written as such.

    Each reads its values through a dequantisation and is followed by a quantisation, unless its own is never rounded.
    unsigned: uint8 in 0..255 in place of int8, the same numbers; biases are int32 constants then, as QDQ files want.
    """
    if not integers.ops:
        return program
    program = copy_program(program)
    writer = _IntegerWriter(program, integers, unsigned)
    for node in list(program.graph.nodes):
        if node.name in integers.ops:
            writer.write(node)
    program.graph_module.recompile()
    return program


def list_rounded(graph: Graph) -> set[str]:
    """List the layers whose weights are among the graph's integers."""
    return {name_layer(graph, node) for node in graph.exported.graph.nodes if node.name in graph.integers.weights}


def quantize_rows_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise a weight to int8 with a scale for each row.

    int8 of the same shape [out, in], in -127..127, and a scale for each output channel [out]: their product is the
    weight, to half a step.
    """
    scale = (weight.abs().amax(1) / CHANNEL[1]).clamp(min=LEAST)
    return torch.round(weight / scale.unsqueeze(1)).to(torch.int8), scale


def quantize_groups_weight(weight: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """Quantise a weight to int4 with a scale for each group.

    int8 of the same shape [out, in], in -8..7, and a scale for each output channel and group of inputs [out, in /
    group]. Scales are bfloat16 values held in float32: XNNPACK keeps them so. ValueError if the inputs are no multiple
    of the group.
    """
    outputs, inputs = weight.shape
    if inputs % group:
        raise ValueError(f"{inputs} inputs; expected a multiple of the group, {group}")
    groups = weight.reshape(outputs, -1, group)  # [out, in / group, group]
    largest = groups.abs().amax(2, keepdim=True)
    best, scale = torch.full_like(largest, torch.inf), torch.empty_like(largest)
    for clip in CLIPS:
        tried = (largest * (clip / NIBBLE[1])).clamp(min=LEAST).bfloat16().float()
        error = (_round_groups(groups, tried) * tried - groups).square().sum(2, keepdim=True)
        scale = torch.where(error < best, tried, scale)
        best = torch.minimum(error, best)
    return _round_groups(groups, scale).to(torch.int8).reshape(outputs, inputs), scale.squeeze(2)


def choose_scale(span: Range) -> tuple[float, int]:
    """Choose scale and zero point of asymmetric int8 for a range.

    The range is widened to hold zero: zero is always met exactly.
    """
    low, high = min(span[0], 0.0), max(span[1], 0.0)
    scale = max((high - low) / (BYTE[1] - BYTE[0]), FAINTEST) if high > low else LEAST
    return scale, max(BYTE[0], min(BYTE[1], round(BYTE[0] - low / scale)))


def widen_span(span: Range, step: float) -> Range:
    """Widen a range to a scale of at least a step.

    About zero as it lies; one that is wide enough is returned as it is.
    """
    low, high = min(span[0], 0.0), max(span[1], 0.0)
    width = step * (BYTE[1] - BYTE[0])
    if high - low >= width:
        return span
    return (low / (high - low) * width, high / (high - low) * width) if high > low else (0.0, width)


def bound_steps(graph: Graph) -> Graph:
    """Widen a graph's ranges to scales of LEAST.

    Arithmetic in half has no finer ones.
    """
    ranges = {
        layer: Ranges(widen_span(found.input, LEAST), widen_span(found.output, LEAST))
        for layer, found in graph.ranges.items()
    }
    spans = {name: widen_span(span, LEAST) for name, span in graph.integers.spans.items()}
    return replace(graph, ranges=ranges, integers=replace(graph.integers, spans=spans))


def _round_groups(groups: Tensor, scale: Tensor) -> Tensor:
    return torch.round(groups / scale).clamp(*NIBBLE[:2])


class _IntegerWriter:
    """Writes the ops of integers into a program of which it is the only user."""

    def __init__(self, program: ExportedProgram, integers: Integers, unsigned: bool) -> None:
        self.program, self.integers, self.unsigned = program, integers, unsigned
        self.constants = read_constants(program)
        self.shift = -BYTE[0] if unsigned else 0
        self.byte = (0, 255, torch.uint8) if unsigned else BYTE
        self.steps = {name: choose_scale(span) for name, span in integers.spans.items()}
        self.quantized: dict[Node, Node] = {}  # a value -> its integers
        self.shared: dict[Node, Node] = {}  # a value -> itself, rounded and back in float
        self.weights: dict[Node, Node] = {}

    def write(self, node: Node) -> None:
        """Write one op; those that it reads are written."""
        for value in node.all_input_nodes:
            if value in self.constants:
                if value.name in self.steps:
                    node.replace_input_with(value, self._round_constant(value, node))
            elif value.name in self.steps:
                node.replace_input_with(value, self._round(value, node))
        if node.name in self.integers.weights:
            self._write_weight(node, self.integers.weights[node.name])
        if node.name in self.steps:
            self._round_output(node)

    def _round(self, value: Node, reader: Node) -> Node:
        """The value as a reader in int8 gets it: of one made in float, rounded where it is made, for all its readers.

        Each has a dequantisation of its own, which ExecuTorch takes into the reader's kernel; it has to be another's
        too where that stays float. In QDQ files one serves all.
        """
        if value not in self.quantized:
            first = next(n for n in self.program.graph.nodes if n.op == "call_function")
            self.quantized[value] = self._quantize(first if value.op == "placeholder" else value.next, value)
        if not self.unsigned:
            return self._read(reader, self.quantized[value], value.name)
        if value not in self.shared:
            self.shared[value] = self._read(self.quantized[value].next, self.quantized[value], value.name)
        return self.shared[value]

    def _round_output(self, node: Node) -> None:
        """Readers in float have a dequantisation of their own, which is a step of its own; those in int8 get theirs."""
        readers, behind = list(node.users), node.next
        self.quantized[node] = quantized = self._quantize(behind, node)
        inside = {quantized, *(reader for reader in readers if reader.name in self.integers.ops)}
        if not inside.issuperset(readers):
            outside = self._read(behind, quantized, node.name)
            node.replace_all_uses_with(outside, delete_user_cb=lambda user: user not in inside)
            self.program.graph_signature.replace_all_uses(node.name, outside.name)

    def _quantize(self, before: Node, value: Node) -> Node:
        scale, zero = self.steps[value.name]
        return insert(before, ops.quantize_per_tensor.default, value, scale, zero + self.shift, *self.byte)

    def _read(self, before: Node, quantized: Node, name: str) -> Node:
        scale, zero = self.steps[name]
        return insert(before, ops.dequantize_per_tensor.default, quantized, scale, zero + self.shift, *self.byte)

    def _round_constant(self, value: Node, before: Node) -> Node:
        scale, zero = self.steps[value.name]
        data = torch.round(self.constants[value] / scale) + zero + self.shift
        integers = data.clamp(*self.byte[:2]).to(self.byte[2])
        return self._read(before, add_constant(self.program, f"{value.name}.int8", integers), value.name)

    def _write_weight(self, node: Node, rounded: Rounded) -> None:
        weight: Any = node.args[1]
        bias, *options = list_options(node)
        if weight not in self.weights:
            name = weight_name(self.program, node) or weight.name
            zeros = torch.zeros_like(rounded.scale, dtype=torch.int64)
            parts = {"int8": rounded.integers, "scale": rounded.scale, "zero": zeros}
            nodes = [add_constant(self.program, f"{name}.{part}", data) for part, data in parts.items()]
            axis = int(node.target is aten.conv_transpose2d.input)
            self.weights[weight] = insert(node, ops.dequantize_per_channel.default, *nodes, axis, *CHANNEL)
        own = rounded.bias if rounded.bias is not None else self.constants.get(bias)
        plain = rounded.bias is None and not self.unsigned
        written = bias if plain or own is None else self._write_bias(node, own, rounded.scale)
        node.args = (node.args[0], self.weights[weight], written, *options)
        for old in (weight, bias):
            if old is not None and not old.users:
                remove_constant(self.program, old)

    def _write_bias(self, node: Node, bias: Tensor, scale: Tensor) -> Node:
        if not self.unsigned:
            return add_constant(self.program, f"{node.name}.bias", bias)
        value: Any = node.args[0]
        while value.target in PADS:
            (value,) = value.all_input_nodes
        steps = (scale * value.args[1]).repeat(len(bias) // len(scale))  # groups of a transposed one share theirs
        integers = torch.round(bias.double() / steps.double()).clamp(-(2.0**31), 2.0**31 - 1).to(torch.int32)
        zeros = torch.zeros_like(steps, dtype=torch.int64)
        parts = {"int32": integers, "scale": steps, "zero": zeros}
        nodes = [add_constant(self.program, f"{node.name}.bias.{part}", data) for part, data in parts.items()]
        return insert(node, ops.dequantize_per_channel.default, *nodes, 0, -(2**31), 2**31 - 1, torch.int32)


class _Writer:
    """Writes quantisation into a program of which it is the only user."""

    def __init__(self, program: ExportedProgram, graph: Graph, rows: bool) -> None:
        self.program, self.graph, self.rows = program, graph, rows
        self.inputs: dict[tuple[Any, ...], Node] = {}  # a value and how it is quantised -> itself, back in float
        self.weights: dict[str, list[Node]] = {}  # a parameter -> its integers, scales and zero points

    def quantize(self, linear: Node, layer: str) -> None:
        """Quantise the Linear of that layer, as graph.layers says."""
        how = self.graph.layers[layer]
        if how not in ("int8", "int8-static", "int4"):
            raise ValueError(f"{layer} is to be {how!r}; expected int8, int8-static or int4")
        if how == "int8-static" and layer not in self.graph.ranges:
            raise ValueError(f"no range for {layer}, which is to be int8-static; expected one in Graph.ranges")
        scales = [choose_scale(self.graph.ranges[layer].input)] if how == "int8-static" else []
        arguments: tuple[Any, ...] = linear.args
        value, weight, *bias = arguments
        key = self.program.graph_signature.inputs_to_parameters[weight.name]
        if scales or self.rows:
            value = self._share_input(value, linear, *scales)
        linear.args = (value, self._quantize_weight(key, linear, how), *bias)
        if how == "int8-static":
            self._quantize_output(linear, choose_scale(self.graph.ranges[layer].output))
        if not weight.users:
            remove_constant(self.program, weight)

    def _share_input(self, value: Node, before: Node, *scale: Any) -> Node:
        key = (value, *scale)
        if key not in self.inputs:
            write = self._quantize_tensor if scale else self._quantize_rows
            self.inputs[key] = write(value, before, *scale)
        return self.inputs[key]

    def _quantize_rows(self, value: Node, before: Node) -> Node:
        scale_and_zero = insert(before, ops.choose_qparams_per_token_asymmetric.default, value, torch.int8)
        scale, zero = (insert(before, getitem, scale_and_zero, i) for i in (0, 1))
        quantized = insert(before, ops.quantize_per_token.default, value, scale, zero, *BYTE)
        return insert(before, ops.dequantize_per_token.default, quantized, scale, zero, *BYTE, torch.float32)

    def _quantize_tensor(self, value: Node, before: Node, scale: tuple[float, int]) -> Node:
        quantized = insert(before, ops.quantize_per_tensor.default, value, *scale, *BYTE)
        return insert(before, ops.dequantize_per_tensor.default, quantized, *scale, *BYTE)

    def _quantize_output(self, linear: Node, scale: tuple[float, int]) -> None:
        again = insert(linear, linear.target, *linear.args)
        quantized = self._quantize_tensor(again, linear, scale)
        replace_node(self.program, linear, quantized)

    def _quantize_weight(self, key: str, before: Node, how: str) -> Node:
        if key not in self.weights:
            data = self.program.state_dict[key].detach()  # [out, in]
            if how == "int4":
                try:
                    integers, scale = quantize_groups_weight(data, self.graph.group)
                except ValueError as e:
                    raise ValueError(f"{key} has {e}") from e
            else:
                integers, scale = quantize_rows_weight(data)
            zeros = torch.zeros_like(scale, dtype=torch.int64)
            parts = {"int4" if how == "int4" else "int8": integers, "scale": scale, "zero": zeros}
            self.weights[key] = [add_constant(self.program, f"{key}.{part}", data) for part, data in parts.items()]
        nodes = self.weights[key]
        if how == "int4":
            group = (self.graph.group, torch.float32)
            return insert(before, ops.dequantize_per_channel_group.default, *nodes, *NIBBLE, *group)
        return insert(before, ops.dequantize_per_channel.default, *nodes, 0, *CHANNEL)
