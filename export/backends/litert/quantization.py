"""Which constants of a .tflite are stored how. What each precision is here:

fp16         weights of Linears, convolutions and embeddings (float constants of two or more dimensions) are stored in
             float16, vectors in float32. XNNPACK reads them as float32 when the file is opened and computes in float32,
             unless an application asks its delegate for half precision.
int8         weights int8 per output channel, symmetric; inputs int8 per row at run time, asymmetric (LiteRT's dynamic
             range quantisation, XNNPACK's qd8-f32-qc8w).
             Convolutions, and what is between them, are not the quantiser's: integers.py.
int8-static  weights the same; input and output of the Linear int8 per tensor, asymmetric, from the graph's ranges; bias
             int32 (XNNPACK's qs8-qc8w). QUANTIZE and DEQUANTIZE stand around; what lies between the Linears is float.
int4         weights int4 per output channel and group of inputs, symmetric in -7..7, scales as precise as bfloat16;
             inputs as in int8 (XNNPACK's qd8-f32-qb4w).

The quantiser is told what to do; then the file is read back, and RuntimeError is raised if anything else was done.
"""

import re
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.export import ExportedProgram
from torch.fx import Node

from bigvit_edge.artifact import Array
from bigvit_edge.console import silenced
from bigvit_edge.errors import UserError
from bigvit_edge.export.backends.litert.contents import (
    TYPE_NAMES,
    Model,
    Op,
    add_buffer,
    find_shape,
    list_ops,
    name_op,
    read_floats,
    read_model,
    write_model,
)
from bigvit_edge.export.graph import Graph, matrix_products, read_constants, weight_name
from bigvit_edge.export.integers import Range
from bigvit_edge.export.quantization import list_rounded

with silenced():
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_quantizer import qtyping, quantizer

GROUPS = (32, 64, 128, 256)  # inputs that can share an int4 scale, in the quantiser and in XNNPACK
LINEAR = qtyping.TFLOperationName.FULLY_CONNECTED
# FULLY_CONNECTED with a scale per output channel, and with one per group. The quantiser leaves a lower number, with
# which an older runtime takes the file and computes nonsense (tflite-runtime 2.14, int8: cosine 0.16 against PyTorch);
# with these it refuses the file.
PER_CHANNEL_VERSION, PER_GROUP_VERSION = 12, 14
DEQUANTIZE_VERSION = 3  # the first that takes float16
REPORT = "this is a bug of bigvit-edge: please report it with the model's name and these words"


def quantize_file(data: bytes, graphs: Sequence[Graph]) -> bytes:
    """Quantise a float file as its graphs say, one for each signature.

    RuntimeError if the file then is not what the graphs say; UserError at a group that LiteRT does not have, and at
    weights too large for float16.
    """
    if graphs[0].precision == "fp16":
        constants = read_constants(graphs[0].exported).items()
        return _halve(data, any(data.dim() > 1 and node.users for node, data in constants))
    graphs = [replace(graph, layers=_list_linears(graph)) for graph in graphs]
    if not any(graph.layers for graph in graphs):
        return data
    model = read_model(data)
    linears = [find_linears(model, number, graph.exported) for number, graph in enumerate(graphs)]
    ranges = [find_ranges(model, number, graph, linears[number]) for number, graph in enumerate(graphs)]
    quantized = read_model(_run_quantizer(data, graphs, linears, ranges))
    _revive_scales(quantized)
    _mark_version(quantized, any("int4" in graph.layers.values() for graph in graphs))
    for number, graph in enumerate(graphs):
        _check_signature(quantized, number, graph, linears[number], ranges[number])
    return write_model(quantized)


def _list_linears(graph: Graph) -> dict[str, str]:
    """The layers that are not among graph.integers, which are written next (integers.py)."""
    rounded = list_rounded(graph)
    return {layer: how for layer, how in graph.layers.items() if layer not in rounded}


