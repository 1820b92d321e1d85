"""Our own format (.bve), run by our own runtime: the whole model is one program, with nothing left over.

It holds ViTs and big.LITTLE ViTs of this package, in fp32, fp16 and int8. int8: as Graph says, and besides the patch
embedding, the queries, keys and values of attention, and what its softmax gives. Norms, softmax, gelu and the routers
compute in float.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bigvit_edge.artifact import Artifact, Method, Run, list_versions
from bigvit_edge.errors import UserError
from bigvit_edge.export.emitter import emit_program
from bigvit_edge.export.graph import PATCHES, Graph, layer_group
from bigvit_edge.export.program import Entry, to_bytes
from bigvit_edge.runtime import Session, load_library

if TYPE_CHECKING:
    from bigvit_edge.target import Target

try:
    load_library()  # a missing one shows on import, as other backends' packages do
except UserError as e:
    raise UserError(e.met, e.expected, f"{e.do}, or leave bve out of --set formats=") from e

FORMAT = "bve"
SUFFIX = ".bve"
SEVERAL = True
OWN = True
DEPTHS = {"dot": 4, "i8mm": 8}  # inputs that lie side by side in the packed weights


def lower(graphs: Sequence[Graph], target: "Target", metadata: Mapping[str, str]) -> Artifact:
    """The graphs as one .bve, an entry each, its weights packed as target.packing says."""
    precision, kept = graphs[0].precision, set(PATCHES.split(".")) & set(target.quant.keep_float)
    layers = {PATCHES: precision} if precision == "int8" and not kept else {}
    graphs = [replace(graph, layers={**graph.layers, **layers}) for graph in graphs]
    program = emit_program(graphs, DEPTHS[target.packing], metadata)
    methods = tuple(_describe(entry) for entry in program.entries)
    return Artifact(FORMAT, precision, to_bytes(program), methods, list_versions(["torch"]), layers=layers)


def _describe(entry: Entry) -> Method:
    layers = dict.fromkeys(layer_group(op.name) for op in entry.ops)
    return Method(entry.name, entry.keep, 1, (), dict.fromkeys(layers, 1))


def load(path: Path, threads: int = 1, method: str | None = None) -> Run:
    """A session for the entry of that name, the first when None. Run takes [1, 3, S, S] and gives [1, num_classes].
    UserError if the file is not one, or has no such entry."""
    return Session(path, threads, entry=method).run
