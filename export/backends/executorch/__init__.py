"""ExecuTorch with XNNPACK: .pte files for Android, iOS and ARM Linux.

XNNPACK takes what it can as delegates and ExecuTorch's own kernels run the rest, so three things are done to the
graph: ops that XNNPACK refuses are written in ops that it takes (layer norm), constants are computed now, and what it
takes is cut into as few pieces as the graph allows. Only the router's topk and the gathers behind it stay outside. With
target.backend = "coreml" the whole graph goes to Core ML instead, and with "native" to our own core; of a model around
one of ours, that one goes to our core.
"""

from collections.abc import Mapping, Sequence
from operator import getitem
from typing import TYPE_CHECKING, Any

import torch
from torch.export import ExportedProgram

from bigvit_edge.artifact import Artifact, Leftover, Method, list_versions, name_method
from bigvit_edge.console import silenced
from bigvit_edge.export.backends.executorch.kernels import refuse_missing
from bigvit_edge.export.backends.executorch.partition import REASON, DepthPartitioner, part_reads
from bigvit_edge.export.backends.executorch.passes import few_passes
from bigvit_edge.export.backends.executorch.simplify import flatten_images, simplify
from bigvit_edge.export.graph import (
    Graph,
    count_node_macs,
    layer_group,
    layer_of,
    matrix_products,
)
from bigvit_edge.export.half import write_as_half
from bigvit_edge.export.inlay import rest_of
from bigvit_edge.export.native import lower_native
from bigvit_edge.export.quantization import insert_integers, insert_quantization

if TYPE_CHECKING:
    from bigvit_edge.target import Target

with silenced():
    from executorch.backends.transforms.remove_clone_ops import RemoveCloneOpsTransform
    from executorch.exir import EdgeCompileConfig, EdgeProgramManager, to_edge
    from executorch.exir.backend.partitioner import Partitioner
    from executorch.exir.delegate import executorch_call_delegate

    from bigvit_edge.runtime.executorch import FORWARD, METADATA, ORDER
    from bigvit_edge.runtime.formats.executorch import load as load

FORMAT = "executorch"
SUFFIX = ".pte"
SEVERAL = True
PACKAGES = {
    "xnnpack": ("executorch", "torchao", "torch"),
    "coreml": ("executorch", "torchao", "torch", "coremltools"),
    "native": ("executorch", "torch"),
}
NO_CONVERSION = "coremltools has no conversion for it"

aten = torch.ops.aten
WHOLE = (aten.linear.default, aten.hardswish.default, aten.max_pool2d.default, aten.upsample_bilinear2d.vec)


def lower(graphs: Sequence[Graph], target: "Target", metadata: Mapping[str, str]) -> Artifact:
    """Lower the graphs to one .pte for target.backend.

    Several become methods that share their weights. metadata: each word under its key as a method that returns it,
    'metadata_labels'. UserError if the backend cannot have what is asked.
    """
    names = [FORWARD] if len(graphs) == 1 else [name_method(graph.keep) for graph in graphs]
    of = dict(zip(names, graphs, strict=True))
    words = {ORDER: ",".join(names), **{METADATA + key: value for key, value in metadata.items()}}
    layers: Mapping[str, str] = {}
    products: Mapping[str, str] = {}
    with silenced():
        if target.backend == "coreml":
            from bigvit_edge.export.backends.executorch import coreml

            edge = coreml.lower_programs(of, target, words)
        elif target.backend == "native":
            from bigvit_edge.export.backends.executorch import native

            lowered = lower_native(graphs, target, metadata)
            layers, products = lowered.layers, lowered.products
            if graphs[0].inlay is None:
                edge = native.lower_programs(of, lowered.data, words)
            else:
                rest = {name: rest_of(graph) for name, graph in of.items()}
                edge = lower_programs(rest, words, native.take_inlays(of, lowered.data))
        else:
            edge = lower_programs(of, words)
        methods = tuple(describe_method(name, graph, edge.exported_program(name)) for name, graph in of.items())
        data = bytes(edge.to_executorch().buffer)
    evaluated = target.backend == "coreml"
    versions = list_versions(PACKAGES["xnnpack" if graphs[0].inlay else target.backend])
    return Artifact(FORMAT, graphs[0].precision, data, methods, versions, evaluated, layers=layers, products=products)


def lower_programs(
    graphs: Mapping[str, Graph], words: Mapping[str, str], first: Mapping[str, Partitioner] | None = None
) -> EdgeProgramManager:
    """Lower the graphs by method name, delegated to XNNPACK.

    XNNPACK chooses its kernels on the device. words: methods that return a string. first: by method name, who takes ops
    before XNNPACK does.
    """
    # Not to_edge_transform_and_lower: it traces the program three times to keep the ops whole that XNNPACK wants whole.
    # Here those are few, and preserve_ops keeps them. Dim-order ops would only be taken out again.
    # A list of its own: ExecuTorch appends to it.
    config = EdgeCompileConfig(preserve_ops=[*WHOLE], _check_ir_validity=False, _skip_dim_order=True)
    programs = {name: write_program(graph) for name, graph in graphs.items()}
    edge = to_edge(programs, dict(words), compile_config=config).transform([RemoveCloneOpsTransform()])
    refuse_missing({name: edge.exported_program(name) for name in graphs})
    for name in graphs:
        part_reads(edge.exported_program(name))
    if first:
        edge = edge.to_backend(dict(first))
    with few_passes():
        return edge.to_backend(dict.fromkeys(graphs, DepthPartitioner()))


def write_program(graph: Graph) -> ExportedProgram:
    """Write the graph in ops that XNNPACK takes, in its precision."""
    exported = write_as_half(graph.exported) if graph.precision == "fp16" else graph.exported
    program = simplify(insert_integers(exported, graph.integers))
    flatten_images(program, graph.layers)
    for node in program.graph.nodes:  # a history of its own, which every later pass copies with all its histories
        node.meta.pop("from_node", None)
    return insert_quantization(graph, program)


def describe_method(name: str, graph: Graph, lowered: ExportedProgram) -> Method:
    """Describe what became of the graph: delegates, and ops left outside."""
    calls = [node for node in lowered.graph.nodes if node.op == "call_function"]
    delegates = [node.args[0] for node in calls if node.target is executorch_call_delegate]
    total_macs = sum(macs for _, macs in matrix_products(graph.exported)) or 1
    leftovers = tuple(
        Leftover(
            node.target.__name__,
            layer_of(node),
            count_node_macs(node) / total_macs,
            node.meta.get(REASON, NO_CONVERSION),
        )
        for node in calls
        if node.target not in (executorch_call_delegate, getitem)
    )
    fragments: dict[str, int] = {}
    for delegate in delegates:
        inside: Any = getattr(lowered.graph_module, delegate.target).original_module
        layers = {layer_group(layer_of(node)) for node in inside.graph.nodes if node.op == "call_function"}
        for layer in sorted(layers - {""}):
            fragments[layer] = fragments.get(layer, 0) + 1
    return Method(name, graph.keep, len(delegates), leftovers, fragments)