# ---- which FULLY_CONNECTED is which Linear ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Linear:
    """A Linear of the model in a file.

    The converter multiplies constants that follow it into its weights and adds them to its bias: factor, shift: [O],
    file's output = factor * model's output + shift.
    """

    layer: str
    factor: Array
    shift: Array

    def convert_range(self, of: Range) -> Range:
        """Convert a range of the model's output to the file's."""
        ends = [self.factor * end + self.shift for end in of]
        return float(np.minimum(*ends).min()), float(np.maximum(*ends).max())


def find_linears(model: Model, number: int, exported: ExportedProgram) -> dict[str, Linear]:
    """Find which FULLY_CONNECTED of a subgraph is which Linear.

    Each is given by the name of its output. It is told by the weights, up to a factor a row, because the converter
    merges names.
    """
    tensors = model.subgraphs[number].tensors
    left = [
        (name, exported.state_dict[name].detach().numpy(), find_bias(exported, node))
        for node, _ in matrix_products(exported)
        if (name := weight_name(exported, node))
    ]
    linears = {}
    for op in list_ops(model, number):
        if op.name != "FULLY_CONNECTED" or op.weight is None:
            continue
        for at, (name, weight, bias) in enumerate(left):
            if weight.size != op.weight.size:
                continue
            factor = find_factor(weight.reshape(op.weight.shape), op.weight)
            if factor is not None:
                own = read_floats(model, tensors[op.inputs[2]]) if len(op.inputs) > 2 and op.inputs[2] >= 0 else None
                shift = (np.float32(0) if own is None else own) - factor * bias
                linears[op.output] = Linear(name.removesuffix(".weight"), factor, shift)
                del left[at]
                break
    return linears


def find_bias(exported: ExportedProgram, node: Node) -> Any:
    """Read the bias of a Linear's or convolution's node, 0 without one."""
    arguments: tuple[Any, ...] = node.args
    data = read_constants(exported).get((*arguments, None)[2])
    return np.float32(0) if data is None else data.numpy()


def find_factor(a: Array, b: Array) -> Array | None:
    """Find what multiple of a's rows b's rows are.

    [O] for rows [I]; 1 where both are zero; None if there is no such factor. The first row settles it for almost all
    that differ.
    """
    if a.any() and not b.any():  # zero is a multiple of everything
        return None
    for rows in (slice(1), slice(None)):
        x, y = a[rows], b[rows]
        square = (x * x).sum(1)
        factor: Array = np.where(square > 0, (x * y).sum(1) / np.maximum(square, 1e-30), 1).astype(np.float32)
        if not np.allclose(factor[:, None] * x, y, rtol=1e-4, atol=1e-5 * float(np.abs(y).max())):
            return None
    return factor


# ---- int8, int8-static, int4: the quantiser --------------------------------------------------------------------------


def _run_quantizer(
    data: bytes, graphs: Sequence[Graph], linears: Sequence[dict[str, Linear]], ranges: Sequence[dict[str, Range]]
) -> bytes:
    work = quantizer.Quantizer(bytearray(data))
    for precision in ("int8", "int8-static", "int4"):
        chosen = [
            re.escape(output)
            for graph, known in zip(graphs, linears, strict=True)
            for output, linear in known.items()
            if graph.layers.get(linear.layer) == precision
        ]
        if not chosen:
            continue
        pattern = f"^({'|'.join(chosen)});$"
        if precision == "int8":
            work.add_dynamic_config(pattern, LINEAR, num_bits=8)
        elif precision == "int4":
            work.add_dynamic_config(pattern, LINEAR, num_bits=4, granularity=_find_granularity(graphs[0].group))
        else:
            work.add_static_config(pattern, LINEAR, activation_num_bits=8, weight_num_bits=8)
    # as from a calibration; names of tensors are unique in the file
    spans = {
        name: {"min": np.array([[low]], np.float32), "max": np.array([[high]], np.float32)}
        for part in ranges
        for name, (low, high) in part.items()
    }
    result = work.quantize(spans or None, enable_progress_report=False, enable_progress_bar=False)
    return bytes(result.quantized_model)


