"""What a saved package holds: which layers are quantised, and which ops the Apple Neural Engine is known to refuse.

No list of Apple's says what the Neural Engine takes; it changes with the device and the system (Apple's word:
github.com/apple/coremltools/issues/1780). So the reasons below are what others measured or documented, each with its
source, and what lies between such ops is an estimate: Core ML decides on the device.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import prod

import torch

from bigvit_edge.artifact import Leftover, Method
from bigvit_edge.export.backends.coreml.weights import PALETTE, PRODUCTS
from bigvit_edge.export.graph import Graph, layer_group, name_layer
from bigvit_edge.export.quantization import list_rounded
from bigvit_edge.runtime import mil
from bigvit_edge.runtime.mil.package import Op
from bigvit_edge.target import FULL

REPORT = "this is a bug of bigvit-edge: please report it with the model's name and these words"
INDICES = (
    "the Neural Engine leaves ops on integer indices to the CPU (measured with MLComputePlan on an M3 Pro, macOS 27, "
    "github.com/roboflow/rf-detr/pull/1495)"
)
ONLY_HALF = (
    "a float32 program runs on CPU and GPU only; the Neural Engine takes float16 "
    "(apple.github.io/coremltools/docs-guides/source/typed-execution-example.html)"
)
GATHER = (
    "gather does not run on the Neural Engine (github.com/hollance/neural-engine, docs/unsupported-layers.md; "
    "github.com/apple/coremltools/issues/1103)"
)
RECURRENT = "recurrent ops are not supported on the Neural Engine (github.com/apple/coremltools/issues/1780)"
REFUSED = {
    "topk": "top-k leaves the Neural Engine for the CPU (github.com/roboflow/rf-detr/pull/1495; 1.75 ms each on an "
    "iPhone 17 Pro, github.com/apple/coreai-torch/issues/66)",
    "gather": GATHER,
    "gather_along_axis": GATHER,
    "gather_nd": GATHER,
    "gru": RECURRENT,
    "lstm": RECURRENT,
    "resample": "resample runs on the CPU (github.com/apple/coremltools/issues/1875)",
    "rnn": RECURRENT,
}
WHOLE = {"int32", "int16", "uint16", "int64"}  # indices; int8 and uint8 are quantised activations


def describe_method(files: Mapping[str, bytes], name: str, graph: Graph, layers: Mapping[str, str]) -> Method:
    """Describe an entry point as it was saved.

    leftovers: what the Neural Engine is known to refuse, by sources, not by trial; delegates, fragments: an estimate of
    the pieces that remain between. RuntimeError if other layers are quantised than asked.
    """
    ops = mil.list_ops(files, "the package", name)
    _check_layers(ops, graph, layers)
    if graph.precision == "fp32":
        return Method(name, graph.keep, 0, (Leftover("the whole program", "", 1.0, ONLY_HALF),), {})
    shapes = {value: type_.shape for op in ops for value, type_ in op.outputs.items()}
    work = [op for op in ops if op.type != "const" and not op.type.startswith("constexpr_")]
    macs = [_count_macs(op, shapes) for op in work]
    whole = {value for op in work for value, type_ in op.outputs.items() if type_.dtype in WHOLE}
    leftovers, pieces = [], []
    depths: dict[str, int] = {}  # a value -> how many refused stretches lie before it
    refused: set[str] = set()  # values that refused ops made
    for op, cost in zip(work, macs, strict=True):
        inputs, layer = list(_list_names(op)), layers.get(next(iter(op.outputs)), "")
        reason = REFUSED.get(op.type) or (INDICES if whole & {*inputs, *op.outputs} else "")
        depth = max((depths.get(v, 0) + (v in refused and not reason) for v in inputs), default=0)
        depths |= dict.fromkeys(op.outputs, depth)
        if reason:
            refused |= set(op.outputs)
            leftovers.append(Leftover(op.type, layer, cost / max(1, sum(macs)), reason))
        else:
            pieces.append((layer_group(layer), depth))
    fragments = {group: len({d for g, d in pieces if g == group}) for group, _ in pieces if group}
    return Method(name, graph.keep, len({depth for _, depth in pieces}), tuple(leftovers), fragments)


def _check_layers(ops: Sequence[Op], graph: Graph, layers: Mapping[str, str]) -> None:
    makers = {value: op for op in ops for value in op.outputs}
    products = [op for op in ops if op.type in PRODUCTS]
    found = {layers[next(iter(op.outputs))]: how for op in products if (how := _find_precision(op, makers))}
    rounded, held = list_rounded(graph), _list_held(graph)
    wanted = {
        layer: "int8-static" if layer in rounded or (how == "int8" and layer in held) else how
        for layer, how in graph.layers.items()
    }
    # what has no weight of its own is a layer too in int8-full, and none where a convolution is of integers
    nameless = found.keys() - wanted.keys() if graph.precision == FULL else {""}
    found = {layer: how for layer, how in found.items() if layer not in nameless}
    if found != wanted:
        missed, extra = sorted(wanted.items() - found.items()), sorted(found.items() - wanted.items())
        raise RuntimeError(
            f"coremltools left out {missed} and made {extra}, expected exactly the layers named; {REPORT}"
        )
    weights = {_name(op, "weight") for op in products}
    packed = {value for op in ops if op.type.startswith("constexpr_") for value in op.outputs}
    if graph.precision != FULL and (others := sorted(packed - weights)):
        raise RuntimeError(f"coremltools quantised {others}, expected weights of layers alone; {REPORT}")


def _list_held(graph: Graph) -> set[str]:
    """The Linears that read what the graph's integers give: int8 on a range already."""
    linears = graph.exported.graph.find_nodes(op="call_function", target=torch.ops.aten.linear.default)
    return {name_layer(graph, node) for node in linears if node.all_input_nodes[0].name in graph.integers.ops}


