"""A model as our own core runs it: the .bve bytes, which a .bve file is and a .pte or .tflite may carry.

fp32, fp16 and int8. int8: as Graph says, and besides the patch embedding, the queries, keys and values of attention,
and what its softmax gives. Norms, softmax, gelu and the routers compute in float.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from torch.export import ExportedProgram

from bigvit_edge.artifact import Method
from bigvit_edge.export.assignment import find_kept, list_linears
from bigvit_edge.export.core.lowering import lower_graphs, lower_parts
from bigvit_edge.export.core.readers import list_patches
from bigvit_edge.export.graph import Graph, layer_group, layer_of
from bigvit_edge.export.program import Attention, Entry, Program, to_bytes
from bigvit_edge.preprocessing import NCHW

if TYPE_CHECKING:
    from bigvit_edge.target import Target

DEPTHS = {"dot": 4, "i8mm": 8}  # inputs that lie side by side in the packed weights


@dataclass(frozen=True)
class Lowered:
    """A .bve and what it holds.

    data: the .bve bytes; entries: of the program in them, the largest keep ratio first; layers, products: as of
    Artifact.
    """

    data: bytes
    entries: tuple[Entry, ...]
    layers: Mapping[str, str]
    products: Mapping[str, str]


# The last programs of each model, because every format starts from it: its integers are chosen by what Linears see.
_latest: WeakKeyDictionary[ExportedProgram, tuple[Any, tuple[Lowered, ...]]] = WeakKeyDictionary()


def lower_native(graphs: Sequence[Graph], target: "Target", metadata: Mapping[str, str]) -> Lowered:
    """Lower whole graphs to one program, as of lower_pieces."""
    (lowered,) = lower_pieces(graphs, target, metadata)
    return lowered


def lower_pieces(graphs: Sequence[Graph], target: "Target", metadata: Mapping[str, str]) -> tuple[Lowered, ...]:
    """Lower the graphs to one program, or their pieces to one each.

    An entry for each graph, its weights packed as target.packing says. UserError naming what no program can compute.
    """
    precision, module, is_whole = graphs[0].precision, graphs[0].module, not graphs[0].pieces
    metadata = _describe_core(metadata, is_part=not is_whole)
    patches = find_patches(graphs[0]) if precision == "int8" else []
    kept = find_kept(patches, module, target.quant)
    layers = {layer: precision for layer in patches if layer not in kept}
    inside = [graph if is_whole else replace(graph, layers=_list_inside(graph)) for graph in graphs]
    inside = [replace(graph, layers={**graph.layers, **layers}) for graph in inside]
    key = target.packing, sorted(metadata.items()), [_identify(graph) for graph in inside]
    known, lowered = _latest.get(graphs[0].exported, (None, ()))
    if known != key:
        kr = DEPTHS[target.packing]
        programs = [lower_graphs(inside, kr, metadata)] if is_whole else lower_parts(inside, kr, metadata)
        lowered = tuple(
            Lowered(to_bytes(program), program.entries, layers, _list_products(program, is_whole))
            for program in programs
        )
        _latest[graphs[0].exported] = key, lowered
    return lowered


def take_rest(graph: Graph) -> Graph:
    """Take the graph around the pieces, with its own layers."""
    assert graph.around is not None
    rest = replace(graph, exported=graph.around, pieces=(), around=None)
    own = list_linears(rest)
    return replace(rest, layers={layer: how for layer, how in graph.layers.items() if layer in own})


def _list_inside(graph: Graph) -> dict[str, str]:
    """The layers of the pieces."""
    assert graph.core is not None
    parameters = graph.core.graph_signature.inputs_to_parameters
    sources = {source.name for piece in graph.pieces for node in piece.nodes for source in node.all_input_nodes}
    names = {parameters[name].removesuffix(".weight") for name in sources & parameters.keys()}
    return {layer: how for layer, how in graph.layers.items() if layer in names}


def _list_products(program: Program, is_whole: bool) -> dict[str, str]:
    if program.precision != "int8":
        return {}
    attentions = [op.name for entry in program.entries for op in entry.ops if isinstance(op.call, Attention)]
    return dict.fromkeys(attentions if not is_whole else [""], program.precision)


def join(parts: Sequence[Lowered]) -> dict[str, str]:
    """Join what programs say of their products."""
    return {name: how for part in parts for name, how in part.products.items()}


def find_patches(graph: Graph) -> list[str]:
    """Find the layers that make tokens of patches.

    No other format quantises them.
    """
    return [] if graph.core is None else list_patches(graph.core, graph.pieces)


def _describe_core(metadata: Mapping[str, str], is_part: bool) -> dict[str, str]:
    """What a program says of itself, of what its file does: the core normalises, whatever the file takes. A part of a
    model says nothing of pictures, or a frame would go past what is in front of it."""
    if is_part:
        return {key: value for key, value in metadata.items() if key != "preprocessing"}
    if "preprocessing" not in metadata:
        return dict(metadata)
    told = json.loads(metadata["preprocessing"]) | {"layout": NCHW}
    told.pop("dtype", None)
    return {**metadata, "preprocessing": json.dumps(told)}


def _identify(graph: Graph) -> tuple[Any, ...]:
    seen = None if graph.calibration is None else sha256(graph.calibration.tobytes()).digest()
    return ref(graph.exported), graph.precision, dict(graph.layers), graph.pieces, seen


def count_fragments(graph: Graph, others: Mapping[str, int]) -> dict[str, int]:
    """Count the pieces and other delegates that each layer is in."""
    groups = [{layer_group(layer_of(node)) for node in piece.nodes} for piece in graph.pieces]
    layers = set(others).union(*groups) - {""}
    return {layer: others.get(layer, 0) + sum(layer in group for group in groups) for layer in sorted(layers)}


def describe_entry(entry: Entry, name: str) -> Method:
    """Describe an entry as a file's entry point of that name.

    It is one piece, with nothing left outside.
    """
    layers = dict.fromkeys(layer_group(op.name) for op in entry.ops)
    return Method(name, entry.keep, 1, (), dict.fromkeys(layers, 1))