def _find_granularity(group: int) -> Any:
    if group not in GROUPS:
        raise UserError(
            f"quant.group={group}", f"{', '.join(map(str, GROUPS))} for litert", "change it with --set quant.group=..."
        )
    return qtyping.QuantGranularity(f"BLOCKWISE_{group}")


def find_ranges(model: Model, number: int, graph: Graph, linears: dict[str, Linear]) -> dict[str, Range]:
    """Find what each tensor spans that becomes int8 at run time.

    Tensors are given by name. One between two such Linears has the range of the second one's input. RuntimeError if
    Linears that read one tensor disagree about it.
    """
    tensors = model.subgraphs[number].tensors
    inputs: dict[str, Range] = {}
    outputs: dict[str, Range] = {}
    for op in list_ops(model, number):
        linear = linears.get(op.output)
        if linear is None or graph.layers.get(linear.layer) != "int8-static":
            continue
        ranges = graph.ranges[linear.layer]
        source = tensors[op.inputs[0]].name.decode()
        if not np.allclose(inputs.setdefault(source, ranges.input), ranges.input, rtol=1e-3):
            raise RuntimeError(
                f"{linear.layer} gives {source} the range {ranges.input}, another Linear {inputs[source]}"
            )
        outputs[op.output] = linear.convert_range(ranges.output)
    return outputs | inputs


def _revive_scales(model: Model) -> None:
    """A group of weights so small that float16 has no scale for it is stored as zeros, with a scale that it has:
    XNNPACK refuses a scale of 0."""
    for graph in model.subgraphs:
        for tensor in (t for t in graph.tensors if t.type == schema.TensorType.INT4):
            buffer = model.buffers[graph.tensors[tensor.quantization.details.scales].buffer]
            scales = np.frombuffer(buffer.data, np.float16)
            gone = scales == 0
            if gone.any():
                packed = np.frombuffer(model.buffers[tensor.buffer].data, np.uint8).reshape(len(scales), -1)
                model.buffers[tensor.buffer].data = np.where(gone[:, None], np.uint8(0), packed).reshape(-1)
                buffer.data = np.where(gone, np.finfo(np.float16).tiny, scales).view(np.uint8)


def _mark_version(model: Model, grouped: bool) -> None:
    for code in model.operatorCodes:
        if name_op(code) == "FULLY_CONNECTED":
            code.version = max(code.version, PER_GROUP_VERSION if grouped else PER_CHANNEL_VERSION)


# ---- what was done, read back ----------------------------------------------------------------------------------------


def _check_signature(
    model: Model, number: int, graph: Graph, linears: dict[str, Linear], ranges: dict[str, Range]
) -> None:
    tensors, found = model.subgraphs[number].tensors, {}
    known: set[int] = set()
    for op in list_ops(model, number):
        if op.name == "FULLY_CONNECTED" and op.types & {"INT8", "INT4"}:
            linear = linears.get(op.output)
            found[linear.layer if linear else op.output] = _read_scheme(tensors, op, graph.group, ranges)
            known.update(op.inputs, op.outputs)
    if found != graph.layers:
        missed, extra = sorted(graph.layers.items() - found.items()), sorted(found.items() - graph.layers.items())
        raise RuntimeError(f"LiteRT's quantiser left out {missed} and made {extra} instead; {REPORT}")
    narrow = {n for n, t in enumerate(tensors) if t.type in (schema.TensorType.INT8, schema.TensorType.INT4)}
    if others := [tensors[n].name.decode() for n in sorted(narrow - known)]:
        raise RuntimeError(f"LiteRT's quantiser made integers of {others}, expected Linears alone; {REPORT}")


