"""How much of a model a file's precision covers: shares of the multiply-accumulates and of the weights."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from torch.fx import Node

from bigvit_edge.artifact import Artifact
from bigvit_edge.export.full import describe_spans
from bigvit_edge.export.graph import Graph, layer_of, matrix_products, read_constants, weight_name
from bigvit_edge.measures import FLOAT, Coverage
from bigvit_edge.target import FULL

LINEAR, CONVOLUTION, PRODUCT, REST = "Linears", "convolutions", "products of activations", "other weights"


def add_coverage(artifact: Artifact, graphs: Sequence[Graph], layers: Mapping[str, str]) -> Artifact:
    """Add its graph's coverage to each entry point of an artifact.

    And the conversions that it takes, and its spans.

    layers: the precision of each quantised layer in it.
    """
    of = {graph.keep: graph for graph in graphs}
    methods = [
        replace(
            method,
            coverage=count_coverage(of[method.keep], layers, artifact.products),
            conversions=count_conversions(of[method.keep]) if method.conversions is None else method.conversions,
            spans=tuple(describe_spans(of[method.keep])) if artifact.precision == FULL else (),
        )
        for method in artifact.methods
    ]
    return replace(artifact, methods=tuple(methods))


def count_conversions(graph: Graph) -> int:
    """Count the conversions between float and int8 on ranges."""
    ops, spans, constants = graph.integers.ops, graph.integers.spans, read_constants(graph.exported)
    held = [node for node in graph.exported.graph.nodes if node.name in spans and node not in constants]
    made = [node for node in held if node.name in ops]
    return len(held) - len(made) + sum(any(reader.name not in ops for reader in node.users) for node in made)


def count_coverage(graph: Graph, layers: Mapping[str, str], products: Mapping[str, str]) -> tuple[Coverage, ...]:
    """Count the shares of a graph by precision and kind of op.

    One Coverage for each that there is, the shares of each sort adding up to 1. Weights are counted by their bytes in
    float, once however often they are read.

    layers: how each quantised layer is computed; products: as of Artifact. What they do not name is float, but for a
    graph that is in fp32 or fp16 as a whole.
    """
    constants = read_constants(graph.exported)
    data = {node: value for node, value in constants.items() if value.is_floating_point()}
    whole = graph.precision if graph.precision in ("fp32", "fp16") else None
    macs: dict[tuple[str, str], int] = {}
    sizes: dict[tuple[str, str], int] = {}
    seen: set[Node] = set()
    for node, count in matrix_products(graph.exported):
        name = getattr(node.target, "_opname", str(node.target)).split(".")[0]
        sources = _list_sources(node.args[2 if name == "addmm" else 1])
        kind = (CONVOLUTION if name.startswith("conv") else LINEAR) if sources <= constants.keys() else PRODUCT
        layer = (weight_name(graph.exported, node) or "").removesuffix(".weight") or layer_of(node)
        placed = "int8-static" if graph.precision in (FULL, "int8-static") else "int8"
        named = _find_around(layer, products) if kind == PRODUCT else layers.get(layer, FLOAT)
        key = whole or (placed if node.name in graph.integers.ops else named), kind
        macs[key] = macs.get(key, 0) + count
        if kind != PRODUCT:
            weights = sources & data.keys() - seen
            seen |= weights
            sizes[key] = sizes.get(key, 0) + sum(data[weight].nbytes for weight in weights)
    sizes[whole or FLOAT, REST] = sum(data[node].nbytes for node in data.keys() - seen)
    all_macs, all_bytes = sum(macs.values()) or 1, sum(sizes.values()) or 1
    keys = dict.fromkeys((*macs, *sizes))
    return tuple(Coverage(*key, macs.get(key, 0) / all_macs, sizes.get(key, 0) / all_bytes) for key in keys)


def _find_around(layer: str, products: Mapping[str, str]) -> str:
    """How products are computed in the module that a layer lies in."""
    return next((how for name, how in products.items() if f"{layer}.".startswith(f"{name}." if name else "")), FLOAT)


def _list_sources(value: object) -> set[Node]:
    """The inputs of the graph that a value is computed from."""
    found, waiting = set(), [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Node) and node not in found:
            found.add(node)
            waiting += node.all_input_nodes
    return {node for node in found if node.op == "placeholder"}


def share_covered(coverage: Iterable[Coverage], precision: str) -> tuple[float, float]:
    """Sum up the shares that are in the precision.

    The shares are of the multiply-accumulates and of the weights; `mixed` and int8-full stand for all that are not
    float.
    """
    any_of = precision in ("mixed", FULL)
    inside = [c for c in coverage if c.precision == precision or (any_of and c.precision != FLOAT)]
    return sum(c.macs for c in inside), sum(c.weights for c in inside)


def explain_coverage(coverage: Iterable[Coverage], precision: str) -> str | None:
    """Explain where most of the arithmetic misses the file's named precision.

    What is left in float, and why; None where it does not.
    """
    coverage = tuple(coverage)
    share, _ = share_covered(coverage, precision)
    if not coverage or share >= 0.5:
        return None
    reasons = {
        LINEAR: " (quant.keep_float, or no weight of their own)",
        CONVOLUTION: " (docs/precisions.md says which)",
    }
    left = sorted((c for c in coverage if c.precision == FLOAT and c.macs), key=lambda c: -c.macs)
    rest = ", ".join(f"{c.kind} {c.macs:.1%}{reasons.get(c.kind, '')}" for c in left)
    others = sorted({c.precision for c in coverage if c.macs} - {FLOAT, precision})
    said = [f"in float stay {rest}"] if left else []
    said += [f"in {other} are {sum(c.macs for c in coverage if c.precision == other):.1%}" for other in others]
    return f"{precision} covers {share:.1%} of the multiply-accumulates; {', '.join(said)}"
