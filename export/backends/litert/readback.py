"""Whether a .tflite holds in int8 what its graph says, convolutions and what is between them: read from the file."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from bigvit_edge.export.backends.litert.contents import TYPE_NAMES, Model, Op, find_shape, list_ops, read_model
from bigvit_edge.export.backends.litert.names import Nodes
from bigvit_edge.export.backends.litert.quantization import REPORT
from bigvit_edge.export.backends.litert.values import SAME, Fit, Values, apply_fit
from bigvit_edge.export.backends.litert.weights import CHANNELS, PLACES
from bigvit_edge.export.graph import Graph
from bigvit_edge.export.integers import Integers, Range
from bigvit_edge.export.quantization import LEAST, choose_scale

aten = torch.ops.aten

CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")
FOLLOWING = frozenset({"RESHAPE", "TRANSPOSE", "EXPAND_DIMS"})  # int8 wherever they read it
NEAR = 0.25  # of a weight's norm, by which it may change in rounding; another weight is further from it than its norm
SQUASHED = {aten.sigmoid.default, aten.tanh.default}  # their kernels fix the scale


def count_conversions(data: bytes, number: int = 0) -> int:
    """Count the conversions of a subgraph.

    To int8, from it and between two scales of it.
    """
    ops = Counter(op.name for op in list_ops(read_model(data), number))
    return sum(ops[name] for name in CONVERSIONS)


def check_subgraph(before: Model, after: Model, number: int, graph: Graph, nodes: Nodes, values: Values) -> None:
    """Check a subgraph against what its graph says of int8.

    before: the file without; nodes, values: what its tensors come from and hold. Each weight of graph.integers must be
    there, near what it was, between the scales of the spans; nothing else may be int8, and nothing be made float to
    become int8 again. RuntimeError otherwise.
    """
    plan, by_name = graph.integers, {node.name: node for node in graph.exported.graph.nodes}
    weights = {op.output: op.weight for op in list_ops(before, number) if op.name in PLACES}
    known = {t.name.decode() for t in before.subgraphs[number].tensors if TYPE_NAMES[t.type] == "INT8"}
    tensors, left = after.subgraphs[number].tensors, set(plan.weights)
    for op in list_ops(after, number):
        name, made = op.output.removesuffix("_int8"), TYPE_NAMES[tensors[op.outputs[0]].type]
        sources = nodes.get(name, ())
        if made != "INT8" or op.output in known or op.name in FOLLOWING.union(CONVERSIONS):
            continue
        if not plan.ops & set(sources):
            raise RuntimeError(f"{op.name} of {name} became int8, which its graph does not say; {REPORT}")
        if op.name in PLACES:
            _check_weight(after, tensors, op, weights[name], name)
            (node, *_) = [n for n in sources if n in plan.weights] or [""]
            left -= {n for n in sources if n in plan.weights}
            source = _find_source(by_name[node], plan)
            fits = [fit for t, made in nodes.items() if source.name in made and (fit := values.fit(t, source.name))]
            _check_source(tensors[op.inputs[PLACES[op.name][0]]], source, plan, fits)
            _check_output(tensors[op.outputs[0]], name, [by_name[n] for n in sources if n in by_name], plan, values)
    done = [by_name[name] for name in set(plan.weights) - left]  # of two that compute the same the file has one
    left = {n for n in left if not any((by_name[n].target, by_name[n].args) == (o.target, o.args) for o in done)}
    if left:
        raise RuntimeError(f"{', '.join(sorted(left))} did not become int8; {REPORT}")
    _check_conversions(list_ops(after, number))


def _check_weight(model: Model, tensors: Any, op: Op, was: Any, name: str) -> None:
    """An int8 weight times its scales must be near the float one of before."""
    weight, channel = tensors[op.inputs[PLACES[op.name][1]]], CHANNELS.get(op.name, 0)
    scheme, shape = weight.quantization, find_shape(weight)
    integers = np.frombuffer(model.buffers[weight.buffer].data, np.int8).reshape(shape)
    if len(scheme.scale) != shape[channel] or scheme.quantizedDimension != channel or np.any(scheme.zeroPoint):
        raise RuntimeError(
            f"the weight of {name} has {len(scheme.scale)} scales for {shape[channel]} channels; {REPORT}"
        )
    scales = np.reshape(scheme.scale, [-1 if at == channel else 1 for at in range(len(shape))])
    most = NEAR * np.linalg.norm(was) + LEAST * np.sqrt(was.size)
    if integers.min() == -128 or np.linalg.norm(integers * scales - was) > most:
        raise RuntimeError(f"the int8 weight of {name} is not the float one rounded; {REPORT}")


def _find_source(node: Node, plan: Integers) -> Node:
    """The value with a span that a node reads, zeros around it or not."""
    source: Any = node.args[0]
    while source.name not in plan.spans and source.op == "call_function":
        source = source.args[0]
    return source  # type: ignore[no-any-return]


def _find_value(node: Node, plan: Integers) -> Node:
    """The value with a span that a node's is, a clamp behind it or not."""
    while node.name not in plan.spans and node.name in plan.ops and len(node.users) == 1:
        (node,) = node.users
    return node


def _check_source(tensor: Any, value: Node, plan: Integers, fits: Sequence[Fit]) -> None:
    """A tensor must be in the scale of what the graph says its value spans; fits: what the file may hold of it.

    Or of what another value spans, clamped or not: the converter moves factors and clamps past one another.
    """
    if value.target not in SQUASHED and value.name in plan.spans:
        others = [s for low, high in plan.spans.values() for s in ((low, high), (0.0, max(high, 0.0)))]
        _check_scale(tensor, value, [*(apply_fit(fit, plan.spans[value.name]) for fit in (SAME, *fits)), *others])


def _check_output(tensor: Any, name: str, sources: Sequence[Node], plan: Integers, values: Values) -> None:
    """A tensor must be in the scale of what it holds: the first of its sources whose value, or a multiple, it is.

    Its name alone does not tell: queries that the converter scaled in a convolution are named after the attention.
    """
    for source in sources:
        value, fit = _find_value(source, plan), values.fit(name, source.name)
        if fit is not None and value.name in plan.spans:
            if value.target not in SQUASHED:
                _check_scale(tensor, value, [apply_fit(fit, plan.spans[value.name])])
            return


def _check_scale(tensor: Any, value: Node, spans: Sequence[Range]) -> None:
    """A tensor must be in the scale of one of the spans."""
    scheme, scales = tensor.quantization, [choose_scale(span) for span in spans]
    if not any(np.allclose(scheme.scale, [s], rtol=1e-5, atol=0) and list(scheme.zeroPoint) == [z] for s, z in scales):
        met = f"{tensor.name.decode()} has the scale {scheme.scale} and zero point {scheme.zeroPoint}"
        raise RuntimeError(f"{met}, and {value.name} {scales[0]}; {REPORT}")


def _check_conversions(ops: list[Op]) -> None:
    widened = {op.outputs[0] for op in ops if op.name == "DEQUANTIZE"}
    for op in ops:
        if op.name == "QUANTIZE" and op.inputs[0] in widened:
            raise RuntimeError(f"{op.output} was made float and int8 again; {REPORT}")