def _read_scheme(tensors: Sequence[Any], op: Op, group: int, ranges: dict[str, Range]) -> str:
    """The precision of a FULLY_CONNECTED with integers in it; words for anything that is none of ours."""
    source, weight, result = tensors[op.inputs[0]], tensors[op.inputs[1]], tensors[op.outputs[0]]
    types, scheme = [TYPE_NAMES[t.type] for t in (source, weight, result)], weight.quantization
    symmetric = scheme is not None and not np.any(scheme.zeroPoint if scheme.zeroPoint is not None else 0)
    if types[1] == "INT8" and symmetric and scheme.scale is not None and len(scheme.scale) == find_shape(weight)[0]:
        if types[::2] == ["FLOAT32", "FLOAT32"]:
            return "int8"
        if types[::2] == ["INT8", "INT8"] and all(_has_range(tensor, ranges) for tensor in (source, result)):
            return "int8-static"
    details = scheme.details if scheme is not None else None
    if types == ["FLOAT32", "INT4", "FLOAT32"] and symmetric and getattr(details, "blockSize", 0) == group:
        return "int4"
    return f"something else of {', '.join(types)}"


def _has_range(tensor: Any, ranges: dict[str, Range]) -> bool:
    """Does an int8 tensor, whole and in one scale, stand for the range that it was to have?"""
    wanted, scheme = ranges.get(tensor.name.decode().removesuffix("_quantized")), tensor.quantization
    if wanted is None or len(scheme.scale) != 1:
        return False
    low, high = min(wanted[0], 0.0), max(wanted[1], 0.0)
    got = (np.array([-128, 127]) - scheme.zeroPoint[0]) * scheme.scale[0]
    return np.allclose(got, (low, high), atol=float(scheme.scale[0]))


# ---- fp16 ------------------------------------------------------------------------------------------------------------


def _halve(data: bytes, has_weights: bool) -> bytes:
    """Every float constant of two or more dimensions stored in float16 behind a DEQUANTIZE, which XNNPACK works out
    once, when the file is opened."""
    model = read_model(data)
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    code.version = DEQUANTIZE_VERSION
    model.operatorCodes.append(code)
    halves: dict[int, int] = {}  # number of a buffer in float32 -> in float16
    for graph in model.subgraphs:
        steps = [_halve_tensor(model, graph, number, halves) for number in _list_weights(model, graph)]
        graph.operators = steps + graph.operators
    if not halves and has_weights:
        raise RuntimeError(f"no weights found to store in float16; {REPORT}")
    return write_model(model)


def _list_weights(model: Model, graph: Any) -> list[int]:
    values = (read_floats(model, tensor) for tensor in graph.tensors)
    return [number for number, value in enumerate(values) if value is not None and value.ndim > 1]


def _halve_tensor(model: Model, graph: Any, number: int, halves: dict[int, int]) -> Any:
    """The DEQUANTIZE that computes a tensor, no longer a constant, from a new one in float16."""
    tensor = graph.tensors[number]
    if tensor.buffer not in halves:
        values = _round_half(read_floats(model, tensor), tensor.name.decode())
        halves[tensor.buffer] = add_buffer(model, values.tobytes())
    half = copy(tensor)
    half.name, half.type, half.buffer = tensor.name + b"_half", schema.TensorType.FLOAT16, halves[tensor.buffer]
    tensor.buffer = 0
    graph.tensors.append(half)
    step = schema.OperatorT()
    step.opcodeIndex, step.inputs, step.outputs = len(model.operatorCodes) - 1, [len(graph.tensors) - 1], [number]
    return step


def _round_half(values: Any, name: str) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        half: NDArray[np.float16] = values.astype(np.float16)
    if not np.isfinite(half).all():
        largest = float(np.abs(values).max())
        raise UserError(f"a weight of {largest:g} in {name}", "no more than 65504, float16's largest", "leave fp16 out")
    return half
