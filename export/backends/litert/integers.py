"""Convolutions and what is between them in int8, as graph.integers says, written into a float .tflite.

Tensors become int8 with the scales of their spans, weights int8 per output channel, biases int32 (XNNPACK's qs8-qc8w).
A QUANTIZE or DEQUANTIZE stands where int8 begins or ends. XNNPACK's delegate has the ops of VERSIONS in int8, but for
some that it has in no type. Of the others a clamp becomes the QUANTIZE of what it reads, which saturates at the same
ends, and the rest (HARD_SWISH, GELU, AVERAGE_POOL_2D, SOFTMAX) computes in float between integers.
"""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from bigvit_edge.artifact import Array
from bigvit_edge.console import silenced
from bigvit_edge.export.backends.litert.contents import (
    Model,
    add_buffer,
    find_code,
    name_op,
    read_floats,
    read_model,
    write_model,
)
from bigvit_edge.export.backends.litert.names import Nodes, complete_nodes
from bigvit_edge.export.backends.litert.quantization import REPORT, find_bias
from bigvit_edge.export.backends.litert.readback import FOLLOWING, check_subgraph
from bigvit_edge.export.backends.litert.values import Values, apply_fit
from bigvit_edge.export.backends.litert.weights import CHANNELS, PLACES, Weight, match_weight
from bigvit_edge.export.graph import Graph, read_constants
from bigvit_edge.export.integers import Range
from bigvit_edge.export.placement import TIED
from bigvit_edge.export.quantization import BYTE, choose_scale, widen_span

with silenced():
    from ai_edge_litert import schema_py_generated as schema

aten = torch.ops.aten

Scale = tuple[float, int]  # and zero point
FLOAT32, INT8, INT32 = schema.TensorType.FLOAT32, schema.TensorType.INT8, schema.TensorType.INT32
# ops that give what they read, in its scale: moved, or the largest of it
SAME = FOLLOWING | {
    *("CONCATENATION", "DEPTH_TO_SPACE", "GATHER", "MAX_POOL_2D", "PACK", "PAD", "RESIZE_BILINEAR", "SLICE"),
    *("RESIZE_NEAREST_NEIGHBOR", "SPACE_TO_DEPTH", "SPLIT", "STRIDED_SLICE", "TILE"),
}
FIXED: dict[str, Scale] = {"LOGISTIC": (1 / 256, -128), "TANH": (1 / 128, 0)}  # of outputs, as their kernels demand
CLAMPS = frozenset({"RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1"})
# the least version of each op that takes int8 (tensorflow/lite/tools/versioning/op_version.cc)
VERSIONS = (
    dict.fromkeys(SAME | FIXED.keys() | {"ADD", "BATCH_MATMUL", "LEAKY_RELU", "MEAN", "SUB"}, 2)
    | {"RESHAPE": 1, "EXPAND_DIMS": 1, "ELU": 1, "MUL": 3, "SUM": 2}
    | {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "TRANSPOSE_CONV": 3, "FULLY_CONNECTED": 12}
    | {"QUANTIZE": 2, "DEQUANTIZE": 2}
)
_KINDS = schema.ActivationFunctionType
BOUNDS = {_KINDS.RELU: (0.0, np.inf), _KINDS.RELU6: (0.0, 6.0), _KINDS.RELU_N1_TO_1: (-1.0, 1.0)}
SUMS = {aten.add.Tensor, aten.sub.Tensor}
FINEST = 1000  # times finer than the result's may a scale that a sum reads be; XNNPACK's bound is 1024
ATEN_CLAMPS = {aten.relu.default, aten.relu6.default, aten.hardtanh.default, aten.clamp.default}


