"""The int8 part of a graph, made for each format: where it computes so, on which ranges, with which weights."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import ExportedProgram
from torch.fx import Node
from torch.utils._python_dispatch import TorchDispatchMode

from bigvit_edge.artifact import Array
from bigvit_edge.export.calibration import measure_spans
from bigvit_edge.export.convolutions import round_convolutions
from bigvit_edge.export.full import list_whole, write_whole
from bigvit_edge.export.graph import Graph, name_layer, read_constants
from bigvit_edge.export.integers import Integers, Range, Rounded
from bigvit_edge.export.placement import (
    CLIPS,
    COPYING,
    FIXED,
    MEANS,
    has_kernel,
    list_convolutions,
    list_values,
    place_integers,
    write_copies,
    write_for_integers,
)
from bigvit_edge.export.products import PRODUCTS, find_zeros, list_options
from bigvit_edge.export.quantization import CHANNEL, LEAST, MOST_BIAS, choose_scale, widen_span
from bigvit_edge.export.rounding import round_linears
from bigvit_edge.target import FULL, Target

aten = torch.ops.aten

MOST_STEPS = 100  # of a result may one of what it is computed in be; XNNPACK's bound is 128 and more
# ops whose results are multiples of what they read
SCALED = CLIPS | MEANS | {aten.clamp.default, aten.add.Tensor, aten.sub.Tensor}
Plan = Mapping[str, Sequence[Node]]  # the ops of a graph that compute in int8, by format


def add_integers(graphs: Sequence[Graph], target: Target, images: Array) -> dict[str, list[Graph]]:
    """Add to each graph what computes in int8, by format.

    The graphs are of one model at several keep ratios, with their layers; images: [n, 3, S, S] to calibrate on.
    Convolutions that a format has no fast kernel for stay float there, and leave the layers.
    """
    if graphs[0].precision == FULL:
        graphs = [replace(graph, exported=write_whole(graph.exported)) for graph in graphs]
        runtimes = {name: _find_runtime(target, name) for name in target.formats}
        plans = [{name: list_whole(g.exported, runtime) for name, runtime in runtimes.items()} for g in graphs]
        return _fill(graphs, plans, images)
    if not any(_list_chosen(graph) for graph in graphs):
        return {name: list(graphs) for name in target.formats}
    added = {
        name: [_drop(graph, []) for graph in graphs] for name in target.formats if _find_runtime(target, name) == ""
    }
    if _find_runtime(target, "coreml") == "" and "coreml" in target.formats:
        added["coreml"] = list(graphs)  # their weights alone
    written: dict[tuple[int, ...], list[str]] = {}  # formats, by the programs that they take
    for name in target.formats:
        if name not in added:
            programs = [_write(graph.exported, name) for graph in graphs]
            written.setdefault(tuple(map(id, programs)), []).append(name)
    for names in written.values():
        ready = [replace(graph, exported=_write(graph.exported, names[0])) for graph in graphs]
        added |= _fill(ready, [{name: _place(g, _find_runtime(target, name)) for name in names} for g in ready], images)
    return added


def _fill(graphs: Sequence[Graph], plans: Sequence[Plan], images: Array) -> dict[str, list[Graph]]:
    """The graphs by format, with the ops that its plan has in int8: all have one set of ranges and of weights."""
    spans = _measure_all(graphs, plans, images)
    filled: dict[str, list[Graph]] = {name: [] for plan in plans for name in plan}
    known: dict[tuple[str, ...], Rounded] = {}  # by op and weight: what keep ratios have in common is stored once
    for graph, plan in zip(graphs, plans, strict=True):
        for name, ops in sorted(plan.items(), key=lambda item: -len(item[1])):
            joined, keys = join_spans(graph.exported, ops, spans), {_name_weight(node): node.name for node in ops}
            if keys.keys() - {()} - known.keys():
                rounded = round_convolutions(graph, ops, joined, images) | round_linears(graph, ops, joined)
                known = {key: rounded[op] for key, op in keys.items() if op in rounded} | known
            own = {op: known[key] for key, op in keys.items() if key in known}
            integers = Integers(frozenset(node.name for node in ops), joined, own)
            filled[name].append(replace(_drop(graph, ops), integers=integers))
    return filled


def _name_weight(node: Node) -> tuple[str, ...]:
    """An op and its weight; () of one without."""
    return (node.name, node.all_input_nodes[1].name) if node.target in PRODUCTS else ()


def _find_runtime(target: Target, name: str) -> str:
    """What runs a format's integers, as in LIGHT; '' where nothing does: our core has no convolutions, and Core ML
    rounds no activations before iOS17."""
    runtime = "coreml" if target.find_backend(name) == "coreml" else name
    return "" if target.is_native(name) or (runtime == "coreml" and target.deployment < "iOS17") else runtime


def convolves(module: nn.Module, image_size: int) -> bool:
    """Tell whether a model has convolutions that int8 wants ranges for.

    One over patches of the image is none: it is a Linear. Where the model does not run without data, its modules tell.
    """
    try:
        with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True), _Lookout() as lookout:  # type: ignore[no-untyped-call]
            module(torch.zeros(1, 3, image_size, image_size))
    except Exception:  # it looks at values that are not there, in any way
        return any(isinstance(part, nn.Conv2d) and part.stride != part.kernel_size for part in module.modules())
    return bool(lookout.found)


class _Lookout(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Looks out for a convolution that is not over patches of the image."""

    found = False

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten.convolution.default:
            image, weight, _, stride, *_ = args
            self.found |= image.shape[1] != 3 or list(stride) != list(weight.shape[2:])
        return func(*args, **(kwargs or {}))


