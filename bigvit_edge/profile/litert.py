"""LiteRT's profiler: nodes, and XNNPACK's ops inside the nodes that it took, in whole microseconds."""

import time
from math import isqrt, prod
from pathlib import Path

from bigvit_edge.artifact import Array
from bigvit_edge.profile.litert_library import GENERAL, INSIDE, NODE, CompiledModel, Told
from bigvit_edge.profile.records import Event, Op, Span, Traced, Track, name_layer
from bigvit_edge.runtime.tflite import Node, list_methods, list_nodes

INVOKE, UNKNOWN = "Invoke", "model"
# What XNNPACK calls its ops begins so, and what LiteRT calls its own is upper case.
KINDS = {
    "Fully Connected": "linear", "FULLY_CONNECTED": "linear", "Batch Matrix Multiply": "matrix product",
    "BATCH_MATMUL": "matrix product", "Convolution": "convolution", "CONV_2D": "convolution",
    "DEPTHWISE_CONV_2D": "convolution", "Deconvolution": "convolution", "Softmax": "softmax", "SOFTMAX": "softmax",
    "GELU": "activation", "Sigmoid": "activation", "TanH": "activation", "Clamp": "activation",
    "HardSwish": "activation", "Leaky": "activation", "Mean": "normalisation", "MEAN": "normalisation",
    "Reciprocal Square Root": "normalisation", "RSQRT": "normalisation", "Convert": "quantisation",
    "QUANTIZE": "quantisation", "DEQUANTIZE": "quantisation", "TOPK": "routing", "GATHER": "routing",
    "Transpose": "copying", "TRANSPOSE": "copying", "Static Reshape": "copying", "RESHAPE": "copying",
    "Copy": "copying", "Slice": "copying", "SLICE": "copying", "Concatenate": "copying", "CONCATENATION": "copying",
    "Constant Pad": "copying", "PAD": "copying", "Add": "elementwise", "Subtract": "elementwise",
    "Multiply": "elementwise", "Divide": "elementwise", "Square": "elementwise", "Maximum": "elementwise",
    "Minimum": "elementwise", "ADD": "elementwise", "MUL": "elementwise", "SUB": "elementwise", "DIV": "elementwise",
}  # fmt: skip
# Ops that multiply matrices, by LiteRT's numbers of them; XNNPACK does each as one op, in the same order.
PRODUCTS = {9: "linear", 126: "matrix product", 3: "convolution", 4: "convolution"}
CONVOLUTION, DEPTHWISE, FULLY_CONNECTED, BATCH_MATMUL = 3, 4, 9, 126
NOTES = (
    "LiteRT tells whole microseconds, each op's rounded down, so that the sum of many short ops is too small",
    "of XNNPACK's ops it tells how long they took, not when: they stand one behind the other",
    "XNNPACK's ops have no names of layers: its products are those of the file in their order, and what lies between "
    "two of them is counted to the layer of the second",
)
UNMATCHED = "XNNPACK did not multiply matrices as often as the file does, so that its ops have no layer"


def trace_file(path: Path, image: Array, warmup: int, runs: int, threads: int, method: str) -> Traced:
    """Trace runs of a .tflite by LiteRT's compiled model on the CPU."""
    data = path.read_bytes()
    subgraphs = list_methods(data)
    signature = list(subgraphs).index(method) if method in subgraphs else 0
    model = CompiledModel(path, threads, signature, image.dtype.name)
    for _ in range(warmup):
        model.run(image)
    nodes = list_nodes(data, subgraphs.get(method, 0))
    spans, told = [], []
    begun = time.monotonic_ns() / 1e3
    for _ in range(runs):
        start = time.monotonic_ns() / 1e3
        told.append(model.profile(image))
        spans.append(Span(start - begun, time.monotonic_ns() / 1e3 - start))
    return read_events(told, spans, begun, nodes)


def read_events(told: list[list[Told]], spans: list[Span], begun_us: float, nodes: list[Node]) -> Traced:
    """Read each run's events, in LiteRT's order.

    On its clock, which is the monotonic one. nodes: of the file.
    """
    ops, events, runs = dict[Op, int](), list[Event](), list[Span]()
    for run, (each, span) in enumerate(zip(told, spans, strict=True)):
        whole = (event for event in each if event.kind == GENERAL and event.tag == INVOKE)
        invoke = next((event for event in whole if event.duration_us <= span.duration_us), None)
        start = invoke.start_us - begun_us if invoke else span.start_us
        runs.append(Span(start, invoke.duration_us) if invoke else span)
        end, now = start + runs[-1].duration_us, start
        for op, event in _name_ops(each, nodes):
            if event.kind & NODE:
                now = max(now, event.start_us - begun_us)
            took = min(float(event.duration_us), max(0.0, end - now))
            events.append(Event(run, ops.setdefault(op, len(ops)), 0, now, took, placed=not event.kind & NODE))
            now += took
    notes = (*NOTES, UNMATCHED) if any(op.layer == UNKNOWN for op in ops) else NOTES
    return Traced(tuple(ops), (Track("thread 0 (caller)"),), tuple(runs), tuple(events), notes)


