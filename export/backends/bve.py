"""Our own format (.bve), run by our own runtime: the whole model is one program, with nothing left over.

It holds ViTs and big.LITTLE ViTs of this package; what each precision means is in export/native.py.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bigvit_edge.artifact import Artifact, list_versions
from bigvit_edge.errors import UserError
from bigvit_edge.export.graph import Graph
from bigvit_edge.export.native import describe_entry, lower_native
from bigvit_edge.runtime import load_library
from bigvit_edge.runtime.formats.bve import load as load

if TYPE_CHECKING:
    from bigvit_edge.target import Target

try:
    load_library()  # a missing one shows on import, as other backends' packages do
except UserError as e:
    raise UserError(e.met, e.expected, f"{e.do}, or leave bve out of --set formats=") from e

FORMAT = "bve"
SUFFIX = ".bve"
SEVERAL = True


def lower(graphs: Sequence[Graph], target: "Target", metadata: Mapping[str, str]) -> Artifact:
    """Lower the graphs to one .bve, an entry each.

    Its weights are packed as target.packing says.
    """
    lowered = lower_native(graphs, target, metadata)
    methods = tuple(describe_entry(entry, entry.name) for entry in lowered.entries)
    return Artifact(
        FORMAT, graphs[0].precision, lowered.data, methods, list_versions(["torch"]), layers=lowered.layers,
        products=lowered.products,
    )  # fmt: skip