def narrow_file(data: bytes, graphs: Sequence[Graph], nodes: Sequence[Nodes], floats: bytes) -> bytes:
    """Write into a file what its graphs compute in int8.

    The graphs are one for each subgraph; nodes: which ones the tensors come from; floats: the file before its Linears
    were quantised. RuntimeError if the file then does not say what the graphs do.
    """
    if not any(graph.integers.ops for graph in graphs):
        return data
    graphs, model = [widen_spans(graph) for graph in graphs], read_model(data)
    nodes = [complete_nodes(*each) for each in zip(nodes, (g.exported for g in graphs), model.subgraphs, strict=True)]
    values = [Values(floats, number, graph) for number, graph in enumerate(graphs)]
    for number, graph in enumerate(graphs):
        _Writer(model, number, graph, nodes[number], values[number]).write()
    before, written = read_model(data), write_model(model)
    after = read_model(written)
    for number, graph in enumerate(graphs):
        check_subgraph(before, after, number, graph, nodes[number], values[number])
    return written


def find_span(graph: Graph, node: Node | None) -> Range | None:
    """Find what a node's value spans.

    Or what it does behind a clamp that the node is one kernel with.
    """
    if node is None or node.name in graph.integers.spans:
        return None if node is None else graph.integers.spans[node.name]
    users = list(node.users)
    clamped = len(users) == 1 and users[0].target in ATEN_CLAMPS and users[0].name in graph.integers.ops
    return find_span(graph, users[0]) if clamped else None


def _list_moved(node: Node) -> Iterator[Node]:
    """A value, and those that it is, in other places."""
    yield node
    while node.target in TIED:
        yield (node := node.all_input_nodes[0])


def widen_spans(graph: Graph) -> Graph:
    """Widen the spans of values too small for their sums.

    XNNPACK's sums take no value whose scale is less than a thousandth of the result's: one that is zero for all images,
    or next to it.
    """
    spans = dict(graph.integers.spans)
    for node in graph.exported.graph.nodes:
        span = find_span(graph, node) if node.target in SUMS and node.name in graph.integers.ops else None
        step = choose_scale(span)[0] / FINEST if span is not None else 0.0
        for value in (moved for read in node.all_input_nodes for moved in _list_moved(read) if moved.name in spans):
            spans[value.name] = widen_span(spans[value.name], step)
    return replace(graph, integers=replace(graph.integers, spans=spans))


