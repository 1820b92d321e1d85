"""ExecuTorch with XNNPACK: .pte files for Android, iOS and ARM Linux.

XNNPACK takes what it can as delegates and ExecuTorch's own kernels run the rest, so three things are done to the
graph: ops that XNNPACK refuses are written in ops that it takes (layer norm), constants are computed now, and what it
takes is cut into as few pieces as the graph allows. Only the router's topk and the gathers behind it stay outside. With
target.backend = "coreml" the whole graph goes to Core ML instead, and with "native" to our own core; of a model around
one of ours, that one goes to our core.
"""

from collections.abc import Mapping, Sequence
from operator import getitem
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.export import ExportedProgram

from bigvit_edge.artifact import Array, Artifact, Leftover, Method, Runner, list_versions, name_method
from bigvit_edge.errors import UserError
from bigvit_edge.export.backends.executorch.kernels import refuse_missing
from bigvit_edge.export.backends.executorch.partition import REASON, DepthPartitioner, part_reads
from bigvit_edge.export.backends.executorch.passes import few_passes
from bigvit_edge.export.backends.executorch.simplify import flatten_images, simplify
from bigvit_edge.export.console import silenced
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

    from bigvit_edge.runtime.executorch import (
        BACKEND,
        FAILURES,
        FORWARD,
        LIBRARY,
        METADATA,
        ORDER,
        explain_failure,
        explained,
        find_method,
        load_library,
        open_program,
    )

FORMAT = "executorch"
SUFFIX = ".pte"
SEVERAL = True
PACKAGES = {
    "xnnpack": ("executorch", "torchao", "torch"),
    "coreml": ("executorch", "torchao", "torch", "coremltools"),
    "native": ("executorch", "torch"),
}
NO_CONVERSION = "coremltools has no conversion for it"
# What ExecuTorch says of our delegate, and of our kernel, where libbve_executorch is not loaded.
UNREGISTERED = (f"Backend {BACKEND} is not registered", "kernel 'bve::dispatch.out' not found")

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


def load(path: Path, threads: int = 1, method: str | None = None) -> Runner:
    """Open the program in ExecuTorch's own runtime.

    Where its delegate is our core, with that library; where it is Core ML, which is not to be had here, in export/mil.
    UserError if it is no program, or has no such method.

    The runtime has one pool of threads in a process: the last call's `threads` holds for every program loaded before.
    """
    with silenced() as said:
        try:
            program = open_program(path, threads)
            name = find_method(path, program, method)
            try:
                loaded = program.load_method(name)
            except FAILURES:
                if not any(words in said() for words in UNREGISTERED):
                    raise
                load_core(path)
                loaded = program.load_method(name)
        except FAILURES as e:
            written = said().splitlines()  # the reason is the last line, behind "[program.cpp:168] "
            if any("Backend CoreMLBackend is not registered" in line for line in written):
                from bigvit_edge.export.backends.executorch import coreml

                return coreml.load(path, threads, name)
            raise explain_failure(path, written[-1].rpartition("] ")[2] if written else str(e)) from e

    def run(images: Array) -> Array:
        with explained(path):
            outputs = loaded((torch.from_numpy(np.ascontiguousarray(images, np.float32)),))
        (logits,) = outputs
        return np.asarray(logits.numpy(), np.float32)

    meta = loaded.method_meta()
    if (counts := (meta.num_inputs(), meta.num_outputs())) != (1, 1):
        met = f"{path}: {name} has {counts[0]} inputs and {counts[1]} outputs"
        raise UserError(met, "one image in, logits out", "export the model again")
    image, logits = meta.input_tensor_meta(0), meta.output_tensor_meta(0)
    known = [program.get_method_name(i) for i in range(program.num_methods())]
    own = {word.removeprefix(METADATA): program.load_method(word) for word in known if word.startswith(METADATA)}
    words = {word: str(say(())[0]) for word, say in own.items()}
    return Runner(run, tuple(image.sizes()), tuple(logits.sizes()), words)


def load_core(path: Path) -> None:
    """Load our core as a backend of this process's ExecuTorch.

    UserError, if that cannot be, of the file that wants it.
    """
    try:
        load_library()
    except UserError as e:
        raise UserError(f"{path} is run by {LIBRARY}: {e.met}", e.expected, e.do) from e