_written: WeakKeyDictionary[ExportedProgram, dict[str, ExportedProgram]] = WeakKeyDictionary()  # for all precisions


def _write(program: ExportedProgram, runtime: str) -> ExportedProgram:
    known = _written.setdefault(program, {})
    if "" not in known:
        known[""] = write_for_integers(program)
    if runtime in COPYING and runtime not in known:
        known[runtime] = write_copies(known[""])
    return known.get(runtime, known[""])


def _list_chosen(graph: Graph) -> list[Node]:
    """The convolutions among the layers; what became one of a batch norm goes with them."""
    convolutions = list_convolutions(graph.exported)
    found = [node for node in convolutions if name_layer(graph, node) in graph.layers]
    return [node for node in convolutions if node in found or not name_layer(graph, node)] if found else []


def _place(graph: Graph, runtime: str) -> list[Node]:
    return place_integers(graph.exported, [node for node in _list_chosen(graph) if has_kernel(node, runtime)], runtime)


def _measure_all(graphs: Sequence[Graph], plans: Sequence[Plan], images: Array) -> dict[str, Range]:
    """What each value spans at every keep ratio."""
    spans: dict[str, Range] = {}
    for graph, plan in zip(graphs, plans, strict=True):
        pairs = [pair for ops in plan.values() for pair in list_values(graph.exported, ops)]
        values = {value.name for pair in pairs for value in pair}
        for name, span in measure_spans(graph.exported, values, images).items():
            low, high = spans.get(name, span)
            spans[name] = min(low, span[0]), max(high, span[1])
    return spans


def join_spans(program: ExportedProgram, ops: Sequence[Node], spans: Mapping[str, Range]) -> dict[str, Range]:
    """Join the spans of tied values.

    Those known are fixed, and those finer than what they are made of widened.
    """
    joined: dict[Node, Range] = {}
    leaders = dict(list_values(program, ops))
    for value, leader in leaders.items():
        span = FIXED.get(value.target) or spans[value.name]
        low, high = joined.get(leader, span)
        joined[leader] = min(low, span[0]), max(high, span[1])
    constants = read_constants(program)
    for node in ops:
        value, reads = node, [_find_held(read, leaders) for read in node.all_input_nodes]
        while value not in leaders:  # one kernel with what reads it
            (value,) = value.users
        steps = [choose_scale(joined[leaders[read]])[0] for read in reads if read in leaders]
        leader, step = leaders[value], _find_step(node, steps, constants)
        joined[leader] = widen_span(joined[leader], step / MOST_STEPS)
    return {value.name: joined[leader] for value, leader in leaders.items()}


def _find_held(read: Node, leaders: Collection[Node]) -> Node:
    """What a convolution reads, zeros around it or not."""
    return read.all_input_nodes[0] if read not in leaders and find_zeros(read) is not None else read


def _find_step(node: Node, steps: Sequence[float], constants: Mapping[Node, Tensor]) -> float:
    """The step in which an op computes, of those of what it reads; 0 where it is read from a table, or of no kernel."""
    if node.target in PRODUCTS:
        weight, bias = constants.get(node.all_input_nodes[1]), constants.get(list_options(node)[0])
        step = 0.0 if weight is None else steps[0] * max(float(weight.abs().max()) / CHANNEL[1], LEAST)
        return step if bias is None else max(step, float(bias.abs().max()) / (MOST_BIAS / 2))
    if node.target is aten.mul.Tensor:
        return prod(steps) if len(steps) == 2 else 0.0
    return max(steps, default=0.0) if node.target in SCALED else 0.0


def _drop(graph: Graph, ops: Collection[Node]) -> Graph:
    """The graph with no convolutions among its layers but these ops."""
    dropped = {name_layer(graph, node) for node in list_convolutions(graph.exported) if node not in ops}
    return replace(graph, layers={layer: how for layer, how in graph.layers.items() if layer not in dropped})
