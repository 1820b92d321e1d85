"""Which layer becomes what: the user's words, what a precision can hold, and for `mixed` the search.

A layer is a Linear or a convolution; what lies between convolutions follows them (placement.py).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.fx import Node

from bigvit_edge.artifact import Array
from bigvit_edge.errors import UserError, suggest
from bigvit_edge.export.calibration import calibrate, visit_layers
from bigvit_edge.export.graph import PATCHES, Graph, Ranges, matrix_products, name_layer, read_constants, weight_name
from bigvit_edge.export.parity import CONVOLVED, compare, judge
from bigvit_edge.export.placement import list_convolutions
from bigvit_edge.export.sensitivity import STATIC, Rounder, Sensitivity, choose_precisions, measure_sensitivities
from bigvit_edge.target import FULL, Limits, Quant, Target

HALF_MAX = torch.finfo(torch.float16).max
PARTS = ("p", "e", "router")  # of a big.LITTLE layer, by the names of its modules
HEADROOM = 0.25  # of what a limit allows: the search sees calibration images, the check others
FEW = 8  # images are enough for SQNR, which sums over all their tokens

Show = Callable[[Sequence[Sensitivity], Mapping[str, str]], None]


def assign_layers(
    graphs: Sequence[Graph], precision: str, target: Target, images: Array, trained: bool, show: Show
) -> list[Graph]:
    """Assign each layer one precision in all graphs of a model.

    The graphs are of several keep ratios. Where ranges are needed, these are one for each Linear too. images: to
    calibrate on. show is told the sensitivities and the choice of `mixed`.

    UserError if a word of the settings fits no Linear, or nothing is left to quantise.
    """
    if precision == "fp16":
        _check_half(graphs[0])
    if precision in ("fp32", "fp16"):
        return [replace(graph, precision=precision) for graph in graphs]
    if precision == FULL:
        return [replace(graph, precision=FULL, layers=dict.fromkeys(list_layers(graph), STATIC)) for graph in graphs]
    linears = {layer: node for graph in graphs for layer, node in list_layers(graph).items()}
    candidates = list_candidates(linears, precision, target.quant)
    mixed = precision == "mixed"
    static = [layer for layer, words in candidates.items() if (STATIC in words if is_linear(linears[layer]) else mixed)]
    ranges = _calibrate_all(graphs, static, images, target.quant) if static else {}
    graphs = [replace(graph, precision=precision, ranges=ranges, group=target.quant.group) for graph in graphs]
    if precision != "mixed":
        return [_choose(graph, {layer: precisions[0] for layer, precisions in candidates.items()}) for graph in graphs]
    chosen = _search(graphs, candidates, target.limits, images, trained, show)
    return [_choose(graph, chosen) for graph in graphs]


def _check_half(graph: Graph) -> None:
    for node, data in read_constants(graph.exported).items():
        largest = float(data.abs().max()) if data.is_floating_point() and data.numel() else 0.0
        if largest > HALF_MAX:
            met = f"{node.name.removeprefix('p_')} holds {largest:g}"
            raise UserError(met, f"at most {HALF_MAX:g}, the largest float16", "leave fp16 out of --set precisions=")


def _calibrate_all(graphs: Sequence[Graph], layers: list[str], images: Array, quant: Quant) -> dict[str, Ranges]:
    """Ranges that hold at every keep ratio: equal ranges have equal integers, stored once."""
    ranges: dict[str, Ranges] = {}
    for graph in graphs:
        seen = calibrate(graph.exported, list_layers(graph).keys() & layers, images, quant)
        ranges |= {layer: r.widen(ranges[layer]) if layer in ranges else r for layer, r in seen.items()}
    return ranges


def list_linears(graph: Graph) -> dict[str, Node]:
    """List every Linear with a weight of its own, by module name."""
    return {
        name.removesuffix(".weight"): node
        for node, _ in matrix_products(graph.exported)
        if node.target is torch.ops.aten.linear.default and (name := weight_name(graph.exported, node))
    }


def list_layers(graph: Graph) -> dict[str, Node]:
    """List every Linear and convolution with a weight of its own.

    By module name; convolutions are of images. Around one of our models there are Linears alone.
    """
    if graph.inlay is not None:
        return list_linears(graph)
    convolutions = {name_layer(graph, node): node for node in list_convolutions(graph.exported)}
    return list_linears(graph) | {layer: node for layer, node in convolutions.items() if layer}


def is_linear(node: Node) -> bool:
    """Tell a Linear from a convolution."""
    return node.target is torch.ops.aten.linear.default


def list_candidates(linears: Mapping[str, Node], precision: str, quant: Quant) -> dict[str, tuple[str, ...]]:
    """List what each layer may become, at least one each.

    Those that can only stay float are left out. int4 needs inputs that are a multiple of the group: a Linear with
    others has int8 in its place, and so has a convolution.
    """
    _check_words(list(linears), quant)
    candidates: dict[str, tuple[str, ...]] = {}
    for layer, node in linears.items():
        wanted = _list_wanted(layer, node, precision, quant)
        if not is_linear(node) or node.args[1].meta["val"].shape[1] % quant.group:  # type: ignore[union-attr]
            wanted = tuple(dict.fromkeys("int8" if p == "int4" else p for p in wanted))
        if wanted != ("fp32",):
            candidates[layer] = wanted
    if not candidates:
        met = f"quant.keep_float={','.join(quant.keep_float)} leaves nothing for {precision}"
        raise UserError(met, "some layer to quantise", "take fewer words, or precisions=fp32")
    return candidates


def _list_wanted(layer: str, node: Node, precision: str, quant: Quant) -> tuple[str, ...]:
    parts = [part for part in PARTS if part in layer.split(".") and getattr(quant, part)]
    if precision == "mixed" and parts:
        return (getattr(quant, parts[0]),)
    kept = set(quant.keep_float)
    if not is_linear(node) and quant.keep_float == Quant().keep_float:
        kept = set()  # the presets' words are of a big.LITTLE layer, which has no convolutions
    if set(layer.split(".")) & kept:
        return ("fp32",)
    return quant.candidates if precision == "mixed" else (precision,)


def _check_words(layers: list[str], quant: Quant) -> None:
    """A preset's word need not fit every model (a dense one has no router); a user's must."""
    parts = {part for layer in (*layers, PATCHES) for part in layer.split(".")}
    names = {part for part in parts if not part.isdigit()}
    for word in quant.keep_float:
        if word not in Quant().keep_float and word not in parts:
            raise UserError(f"quant.keep_float={word}", "a part of a layer's name", suggest(word, sorted(names)))
    for part in PARTS:
        if getattr(quant, part) and part not in names:
            raise UserError(
                f"quant.{part}={getattr(quant, part)}", f"a model with Linears in a {part!r}", "leave it out"
            )


def _choose(graph: Graph, precisions: Mapping[str, str]) -> Graph:
    """The graph with the choice for its own Linears: at keep 1 those for skipped tokens are not in it."""
    own = list_layers(graph)
    layers = {layer: precision for layer, precision in precisions.items() if precision != "fp32" and layer in own}
    ranges = {layer: graph.ranges[layer] for layer in layers if layer in graph.ranges and layers[layer] == STATIC}
    return replace(graph, layers=layers, ranges=ranges)


def _search(
    graphs: Sequence[Graph], candidates: Mapping[str, tuple[str, ...]], limits: Limits, images: Array, trained: bool,
    show: Show,
) -> dict[str, str]:  # fmt: skip
    """By sensitivities at the smallest keep ratio, where every Linear has work; good enough means at every ratio."""
    first = min(graphs, key=lambda graph: graph.keep or 0)
    sensitivities = measure_sensitivities(first, candidates, images[:FEW])
    rounders = [Rounder(graph) for graph in graphs]
    answers = [visit_layers(graph.exported, images, lambda *_: None) for graph in graphs]
    strict = _tighten(limits)

    def good_enough(precisions: Mapping[str, str]) -> bool:
        for graph, rounder, expected in zip(graphs, rounders, answers, strict=True):
            logits = visit_layers(graph.exported, images, partial(_round_linear, rounder, precisions))
            convolved = any(precisions.get(layer, "fp32") != "fp32" for layer in rounder.convolutions)
            standard = CONVOLVED if convolved else "mixed"
            if judge(compare(logits, expected), standard, strict, trained, graph.keep):
                return False
        return True

    chosen = choose_precisions(sensitivities, good_enough)
    show(sensitivities, chosen)
    return chosen


def _round_linear(
    rounder: Rounder, precisions: Mapping[str, str], layer: str, node: Node, args: tuple[Tensor, ...], value: Tensor
) -> Tensor:
    precision = precisions.get(layer, "fp32")
    return value if precision == "fp32" else rounder.round(layer, args, precision)


def _tighten(limits: Limits) -> Limits:
    names = (
        "mixed_cosine", "mixed_centred", "untrained_cosine", "top1_agreement",
        "convolved_cosine", "convolved_centred", "convolved_agreement",
    )  # fmt: skip
    return replace(limits, **{name: 1 - (1 - getattr(limits, name)) * HEADROOM for name in names})