class _Writer:
    """Writes the integers of one subgraph."""

    def __init__(self, model: Model, number: int, graph: Graph, nodes: Nodes, values: Values) -> None:
        self.model, self.number, self.subgraph = model, number, model.subgraphs[number]
        self.graph, self.nodes, self.values = graph, nodes, values
        self.spans, self.weights = graph.integers.spans, graph.integers.weights
        self.by_name = {node.name: node for node in graph.exported.graph.nodes}
        self.constants = {node.name: data for node, data in read_constants(graph.exported).items()}
        self.tensors, self.ends = self.subgraph.tensors, set(map(int, self.subgraph.outputs))
        self.maker = {int(t): op for op in self.subgraph.operators for t in op.outputs}
        self.inputs = {id(op): [*map(int, op.inputs)] for op in self.subgraph.operators}  # of before
        moved = (op for op in self.subgraph.operators if self._name(op) not in SAME)
        self.computed = {node for op in moved for node in self._nodes_of(op.outputs[0])}
        self.scales: dict[int, Scale] = {}  # of the tensors that are int8
        self.copies: dict[tuple[int, Scale | None], int] = {}  # of a tensor in that scale, None: in float
        self.written: list[Any] = []

    def write(self) -> None:
        for op in self.subgraph.operators:
            if self._is_narrow(op):
                self._narrow(op)
            else:
                self._widen(op)
        read = self.ends | {int(t) for op in self.written for t in op.inputs}
        self.subgraph.operators = [op for op in self.written if not read.isdisjoint(map(int, op.outputs))]
        self._drop_unread()

    def _drop_unread(self) -> None:
        """The float constants that nothing reads any more go, and the other tensors are numbered anew."""
        graph, signatures = self.subgraph, [s for s in self.model.signatureDefs if s.subgraphIndex == self.number]
        lists = [graph.inputs, graph.outputs, *(t for op in graph.operators for t in (op.inputs, op.outputs))]
        read = {int(t) for tensors in lists for t in tensors} - {-1}
        details = {id(d): d for t in read if (d := _find_details(graph.tensors[t])) is not None}.values()
        kept = sorted(read | {int(d.scales) for d in details})
        place = {-1: -1} | {tensor: number for number, tensor in enumerate(kept)}
        graph.tensors = [graph.tensors[tensor] for tensor in kept]
        for d in details:
            d.scales = place[int(d.scales)]
        graph.inputs, graph.outputs = ([place[int(t)] for t in side] for side in (graph.inputs, graph.outputs))
        for op in graph.operators:
            op.inputs, op.outputs = ([place[int(t)] for t in side] for side in (op.inputs, op.outputs))
        for end in (end for s in signatures for end in [*s.inputs, *s.outputs]):
            end.tensorIndex = place[end.tensorIndex]

    # ---- what an op and a tensor are

    def _name(self, op: Any) -> str:
        return name_op(self.model.operatorCodes[op.opcodeIndex])

    def _nodes_of(self, tensor: int) -> tuple[str, ...]:
        """The nodes a tensor comes from, the one whose value it is first."""
        return self.nodes.get(self.tensors[tensor].name.decode(), ("",))

    def _is_narrow(self, op: Any) -> bool:
        name, output = self._name(op), op.outputs[0]
        if name in FOLLOWING and int(op.inputs[0]) in self.scales:
            return True
        nodes = self._nodes_of(output)
        if name in PLACES:
            return not self.weights.keys().isdisjoint(nodes)
        if name not in VERSIONS.keys() | CLAMPS or nodes[0] not in self.graph.integers.ops:
            return False
        if not (name in SAME or name in FIXED or self._span(output) is not None):
            return False
        # what the converter makes of one op in several, as of a norm, has no span within: it stays float there
        values = self._list_values(op)
        return all(self._find_scale(t) or read_floats(self.model, self.tensors[t]) is not None for t in values)

    def _span(self, tensor: int) -> Range | None:
        """What a tensor spans that is the value of a node with a span, or of one before a clamp that has."""
        name = self.tensors[tensor].name.decode()
        for node in self._nodes_of(tensor):
            span, fit = find_span(self.graph, self.by_name.get(node)), self.values.fit(name, node)
            if span is not None and fit is not None:
                return apply_fit(fit, span)
        return None

    def _source_scale(self, tensor: int) -> Scale:
        """The scale of a float tensor that integers are made of."""
        scale = self._find_scale(tensor)
        if scale is None:
            raise RuntimeError(f"no span of {self.tensors[tensor].name.decode()}, which int8 is made of; {REPORT}")
        return scale

    def _find_scale(self, tensor: int) -> Scale | None:
        """That of the value it is, moved or not."""
        if tensor in self.scales:
            return self.scales[tensor]
        op = self.maker.get(tensor)
        moved = op is not None and self._name(op) in SAME
        if not (moved and self.computed & set(self._nodes_of(tensor)[:1])) and (span := self._span(tensor)):
            return choose_scale(span)
        return self._find_scale(self._list_values(op)[0]) if moved else None

    def _list_values(self, op: Any) -> list[int]:
        """The inputs that are numbers to compute with; of an op with weights the first alone."""
        name = self._name(op)
        places = PLACES[name][:1] if name in PLACES else range(len(self.inputs[id(op)]))
        inputs = [self.inputs[id(op)][place] for place in places]
        return [t for t in inputs if t >= 0 and (t in self.scales or self.tensors[t].type == FLOAT32)]

    # ---- ops

    def _widen(self, op: Any) -> None:
        if self._name(op) != "QUANTIZE":
            op.inputs = [self._read_float(int(t)) for t in op.inputs]
        self.written.append(op)

    def _narrow(self, op: Any) -> None:
        name, values = self._name(op), self._list_values(op)
        found = self._find_weight(op) if name in PLACES else None
        scale = self._choose_scale(op, name, values, found)
        wanted = scale if name in SAME else None
        if found is not None and self._find_scale(values[0]) is None:  # what the converter made the value of has none
            wanted = self._read_plan(found.node)
        read = {value: self._read_integers(value, wanted) for value in values}
        op.inputs = [read.get(int(t), int(t)) for t in op.inputs]
        if found is not None:
            self._write_weight(op, name, found)
        if name in CLAMPS:
            name, op.builtinOptionsType, op.builtinOptions = "QUANTIZE", 0, None
        op.opcodeIndex = find_code(self.model, name, VERSIONS[name])
        outputs = [int(t) for t in op.outputs]
        op.outputs = [self._make_integers(t, scale) for t in outputs]
        self.written.append(op)
        for end, narrow in zip(outputs, op.outputs, strict=True):
            if end != narrow:
                self._convert(narrow, end, "DEQUANTIZE")

    def _read_plan(self, node: Node) -> Scale:
        """The scale in which the graph has a node read its value, zeros around it or not."""
        source: Any = node.args[0]
        while source.name not in self.spans and source.op == "call_function":
            source = source.args[0]
        return choose_scale(self.spans[source.name])

    def _choose_scale(self, op: Any, name: str, values: list[int], found: Weight | None) -> Scale:
        if name in FIXED:
            return FIXED[name]
        output = op.outputs[0]
        helps = name in SAME and bool(self.computed & set(self._nodes_of(output)[:1]))  # moves for another op
        span = None if helps else self._span(output)
        if span is None and found is not None:  # the converter joined it with what is to be float
            own = find_span(self.graph, found.node)
            if own is None:
                raise RuntimeError(f"no span of {found.node.name}, which is int8; {REPORT}")
            span = _clip(found.convert_span(own), op.builtinOptions.fusedActivationFunction)
        if span is not None:
            return choose_scale(span)
        return self._source_scale(values[0])

    # ---- tensors

    def _read_integers(self, tensor: int, wanted: Scale | None) -> int:
        """The tensor in int8, in the scale that is wanted or its own."""
        if tensor in self.scales and wanted in (None, self.scales[tensor]):
            return tensor
        constant = read_floats(self.model, self.tensors[tensor]) if tensor not in self.scales else None
        if wanted is None and constant is not None:
            wanted = choose_scale((float(constant.min()), float(constant.max())))
        scale = wanted or self._source_scale(tensor)
        made = self.copies.get((tensor, scale))
        if made is None:
            self.copies[tensor, scale] = made = self._copy_tensor(tensor, b"_int8")
            self._set_integers(made, scale)
            if constant is not None:
                integers = np.clip(np.round(constant / scale[0]) + scale[1], *BYTE[:2]).astype(np.int8)
                self.tensors[made].buffer = add_buffer(self.model, integers.tobytes())
            else:
                maker = self.maker.get(tensor)
                if tensor not in self.scales and maker and self._name(maker) == "DEQUANTIZE":  # behind a Linear in int8
                    tensor = int(maker.inputs[0])
                self._convert(tensor, made, "QUANTIZE")
        return made

    def _read_float(self, tensor: int) -> int:
        if tensor not in self.scales:
            return tensor
        if (tensor, None) not in self.copies:
            self.copies[tensor, None] = made = self._copy_tensor(tensor, b"_float")
            self.tensors[made].type, self.tensors[made].quantization = FLOAT32, None
            self._convert(tensor, made, "DEQUANTIZE")
        return self.copies[tensor, None]

    def _make_integers(self, tensor: int, scale: Scale) -> int:
        """The output of an op in int8; in place of a signature's output another one."""
        made = self._copy_tensor(tensor, b"_int8") if tensor in self.ends else tensor
        self._set_integers(made, scale)
        return made

    def _set_integers(self, tensor: int, scale: Scale) -> None:
        self.tensors[tensor].type = INT8
        self.tensors[tensor].quantization = _describe_scale([scale[0]], zero=scale[1])
        self.scales[tensor] = scale

    def _copy_tensor(self, tensor: int, suffix: bytes) -> int:
        made = copy(self.tensors[tensor])
        made.name, made.buffer = made.name + suffix, 0
        self.tensors.append(made)
        return len(self.tensors) - 1

    def _convert(self, source: int, target: int, how: str) -> None:
        op = schema.OperatorT()
        op.opcodeIndex, op.inputs, op.outputs = find_code(self.model, how, VERSIONS[how]), [source], [target]
        self.written.append(op)

    # ---- weights

    def _find_weight(self, op: Any) -> Weight:
        """The convolution or Linear whose weight an op has."""
        name, output = self._name(op), op.outputs[0]
        _, place, at = PLACES[name]
        found = read_floats(self.model, self.tensors[op.inputs[place]])
        for node in (self.by_name[n] for n in self._nodes_of(output) if n in self.weights):
            own = self.constants[node.args[1].name].numpy()
            factor = None if found is None else match_weight(node, own, found, name)
            if factor is not None:
                bias = read_floats(self.model, self.tensors[op.inputs[at]]) if _has(op, at) else None
                bias = np.zeros_like(factor) if bias is None else bias
                into = self._find_factor(op.inputs[PLACES[name][0]])
                return Weight(node, factor, bias, into, find_bias(self.graph.exported, node))
        raise RuntimeError(f"{self.tensors[output].name.decode()} has the weight of no op that is int8; {REPORT}")

    def _find_factor(self, tensor: int) -> float:
        """What a tensor is of the value that it is, moved or not."""
        name, op = self.tensors[tensor].name.decode(), self.maker.get(tensor)
        for node in self._nodes_of(tensor):
            if fit := self.values.fit(name, node):
                return fit[0]
        return self._find_factor(self._list_values(op)[0]) if op is not None and self._name(op) in SAME else 1.0

    def _write_weight(self, op: Any, name: str, found: Weight) -> None:
        """Weight and bias of an op whose input is int8 already."""
        source, at_weight, at_bias = PLACES[name]
        inputs = [*map(int, op.inputs), *[-1] * (at_bias + 1 - len(op.inputs))]
        rounded = self.weights[found.node.name]
        weight, scale, bias, steps = found.round(rounded, name, self.scales[inputs[source]][0])
        named = inputs[at_bias] if inputs[at_bias] >= 0 else inputs[at_weight]
        dimension = CHANNELS.get(name, 0)
        inputs[at_weight] = self._add_constant(inputs[at_weight], b"_int8", weight, _describe_scale(scale, dimension))
        inputs[at_bias] = self._add_constant(named, b"_int32", bias, _describe_scale(steps))
        op.inputs = inputs

    def _add_constant(self, like: int, suffix: bytes, values: Array, scheme: Any) -> int:
        made = self._copy_tensor(like, suffix)
        tensor = self.tensors[made]
        tensor.type, tensor.shape = (INT8 if values.dtype == np.int8 else INT32), np.array(values.shape, np.int32)
        tensor.quantization, tensor.buffer = scheme, add_buffer(self.model, values.tobytes())
        return made


def _clip(span: Range, activation: int) -> Range:
    """What an activation in the same op leaves of a span."""
    least, most = BOUNDS.get(activation, (-np.inf, np.inf))
    return min(max(span[0], least), most), min(max(span[1], least), most)


def _find_details(tensor: Any) -> Any:
    """What names the tensor of a weight's scales, where it has them by groups."""
    details = None if tensor.quantization is None else tensor.quantization.details
    return details if hasattr(details, "scales") else None


def _has(op: Any, place: int) -> bool:
    return len(op.inputs) > place and int(op.inputs[place]) >= 0


def _describe_scale(scales: Any, dimension: int = 0, zero: int = 0) -> Any:
    scheme = schema.QuantizationParametersT()
    scheme.scale = np.array(scales, np.float32)
    scheme.zeroPoint, scheme.quantizedDimension = np.full(len(scheme.scale), zero, np.int64), dimension
    return scheme