def _find_precision(product: Op, makers: Mapping[str, Op]) -> str:
    """How a layer is quantised, by the op that unpacks its weight; '' if it is float."""
    weight = makers[_name(product, "weight")]
    value = makers.get(_name(product, "x"))
    while value is not None and value.type == "pad":
        value = makers.get(_name(value, "x"))
    static = value is not None and value.type == "dequantize"
    match weight.type:
        case "constexpr_affine_dequantize" if weight.types["quantized_data"].dtype == "int8":
            return "int8-static" if static else "int8"
        case "constexpr_blockwise_shift_scale" if weight.types["data"].dtype == "int8":
            return "int8-static" if static else "int8"
        case "constexpr_lut_to_dense" if PALETTE in weight.types["lut"].shape[-2:]:
            return "int4"
        case "const":
            return ""
    return weight.type


def _list_names(op: Op) -> Iterator[str]:
    return (value for several in op.inputs.values() for value in several if isinstance(value, str))


def _name(op: Op, argument: str) -> str:
    """The value that an argument names."""
    (value,) = op.inputs[argument]
    return str(value)


def _count_macs(op: Op, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Multiply-accumulates of one op, from the shapes in the file; weights are [O, I, ...]."""
    output = next(iter(op.outputs.values())).shape
    if op.type in ("linear", "conv"):
        return prod(output) * prod(shapes[_name(op, "weight")][1:])
    if op.type == "scaled_dot_product_attention" and all(_name(op, name) in shapes for name in ("query", "key")):
        query, keys = shapes[_name(op, "query")], shapes[_name(op, "key")][-2]
        return prod(query[:-1]) * keys * (query[-1] + output[-1])
    if op.type == "matmul" and _name(op, "x") in shapes:  # [..., m, k], or transposed, to [..., m, n]
        return prod(output) * prod(shapes[_name(op, "x")][-2:]) // output[-2]
    return 0