def _name_ops(told: list[Told], nodes: list[Node]) -> list[tuple[Op, Told]]:
    """Each op of a run with its event; what XNNPACK took lies between the nodes that it did not take."""
    layers = _list_layers(nodes)
    named, piece, before = list[tuple[Op, Told]](), list[Told](), -1
    for event in [*(each for each in told if each.kind & (NODE | INSIDE)), Told("", NODE, 0, 0, len(nodes))]:
        if event.kind & INSIDE:
            piece.append(event)
            continue
        first = len(named)
        named += _match(piece, nodes[before + 1 : event.node], layers[before + 1 : event.node], first)
        if event.tag and event.node < len(nodes):
            node = nodes[event.node]
            word, layer = event.tag, layers[event.node]
            macs, type_ = count_macs(node), "qd8" if node.code in PRODUCTS and _is_quantised(node) else ""
            op = Op(
                f"{word} #{len(named)}", layer, _find_kind(word), word, "LiteRT", "", macs, count_bytes(node), type_
            )
            named.append((op, event))
        piece, before = [], event.node
    return named


def _match(piece: list[Told], nodes: list[Node], layers: list[str], first: int) -> list[tuple[Op, Told]]:
    """XNNPACK's ops of one piece, by their products, which are those of the nodes in the same order."""
    anchors = [(node, layer) for node, layer in zip(nodes, layers, strict=True) if node.code in PRODUCTS]
    kinds = [_find_kind(event.tag) for event in piece]
    places = [i for i, kind in enumerate(kinds) if kind in PRODUCTS.values()]
    matches = len(places) == len(anchors) and all(
        _agrees(kinds[i], node) for i, (node, _) in zip(places, anchors, strict=True)
    )
    named, last = list[tuple[Op, Told]](), layers[-1] if layers else UNKNOWN
    for number, (event, kind) in enumerate(zip(piece, kinds, strict=True)):
        macs: int | None = 0 if matches else None
        bytes_: int | None = None
        layer = last if matches else UNKNOWN
        following = next((i for i, place in enumerate(places) if place >= number), None)
        if matches and following is not None:
            node, layer = anchors[following]
            if places[following] == number:
                kind, macs, bytes_ = PRODUCTS[node.code], count_macs(node), count_bytes(node)
        type_ = _find_type(event.tag) if kind in PRODUCTS.values() else ""
        name = f"{event.tag} #{first + number}"  # the same many times: its place in the run tells them apart
        named.append((Op(name, layer, kind, event.tag, "XNNPACK", "", macs, bytes_, type_), event))
    return named


def _agrees(kind: str, node: Node) -> bool:
    """Whether XNNPACK's op may be that node: a convolution of single pixels is one of its Fully Connected."""
    is_pointwise = node.code == CONVOLUTION and node.inputs[1].shape[1:3] == (1, 1)
    return kind == PRODUCTS[node.code] or (is_pointwise and kind == "linear")


def count_macs(node: Node) -> int:
    """Count the multiply-accumulates of a node, from its shapes."""
    if node.code not in PRODUCTS or not node.outputs or len(node.inputs) < 2:
        return 0
    left, right, made = (tensor.shape for tensor in (*node.inputs[:2], node.outputs[0]))
    if node.code == FULLY_CONNECTED:  # [out, in]
        return prod(made) * right[-1]
    if node.code == BATCH_MATMUL:  # b m k times b k n, either turned
        return isqrt(prod(left) * prod(right) * prod(made) // max(1, prod(made[:-2])))
    return prod(made) * prod(right[1:3] if node.code == DEPTHWISE else right[1:])  # [1, h, w, c], [out, h, w, in]


def count_bytes(node: Node) -> int:
    """Count the bytes of a node's inputs and outputs, weights among them."""
    return sum(tensor.bytes for tensor in (*node.inputs, *node.outputs))


def _list_layers(nodes: list[Node]) -> list[str]:
    """Each node's layer: 'layers.0' where its output is called '_layers/0/router/norm;2', as in an export.

    One of another name, as of the model's output, is the layer's of the node before.
    """
    layers, last = [], UNKNOWN
    for node in nodes:
        name = node.outputs[0].name if node.outputs else ""
        if name.startswith("_"):
            last = name_layer(name.partition(";")[0].strip("_").replace("/", ".")) or last
        layers.append(last)
    return layers


def _find_kind(tag: str) -> str:
    known = [start for start in KINDS if tag.startswith(start)]
    return KINDS[max(known, key=len)] if known else "other"


def _find_type(tag: str) -> str:
    """'qd8' of 'Fully Connected (NC, QDU8, F32, QC8W) GEMM'."""
    words = tag.partition("(")[2].partition(")")[0].split(", ")
    return "qd8" if any(word.startswith(("QD", "QS", "QU")) for word in words) else "f16" if "F16" in words else "f32"


def _is_quantised(node: Node) -> bool:
    return len(node.inputs) > 1 and node.inputs[1].bytes < 4 * prod(node.inputs[1].shape)
