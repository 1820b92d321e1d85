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
from bigvit_edge.export.emitter import emit_program
from bigvit_edge.export.graph import PATCHES, Graph, layer_group
from bigvit_edge.export.inlay import part_of
from bigvit_edge.export.program import Entry, to_bytes
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


# The last program of each model, because every format starts from it: its integers are chosen by what Linears see.
_latest: WeakKeyDictionary[ExportedProgram, tuple[Any, Lowered]] = WeakKeyDictionary()


def lower_native(graphs: Sequence[Graph], target: "Target", metadata: Mapping[str, str]) -> Lowered:
    """Lower the graphs, or their inlays, to one program.

    An entry each, its weights packed as target.packing says. UserError if the model is not of this package, or is to be
    quantised in a way that a program cannot say.
    """
    start = f"{graphs[0].inlay.names[0]}." if graphs[0].inlay else ""
    metadata = _describe_core(metadata, is_part=graphs[0].inlay is not None)
    graphs = [part_of(graph) for graph in graphs]
    precision, kept = graphs[0].precision, set(f"{start}{PATCHES}".split(".")) & set(target.quant.keep_float)
    layers = {PATCHES: precision} if precision == "int8" and not kept else {}
    graphs = [replace(graph, layers={**graph.layers, **layers}) for graph in graphs]
    key = target.packing, sorted(metadata.items()), [_identify(graph) for graph in graphs]
    known, lowered = _latest.get(graphs[0].exported, (None, None))
    if lowered is None or known != key:
        program = emit_program(graphs, DEPTHS[target.packing], metadata)
        named = {start + layer: how for layer, how in layers.items()}
        products = {start.removesuffix("."): precision} if precision == "int8" else {}
        lowered = Lowered(to_bytes(program), program.entries, named, products)
        _latest[graphs[0].exported] = key, lowered
    return lowered


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
    return ref(graph.exported), graph.precision, dict(graph.layers), seen


def describe_entry(entry: Entry, name: str) -> Method:
    """Describe an entry as a file's entry point of that name.

    It is one piece, with nothing left outside.
    """
    layers = dict.fromkeys(layer_group(op.name) for op in entry.ops)
    return Method(name, entry.keep, 1, (), dict.fromkeys(layers, 1))
