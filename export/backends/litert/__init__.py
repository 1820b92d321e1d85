"""LiteRT (.tflite), run by its interpreter with the XNNPACK delegate, or with ours (native.py).

One signature per keep ratio; all share one copy of the weights. The input stays [1, 3, S, S] as in PyTorch: the one
transpose that cuts the image into patches is needed for a channels-last image too. What each precision means is in
quantization.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING
from weakref import ReferenceType, WeakKeyDictionary, ref

from torch.export import ExportedProgram
from torch.utils._pytree import tree_flatten

from bigvit_edge.artifact import Artifact, list_versions, name_method
from bigvit_edge.console import silenced
from bigvit_edge.export.backends.litert.contents import (
    read_model,
    store_strings,
    write_batch_products,
    write_model,
)
from bigvit_edge.export.backends.litert.delegation import describe_method
from bigvit_edge.export.backends.litert.descriptions import append_labels, store_description
from bigvit_edge.export.backends.litert.integers import narrow_file
from bigvit_edge.export.backends.litert.names import Nodes, untag_names
from bigvit_edge.export.backends.litert.quantization import quantize_file
from bigvit_edge.export.backends.litert.readback import count_conversions
from bigvit_edge.export.backends.litert.simplification import simplify
from bigvit_edge.export.graph import Graph
from bigvit_edge.runtime.formats.litert import load as load

if TYPE_CHECKING:
    from bigvit_edge.target import Target

with silenced():
    import litert_torch
    from litert_torch._convert import core, litert_converter
    from litert_torch._convert.signature import Signature

litert_torch.config.show_progress = False

FORMAT = "litert"
SUFFIX = ".tflite"
SEVERAL = True
SINGLE = "serving_default"  # the signature of a file that has one
PACKAGES = ("litert-torch", "ai-edge-litert", "ai-edge-quantizer", "torch")


def lower(graphs: Sequence[Graph], target: "Target", metadata: Mapping[str, str]) -> Artifact:
    """Lower a model at its keep ratios to a .tflite.

    RuntimeError if the quantiser took other layers, or took them otherwise, than graph.layers says; UserError at
    weights that float16 cannot hold.
    """
    if target.is_native(FORMAT):
        from bigvit_edge.export.backends.litert import native  # here, because it needs our library

        return native.lower(graphs, target, metadata)
    names = [SINGLE] if len(graphs) == 1 else [name_method(graph.keep) for graph in graphs]
    with silenced():
        floats, nodes = lower_float(graphs, names)
        data = narrow_file(quantize_file(floats, graphs), graphs, nodes, floats)
        model = read_model(data)
        store_strings(model, metadata)
        store_description(model, metadata, graphs[0].output)
        data = append_labels(write_model(model), metadata)
        methods = [describe_method(data, name, graph.keep) for name, graph in zip(names, graphs, strict=True)]
        for number, graph in enumerate(graphs):
            if graph.integers.ops:
                methods[number] = replace(methods[number], conversions=count_conversions(data, number))
    return Artifact(FORMAT, graphs[0].precision, data, tuple(methods), list_versions(PACKAGES), output=graphs[0].output)


# The float file, kept as long as its first graph because every precision starts from it: this is where the time goes.
_float_files: WeakKeyDictionary[ExportedProgram, tuple[list[ReferenceType[ExportedProgram]], bytes, list[Nodes]]] = (
    WeakKeyDictionary()
)


def lower_float(graphs: Sequence[Graph], names: Sequence[str]) -> tuple[bytes, list[Nodes]]:
    """Lower the graphs to a float file, a signature for each name.

    With what nodes each signature's tensors come from.
    """
    programs = [graph.exported for graph in graphs]
    known, data, nodes = _float_files.get(programs[0], ([], b"", []))
    if [reference() for reference in known] != programs:
        simple = [simplify(graph.exported, bool(graph.integers.ops)) for graph in graphs]
        converted = _convert(simple, names, graphs[0].output)
        data, nodes = untag_names(write_batch_products(converted))
        _float_files[programs[0]] = [ref(program) for program in programs], data, nodes
    return data, nodes


def _convert(programs: Sequence[ExportedProgram], names: Sequence[str], output: str) -> bytes:
    """What litert_torch.convert does after a torch.export of its own; with names for the input and the output."""
    ready, signatures = [], []
    for program, name in zip(programs, names, strict=True):
        (image,) = program.example_inputs[0]
        passed = core._run_convert_passes(program)
        call = passed.module_call_graph[0]  # the converter takes the output's name from here
        named = replace(call.signature, out_spec=tree_flatten({output: 0})[1])
        passed.module_call_graph[0] = replace(call, signature=named)
        ready.append(passed)
        signatures.append(Signature(name, passed.graph_module, (), {"image": image}))
    return litert_converter.exported_programs_to_flatbuffer(ready, signatures).to_bytes()  # type: ignore[no-any-return]
