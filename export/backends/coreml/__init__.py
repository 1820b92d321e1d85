"""Core ML (.mlpackage) for Apple's systems. Core ML runs only there, so the check evaluates the saved package itself.

fp32 and fp16 are what the program computes in. int8: weights per output channel, unpacked to fp16; Core ML quantises no
activations at run time, so those of Linears stay fp16, while convolutions have theirs on ranges (from iOS17).
int8-static: Linears too, as quantize and dequantize ops around them (from iOS17); int8-full: every op. int4: 16 values
a palette, found by k-means, and an index for each weight: one palette for every `group` output channels from iOS18 on
where they divide into groups, else one a tensor. mixed: each layer its own.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from traceback import walk_tb
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from bigvit_edge.artifact import CLASS_PROBABILITIES, LOGITS, PROBABILITIES, Artifact, list_versions, name_method
from bigvit_edge.console import silenced
from bigvit_edge.errors import UserError
from bigvit_edge.export.backends.coreml.interface import (
    check_interface,
    choose_precision,
    describe_classifier,
    describe_package,
    describe_tensors,
)
from bigvit_edge.export.backends.coreml.neural_engine import describe_method
from bigvit_edge.export.backends.coreml.operations import write_operations
from bigvit_edge.export.backends.coreml.package import (
    ENTRY,
    compact_functions,
    finish_package,
    join_packages,
    save_model,
)
from bigvit_edge.export.backends.coreml.weights import Palettes, compress_weights
from bigvit_edge.export.capture_errors import find_shortage
from bigvit_edge.export.classes import name_classes
from bigvit_edge.export.graph import Graph, layer_of, shape_of, weight_name
from bigvit_edge.export.lowering_errors import read_reason, refuse_op
from bigvit_edge.export.pixels import append_softmax, takes_pixels
from bigvit_edge.export.products import PRODUCTS
from bigvit_edge.export.quantization import bound_steps, insert_quantization, list_rounded
from bigvit_edge.runtime import mil
from bigvit_edge.runtime.formats.coreml import load as load

if TYPE_CHECKING:
    from bigvit_edge.target import Target

with silenced():
    import coremltools as ct
    from coremltools.converters.mil.mil.scope import ScopeSource

FORMAT = "coreml"
SUFFIX = ".mlpackage"
SEVERAL = True
PACKAGES = ("coremltools", "torch")

Classes = tuple[str, ...]
Layers = dict[str, str]  # the output of an op -> its layer, or the Linear that it is


def lower(graphs: Sequence[Graph], target: "Target", metadata: Mapping[str, str]) -> Artifact:
    """Lower the graphs to an .mlpackage.

    UserError if target.deployment is too old for what is asked; RuntimeError if other Linears were quantised than
    Graph.layers names, or the package takes or answers otherwise than its own words say.
    """
    _check_deployment(graphs, target)
    classes = _name_classes(graphs[0], metadata) if takes_pixels(metadata) else None
    palettes: Palettes = {}
    with silenced():
        packages, layers = zip(*(_lower_one(graph, target, palettes, classes) for graph in graphs), strict=True)
        names, files = [ENTRY], packages[0]
        if len(graphs) > 1:
            names = [name_method(graph.keep) for graph in graphs if graph.keep]
            files, short = compact_functions(join_packages(names, packages))
            layers = tuple(
                {short[name].get(value, value): layer for value, layer in of.items()}
                for name, of in zip(names, layers, strict=True)
            )
        files = finish_package(files, metadata)
        if classes is not None:
            files = describe_package(files, metadata)
        for name, graph in zip(names, graphs, strict=True):
            check_interface(files, name, graph.exported, classes, metadata)
    methods = tuple(
        describe_method(files, name, graph, of) for name, graph, of in zip(names, graphs, layers, strict=True)
    )
    unchecked = next(
        (reason for name, of in zip(names, layers, strict=True) if (reason := _explain_unchecked(files, name, of))), ""
    )
    return Artifact(
        FORMAT, graphs[0].precision, files, methods, list_versions(PACKAGES), evaluated=True, unchecked=unchecked,
        output=LOGITS if classes is None else CLASS_PROBABILITIES,
    )  # fmt: skip


def _name_classes(graph: Graph, metadata: Mapping[str, str]) -> Classes:
    (logits,) = graph.exported.graph.output_node().args[0]
    if shape_of(logits)[-1] == 1:
        met = "a model of one class, whose probability is always 1, as a classifier of Core ML"
        raise UserError(met, "two classes or more", "add --input tensor")
    return name_classes(json.loads(metadata.get("labels", "null")), shape_of(logits)[-1])


def _explain_unchecked(files: Mapping[str, bytes], name: str, layers: Layers) -> str:
    """The first op of an entry point that our evaluator has not, its layer and the reason; '' if it has all."""
    for op in mil.list_ops(files, "the package", name):
        if reason := mil.explain_absence(op):
            layer = next((layers[value] for value in op.outputs if layers.get(value)), "")
            return f"op {op.type}{f' in layer {layer}' if layer else ''}: {reason}"
    return ""


def _check_deployment(graphs: Sequence[Graph], target: "Target") -> None:
    for needs, asked, what in (
        ("iOS18", len(graphs) > 1, "several keep ratios in one .mlpackage"),
        ("iOS17", "int8-static" in graphs[0].layers.values(), "int8-static"),
    ):
        if asked and target.deployment < needs:
            raise UserError(f"{what} with deployment={target.deployment}", f"{needs}", f"--set deployment={needs}")


# ---- conversion ------------------------------------------------------------------------------------------------------


def _lower_one(
    graph: Graph, target: "Target", palettes: Palettes, classes: Classes | None
) -> tuple[dict[str, bytes], Layers]:
    """The files of a package with one function, and the layer of each op in it."""
    program = _quantize_activations(graph)
    precision = ct.precision.FLOAT32 if graph.precision == "fp32" else ct.precision.FLOAT16
    made = _models.setdefault(program, {})
    key = (target.deployment, precision.value, classes)
    if key not in made:
        answered = program if classes is None or graph.output == PROBABILITIES else append_softmax(program)
        made[key] = _convert(answered, target, precision, classes)
    model = made[key]
    layers = {
        op.outputs[0].name: op.scopes[ScopeSource.EXIR_STACK_TRACE][0]
        for op in model._mil_program.functions[ENTRY].operations
        if op.scopes.get(ScopeSource.EXIR_STACK_TRACE)
    }
    return save_model(compress_weights(model, graph, layers, target, palettes)), layers


# Converted models, kept as long as their graphs: most precisions start from the same, and this is where the time goes.
_models: WeakKeyDictionary[ExportedProgram, dict[tuple[str, str, Classes | None], Any]] = WeakKeyDictionary()


def _convert(exported: ExportedProgram, target: "Target", precision: Any, classes: Classes | None) -> Any:
    """The program converted.

    classes: their names, where it is to be a classifier of pictures and answers with probabilities.
    """
    program = write_operations(exported)
    lines = {node.name: node.meta.get("stack_trace") for node in program.graph.nodes}
    for node in program.graph.nodes:
        # the one thing that coremltools hands on from a node to all the ops it becomes
        node.meta["stack_trace"] = _layer(program, node)
    try:
        return _convert_program(program, target, precision, classes)
    except Exception as e:
        node = _find_at_work(e, program)
        if node is None or find_shortage(e):
            raise
        node.meta["stack_trace"] = lines[node.name]
        raise refuse_op(FORMAT, node, read_reason(e)) from e


def _find_at_work(error: Exception, program: ExportedProgram) -> Node | None:
    """The node that coremltools was converting: its innermost frame that has one, under its own class's name."""
    nodes = {node.name: node for node in program.graph.nodes if node.op == "call_function"}
    found = [nodes.get(getattr(frame.f_locals.get("node"), "name", "")) for frame, _ in walk_tb(error.__traceback__)]
    return next((node for node in reversed(found) if node is not None), None)


