"""ONNX Runtime's profiler: each node's start and duration, in whole microseconds."""

import json
import math
import tempfile
from pathlib import Path
from typing import Any

from bigvit_edge.artifact import Array
from bigvit_edge.profile.records import Event, Op, Span, Traced, Track, name_layer
from bigvit_edge.runtime.formats.onnx import open_session, set_options

KINDS = {
    "MatMul": "matrix product", "Gemm": "linear", "QGemm": "linear", "DynamicQuantizeMatMul": "linear",
    "MatMulIntegerToFloat": "linear", "MatMulInteger": "linear", "MatMulNBits": "linear", "FusedGemm": "linear",
    "FusedMatMul": "matrix product", "QLinearMatMul": "matrix product", "Attention": "attention",
    "MultiHeadAttention": "attention", "Conv": "convolution", "FusedConv": "convolution", "QLinearConv": "convolution",
    "Softmax": "softmax", "QLinearSoftmax": "softmax", "LayerNormalization": "normalisation",
    "SkipLayerNormalization": "normalisation", "SimplifiedLayerNormalization": "normalisation",
    "BatchNormalization": "normalisation", "Gelu": "activation", "BiasGelu": "activation", "FastGelu": "activation",
    "Relu": "activation", "Sigmoid": "activation", "QuickGelu": "activation", "HardSwish": "activation",
    "QuantizeLinear": "quantisation", "DequantizeLinear": "quantisation", "DynamicQuantizeLinear": "quantisation",
    "TopK": "routing", "Gather": "routing", "GatherElements": "routing", "Reshape": "copying", "Transpose": "copying",
    "Slice": "copying", "Split": "copying", "Concat": "copying", "Unsqueeze": "copying", "Squeeze": "copying",
    "Expand": "copying", "Cast": "copying", "ReorderInput": "copying", "ReorderOutput": "copying",
}  # fmt: skip
ELEMENTWISE = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Sqrt", "Pow", "Reciprocal", "Neg", "Clip", "QLinearAdd")
QUANTISED = ("DynamicQuantizeMatMul", "MatMulInteger", "MatMulIntegerToFloat", "QGemm", "QLinearConv", "QLinearMatMul")
END = "_kernel_time"


def trace_file(path: Path, image: Array, warmup: int, runs: int, threads: int) -> Traced:
    """Trace runs of an .onnx on the CPU provider.

    Each node's events are those of the thread that asked for the run: how its helpers shared the work is not told.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = set_options(threads)
        options.enable_profiling = True
        options.profile_file_prefix = f"{folder}/profile"
        session = open_session(path, options)
        (name,) = (value.name for value in session.get_inputs())
        for _ in range(warmup + runs):
            session.run(["logits"], {name: image})
        told = json.loads(Path(session.end_profiling()).read_text())
    return read_events(told, runs)


def read_events(told: list[dict[str, Any]], runs: int) -> Traced:
    """Read the last runs of what ONNX Runtime's profiler wrote."""
    whole = [event for event in told if event.get("name") == "model_run"][-runs:]
    begun = whole[0]["ts"]
    spans = tuple(Span(run["ts"] - begun, run["dur"]) for run in whole)
    nodes = [event for event in told if event.get("cat") == "Node" and event["name"].endswith(END)]
    ops, events = dict[Op, int](), []
    for number, span in enumerate(spans):
        inside = [node for node in nodes if span.start_us <= node["ts"] - begun < span.start_us + span.duration_us]
        layer = ""
        for node in sorted(inside, key=lambda node: (node["ts"], node["dur"])):
            op = _read_op(node, layer)
            layer = op.layer
            events.append(Event(number, ops.setdefault(op, len(ops)), 0, node["ts"] - begun, node["dur"]))
    notes = (
        "ONNX Runtime tells whole microseconds, so that the sums of its short ops are uncertain",
        "its profiler runs one node after another and tells nothing of the threads that share a node's work",
    )
    return Traced(tuple(ops), (Track("thread 0 (caller)"),), spans, tuple(events), notes)


def _read_op(node: dict[str, Any], layer_before: str) -> Op:
    name, told = node["name"].removesuffix(END), node["args"]
    word = told["op_name"]
    # what the runtime put in itself has no layer in its name, and stands beside what it was put in for
    layer = name_layer(name.partition("/")[0]) if "/" in name else layer_before or name
    kind = KINDS.get(word, "elementwise" if word in ELEMENTWISE else "other")
    inputs, outputs = (_read_shapes(told.get(f"{side}_type_shape", [])) for side in ("input", "output"))
    sizes = [told.get(f"{what}_size") for what in ("activation", "parameter", "output")]
    bytes_ = sum(map(int, sizes)) if all(size is not None for size in sizes) else None
    unit = told.get("provider", "").removesuffix("ExecutionProvider")
    return Op(
        name, layer, kind, word, f"ONNX Runtime {unit}", macs=_count_macs(word, kind, inputs, outputs), bytes=bytes_,
        type=_find_type(word, inputs, kind),
    )  # fmt: skip


def _read_shapes(told: list[dict[str, list[int]]]) -> list[tuple[str, list[int]]]:
    return [next(iter(value.items())) for value in told if value]


def _find_type(word: str, inputs: list[tuple[str, list[int]]], kind: str) -> str:
    if kind not in ("linear", "matrix product", "attention", "convolution") or not inputs:
        return ""
    types = {type_ for type_, _ in inputs}
    # weights that were packed when the file was opened are not among the inputs any more
    return "qd8" if word in QUANTISED or types & {"uint8", "int8"} else "f16" if "float16" in types else "f32"


def _count_macs(
    word: str, kind: str, inputs: list[tuple[str, list[int]]], outputs: list[tuple[str, list[int]]]
) -> int | None:
    """From the shapes that the profiler tells; 0 of what multiplies nothing, None of a kind whose products it hides."""
    if kind not in ("linear", "matrix product", "convolution", "attention"):
        return 0
    if not inputs or not outputs or kind == "attention":
        return None
    first, made = inputs[0][1], math.prod(outputs[0][1])
    if kind == "convolution":
        kernels = [shape for _, shape in inputs[1:] if len(shape) == len(first)]  # [out, in / groups, h, w]
        return made * math.prod(kernels[0][1:]) if kernels and first[1] >= kernels[0][1] else None
    if len(first) < 2 or not outputs[0][1]:
        return None
    turned = word == "FusedMatMul" and first[-2] != outputs[0][1][-2]  # its left side is read by columns
    return made * first[-2 if turned else -1]
