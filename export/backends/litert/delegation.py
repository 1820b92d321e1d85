"""What delegates take of a file, XNNPACK's and ours, what they leave to the interpreter, and why."""

from collections.abc import Sequence
from typing import Any

from bigvit_edge.artifact import Leftover, Method
from bigvit_edge.console import silenced
from bigvit_edge.export.backends.litert.contents import Op, list_ops, read_model
from bigvit_edge.export.graph import layer_group
from bigvit_edge.runtime.tflite import select_method

with silenced():
    from ai_edge_litert.interpreter import Interpreter

# What the delegate visits at all: VisitNode in LiteRT's tflite/delegates/xnnpack/xnnpack_delegate.cc (August 2026).
VISITED = {
    *("ABS", "ADD", "ASSIGN_VARIABLE", "AVERAGE_POOL_2D", "BATCH_MATMUL", "CEIL", "CONCATENATION", "CONV_2D", "COS"),
    *("DEPTHWISE_CONV_2D", "DEPTH_TO_SPACE", "DEQUANTIZE", "DIV", "ELU", "EXP", "EXPAND_DIMS", "FLOOR"),
    *("FULLY_CONNECTED", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOG", "LOGISTIC", "MAXIMUM", "MAX_POOL_2D", "MEAN"),
    *("MINIMUM", "MUL", "NEG", "PAD", "PRELU", "QUANTIZE", "READ_VARIABLE", "REDUCE_MAX", "REDUCE_MIN", "RELU"),
    *("RELU6", "RELU_N1_TO_1", "RESHAPE", "RESIZE_BILINEAR", "ROUND", "RSQRT", "SIN", "SLICE", "SOFTMAX"),
    *("SPACE_TO_DEPTH", "SPLIT", "SQRT", "SQUARE", "SQUARED_DIFFERENCE", "STABLEHLO_COMPOSITE", "STRIDED_SLICE"),
    *("SUB", "SUM", "TANH", "TRANSPOSE", "TRANSPOSE_CONV", "VAR_HANDLE"),
}


def describe_method(
    data: bytes, name: str, keep: float | None, delegates: Sequence[Any] = (), macs_inside: int = 0
) -> Method:
    """Describe a signature's delegates, and the ops outside them.

    The ops in order, and in how many delegates each layer is. delegates: that the interpreter gets besides XNNPACK's;
    macs_inside: multiply-accumulates of the ops that only they know.

    The interpreter lists its nodes of before and after delegation together; what a DELEGATE node swallowed lies between
    its outputs and its inputs.
    """
    content = select_method(data, name)
    interpreter = Interpreter(model_content=content, num_threads=1, experimental_delegates=list(delegates))
    interpreter.allocate_tensors()
    ops = list_ops(read_model(content))
    nodes = [node for node in interpreter._get_ops_details() if node["op_name"] == "DELEGATE"]
    pieces: list[set[int]] = []
    for node in nodes:
        taken = set[int]().union(*pieces)
        pieces.append(_find_swallowed(ops, set(node["inputs"]), list(node["outputs"]), taken))
    return Method(
        name,
        keep,
        len(nodes),
        _list_leftovers(ops, set[int]().union(*pieces), macs_inside),
        _count_fragments(ops, pieces),
    )


def _find_swallowed(ops: list[Op], inputs: set[int], wanted: list[int], taken: set[int]) -> set[int]:
    """Numbers of the ops that lie behind the wanted tensors and not behind the inputs."""
    maker = {tensor: number for number, op in enumerate(ops) for tensor in op.outputs}
    found: set[int] = set()
    while wanted:
        number = maker.get(wanted.pop())
        if number is not None and number not in taken | found:
            found.add(number)
            wanted += [tensor for tensor in ops[number].inputs if tensor not in inputs]
    return found


def _list_leftovers(ops: list[Op], taken: set[int], macs_inside: int) -> tuple[Leftover, ...]:
    total = max(1, macs_inside + sum(op.macs for op in ops))
    left = [op for number, op in enumerate(ops) if number not in taken]
    return tuple(Leftover(op.name, op.layer, op.macs / total, _explain(op)) for op in left)


def _explain(op: Op) -> str:
    if op.name not in VISITED:
        return f"XNNPACK's delegate has no {op.name} (xnnpack_delegate.cc, VisitNode)"
    if "FLOAT32" not in op.types and "INT8" not in op.types:
        return f"XNNPACK's delegate takes {op.name} of float32 or int8, not of {' and '.join(sorted(op.types)).lower()}"
    if op.name == "FULLY_CONNECTED" and op.types == {"FLOAT32"} and op.weight is None:
        return "XNNPACK's delegate takes FULLY_CONNECTED of constant weights; this one's are computed"
    return f"XNNPACK's delegate takes {op.name}, not with these options and shapes, or left it to its neighbours"


def _count_fragments(ops: list[Op], pieces: list[set[int]]) -> dict[str, int]:
    # a weight that is unpacked when the file is opened is no work of a delegate's
    layers = {n: layer_group(op.layer) for n, op in enumerate(ops) if op.layer and "FLOAT16" not in op.types}
    counts = {name: sum(any(layers.get(n) == name for n in piece) for piece in pieces) for name in layers.values()}
    return {name: count for name, count in counts.items() if count}