def _convert_program(program: ExportedProgram, target: "Target", precision: Any, classes: Classes | None) -> Any:
    return ct.convert(
        program,
        **(describe_tensors(program) if classes is None else describe_classifier(program, classes)),
        convert_to="mlprogram",
        minimum_deployment_target=ct.target[target.deployment],
        compute_precision=precision if classes is None else choose_precision(precision),
        pass_pipeline=_choose_passes(program),
        skip_model_load=True,
    )


def _quantize_activations(graph: Graph) -> ExportedProgram:
    """The program with quantize and dequantize ops around the int8-static Linears, and what computes in int8."""
    rounded = list_rounded(graph)
    static = {layer: how for layer, how in graph.layers.items() if how == "int8-static" or layer in rounded}
    return insert_quantization(bound_steps(replace(graph, layers=static))) if static else graph.exported


def _layer(program: ExportedProgram, node: Node) -> str:
    weight = weight_name(program, node) if node.target in PRODUCTS else None
    return weight.removesuffix(".weight") if weight else layer_of(node)


def _choose_passes(program: ExportedProgram) -> Any:
    pipeline = ct.PassPipeline.DEFAULT
    if not program.graph.find_nodes(op="call_function", target=torch.ops.aten.index.Tensor):
        # three ops a gather, against negative indices, which no other PyTorch op takes
        pipeline.remove_passes({"common::guard_negative_gather_indices"})
    return pipeline
