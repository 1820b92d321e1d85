"""Which layer becomes what: the user's words, what a precision can hold, and for `mixed` the search.

A layer is a Linear or a convolution; what lies between convolutions follows them (placement.py).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.fx import Node

from bigvit_edge.errors import UserError, suggest
from bigvit_edge.export.calibration import calibrate, visit_layers
from bigvit_edge.export.graph import Graph, Ranges, matrix_products, name_layer, read_constants, weight_name
from bigvit_edge.export.placement import list_convolutions
from bigvit_edge.export.sensitivity import STATIC, Rounder, Sensitivity, choose_precisions, measure_sensitivities
from bigvit_edge.signature import Array
from bigvit_edge.target import FULL, OWN, Limits, Quant, Target
from bigvit_edge.tasks import find_task
from bigvit_edge.tasks.comparison import CONVOLVED

HALF_MAX = torch.finfo(torch.float16).max
PARTS = ("p", "e", "router")  # of a big.LITTLE layer, by the names of its modules
PRODUCTS = nn.Linear, nn.Conv1d, nn.Conv2d
HEADROOM = 0.25  # of what a limit allows: the search sees calibration images, the check others
FEW = 8  # images are enough for SQNR, which sums over all their tokens

OnSensitivities = Callable[[Sequence[Sensitivity], Mapping[str, str]], None]


def assign_layers(
    graphs: Sequence[Graph],
    precision: str,
    target: Target,
    images: Array,
    trained: bool,
    on_sensitivities: OnSensitivities,
) -> list[Graph]:
    """Assign each layer one precision in all graphs of a model.

    The graphs are of several keep ratios. Where ranges are needed, these are one for each Linear too. images: to
    calibrate on. on_sensitivities is given those of `mixed`, and its choice.

    UserError if a word of the settings fits no Linear, or nothing is left to quantise.
    """
    if precision == "fp16":
        _check_half(graphs[0])
    if precision in ("fp32", "fp16"):
        return [replace(graph, precision=precision) for graph in graphs]
    if precision == FULL:
        return [replace(graph, precision=FULL, layers=dict.fromkeys(list_layers(graph), STATIC)) for graph in graphs]
    linears = {layer: node for graph in graphs for layer, node in list_layers(graph).items()}
    module = graphs[0].module
    _check_words(linears, module, target.quant)
    candidates = list_candidates(linears, precision, target.quant, find_kept(linears, module, target.quant))
    mixed = precision == "mixed"
    static = [layer for layer, words in candidates.items() if (STATIC in words if is_linear(linears[layer]) else mixed)]
    ranges = _calibrate_all(graphs, static, images, target.quant) if static else {}
    graphs = [replace(graph, precision=precision, ranges=ranges, group=target.quant.group) for graph in graphs]
    if precision != "mixed":
        return [_choose(graph, {layer: precisions[0] for layer, precisions in candidates.items()}) for graph in graphs]
    chosen = _search(graphs, candidates, target.limits, images, trained, on_sensitivities)
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

    By module name; convolutions are of images.
    """
    convolutions = {name_layer(graph, node): node for node in list_convolutions(graph.exported)}
    return list_linears(graph) | {layer: node for layer, node in convolutions.items() if layer}


def is_linear(node: Node) -> bool:
    """Tell a Linear from a convolution."""
    return node.target is torch.ops.aten.linear.default


def find_kept(layers: Iterable[str], module: nn.Module | None, quant: Quant) -> set[str]:
    """Find the layers that stay float.

    Those that quant.keep_float names: the user's words fit any layer, those of a model inside the module its own.
    """
    kept = {layer for layer in layers if set(layer.split(".")) & (set(quant.keep_float) - {OWN})}
    if module is None or OWN not in quant.keep_float:
        return kept
    for name, inside in module.named_modules(remove_duplicate=False):
        start, words = f"{name}." if name else "", set(getattr(inside, "KEEP_FLOAT", ()))
        own = {layer: layer.removeprefix(start).split(".") for layer in layers if words and layer.startswith(start)}
        kept |= {layer for layer, parts in own.items() if words & set(parts)}
    return kept


def list_candidates(
    linears: Mapping[str, Node], precision: str, quant: Quant, kept: Set[str]
) -> dict[str, tuple[str, ...]]:
    """List what each layer may become, at least one each.

    kept: as of find_kept. Those that can only stay float are left out. int4 needs inputs that are a multiple of the
    group: a Linear with others has int8 in its place, and so has a convolution.
    """
    candidates: dict[str, tuple[str, ...]] = {}
    for layer, node in linears.items():
        wanted = _list_wanted(layer, precision, quant, layer in kept)
        if not is_linear(node) or node.args[1].meta["val"].shape[1] % quant.group:  # type: ignore[union-attr]
            wanted = tuple(dict.fromkeys("int8" if p == "int4" else p for p in wanted))
        if wanted != ("fp32",):
            candidates[layer] = wanted
    if not candidates:
        met = f"quant.keep_float={','.join(quant.keep_float)} leaves nothing for {precision}"
        raise UserError(met, "some layer to quantise", "take fewer words, or precisions=fp32")
    return candidates


def _list_wanted(layer: str, precision: str, quant: Quant, is_kept: bool) -> tuple[str, ...]:
    parts = [part for part in PARTS if part in layer.split(".") and getattr(quant, part)]
    if precision == "mixed" and parts:
        return (getattr(quant, parts[0]),)
    if is_kept:
        return ("fp32",)
    return quant.candidates if precision == "mixed" else (precision,)


def _check_words(layers: Iterable[str], module: nn.Module | None, quant: Quant) -> None:
    """Every word that the user names fits a layer, of those too that stay float in any case or are part of an op."""
    modules = () if module is None else module.named_modules(remove_duplicate=False)
    all_layers = {*layers, *(name for name, inside in modules if isinstance(inside, PRODUCTS))}
    parts = {part for layer in all_layers for part in layer.split(".")}
    names = {part for part in parts if not part.isdigit()}
    for word in quant.keep_float:
        if word not in parts and word != OWN:
            do = suggest(word, sorted({*names, OWN})) or "leave it out"
            raise UserError(f"quant.keep_float={word}", f"a part of a layer's name, or {OWN}", do)
    for part in PARTS:
        if getattr(quant, part) and not any(part in layer.split(".") for layer in layers):
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
    on_sensitivities: OnSensitivities,
) -> dict[str, str]:  # fmt: skip
    """By sensitivities at the smallest keep ratio, where every Linear has work; good enough means at every ratio."""
    first = min(graphs, key=lambda graph: graph.keep or 0)
    sensitivities = measure_sensitivities(first, candidates, images[:FEW])
    rounders = [Rounder(graph) for graph in graphs]
    exact = [visit_layers(graph.exported, images, lambda *_: None) for graph in graphs]
    strict, task = _tighten(limits), find_task(first.task)

    def good_enough(precisions: Mapping[str, str]) -> bool:
        for graph, rounder, expected in zip(graphs, rounders, exact, strict=True):
            answers = visit_layers(graph.exported, images, partial(_round_linear, rounder, precisions))
            convolved = any(precisions.get(layer, "fp32") != "fp32" for layer in rounder.convolutions)
            standard = CONVOLVED if convolved else "mixed"
            if task.judge(task.compare(answers, expected), standard, strict, trained, graph.keep):
                return False
        return True

    chosen = choose_precisions(sensitivities, good_enough)
    on_sensitivities(sensitivities, chosen)
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
