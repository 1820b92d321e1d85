"""LiteRT (.tflite), run by its interpreter with the XNNPACK delegate; int8 is its dynamic range quantisation.

The graph is first put in ops that LiteRT has (tfl.gather, tfl.gelu, a batch_matmul of four dimensions). Its converter
passes them through; of the PyTorch ops it would make towers: an index_select becomes ten ops. The input stays
[1, 3, S, S] as in PyTorch: the one transpose that cuts the image into patches is needed for a channels-last image too.
"""

import re
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Graph as FxGraph
from torch.fx import Node
from torch.utils._pytree import tree_flatten

from bigvit_edge.artifact import Array, Artifact, Leftover, Run, list_versions
from bigvit_edge.errors import UserError
from bigvit_edge.export.console import silenced
from bigvit_edge.export.graph import Graph, layer_of, matrix_products, weight_name

if TYPE_CHECKING:
    from bigvit_edge.target import Target


with silenced():
    import litert_torch
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_litert.tools import flatbuffer_utils
    from ai_edge_quantizer import qtyping, quantizer
    from litert_torch import fx_infra
    from litert_torch._convert import core, litert_converter
    from litert_torch._convert.signature import Signature
    from litert_torch.backend.experimental import torch_tfl  # noqa: F401  registers torch.ops.tfl

litert_torch.config.show_progress = False
aten, tfl = torch.ops.aten, torch.ops.tfl

FORMAT = "litert"
SUFFIX = ".tflite"
PACKAGES = ("litert-torch", "ai-edge-litert", "ai-edge-quantizer", "torch")


def lower(graph: Graph, target: "Target") -> Artifact:
    """The .tflite of a graph. RuntimeError if the quantiser took other layers than graph.int8."""
    with silenced():
        data = _lower_float(graph.exported)
        if graph.int8:
            data = _quantize(data, graph)
        leftovers, delegates = _find_leftovers(data)
    return Artifact(FORMAT, graph.precision, data, leftovers, delegates, list_versions(PACKAGES))


# The float file, kept as long as its graph because int8 starts from it too: this is where the time goes.
_float_files: WeakKeyDictionary[ExportedProgram, bytes] = WeakKeyDictionary()


def _lower_float(exported: ExportedProgram) -> bytes:
    if exported not in _float_files:
        _float_files[exported] = _convert(_simplify(exported))
    return _float_files[exported]


def load(path: Path, threads: int = 1) -> Run:
    """Open a .tflite. Run takes [1, 3, S, S] and gives [1, num_classes], float32. UserError if it is not one."""
    with silenced():
        try:
            interpreter = Interpreter(model_path=str(path), num_threads=threads)
            interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as e:
            raise UserError(
                f"{path}: LiteRT cannot load it ({e})", "a .tflite file as exported", "export the model again"
            ) from e
    image, logits = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run(images: Array) -> Array:
        interpreter.set_tensor(image, images)
        interpreter.invoke()
        return interpreter.get_tensor(logits)  # type: ignore[no-any-return]

    return run


# ---- the graph in LiteRT's ops ---------------------------------------------------------------------------------------


def _simplify(exported: ExportedProgram) -> ExportedProgram:
    """A copy of the graph in core ATen and tfl ops."""
    program: ExportedProgram = exported.run_decompositions(fx_infra.decomp.pre_convert_decomp() | DECOMPOSITIONS)
    _keep_batch(program.graph)
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()
    for node in program.graph.nodes:
        # the converter names a tensor by what follows the last dot of the module's name; we want all of it
        node.meta["nn_module_stack"] = {"": (layer_of(node).replace(".", "/"), "")}
    return program


def _layer_norm(
    x: Tensor, shape: list[int], weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5, *_: bool
) -> Any:
    """[..., C] normalised over C; the converter's own form takes four reshapes more."""
    if len(shape) != 1:
        return NotImplemented
    centred = x - tfl.mean(x, [x.dim() - 1], True)
    normal = centred * torch.rsqrt(tfl.mean(centred * centred, [x.dim() - 1], True) + eps)
    if weight is not None:
        normal = normal * weight
    return normal if bias is None else normal + bias


DECOMPOSITIONS = {
    aten.layer_norm.default: _layer_norm,
    aten.gelu.default: lambda x, approximate="none": tfl.gelu(x, approximate == "tanh"),
    aten.index_select.default: lambda x, dim, index: tfl.gather(x, index, dim),
}

MOVES = {aten.transpose.int, aten.softmax.int}
ELEMENTWISE = {aten.clone.default, aten.mul.Tensor, aten.div.Tensor, aten.add.Tensor}


def _keep_batch(graph: FxGraph) -> None:
    """Attention in four dimensions: [1, H, N, d] stays so through bmm and softmax, without reshapes around each bmm."""
    whole: dict[Node, Node] = {}  # a value [A, B, C] -> the same as [1, A, B, C]
    for node in list(graph.nodes):
        if node.op != "call_function" or not node.args or not isinstance(node.args[0], Node):
            continue
        source, shape = node.args[0], _shape(node)
        if node.target is aten.view.default and len(shape) == 3 and _shape(source) == (1, *shape):
            whole[node] = source
        elif node.target is aten.view.default and source in whole and shape == (1, *_shape(source)):
            node.replace_all_uses_with(whole[source])
        elif four := _in_four(graph, node, whole):
            whole[node] = four
    for three, four in whole.items():  # for users that still want three dimensions; nobody else uses those nodes now
        if three.target is not aten.view.default and any(user not in whole for user in three.users):
            three.replace_all_uses_with(_insert(graph, four, aten.view.default, (four, list(_shape(three)))))


def _in_four(graph: FxGraph, node: Node, whole: dict[Node, Node]) -> Node | None:
    """The node again, on [1, A, B, C]; None if it is not one of those that attention is made of."""
    args: list[Any] = list(node.args)
    if any(isinstance(a, Node) and a not in whole for a in args):
        return None
    args = [whole[a] if isinstance(a, Node) else a for a in args]
    if node.target is aten.bmm.default:
        a, b = args
        transposed = b.target is aten.transpose.int and {d % 4 for d in b.args[1:]} == {2, 3}
        return _insert(graph, node, tfl.batch_matmul.default, (a, b.args[0] if transposed else b, False, transposed))
    if node.target in MOVES and all(isinstance(d, int) for d in args[1:]):
        return _insert(graph, node, node.target, (args[0], *(d % 3 + 1 for d in args[1:])))
    if node.target in ELEMENTWISE:
        return _insert(graph, node, node.target, tuple(args), node.kwargs)
    return None


def _insert(graph: FxGraph, after: Node, target: Any, args: tuple[Any, ...], kwargs: Any = None) -> Node:
    """A new node, with its value's shape and the layer of the one it stands after."""
    with graph.inserting_after(after):
        node = graph.call_function(target, args, dict(kwargs or {}))
    node.meta = {key: after.meta[key] for key in ("nn_module_stack", "stack_trace", "from_node") if key in after.meta}
    node.meta["val"] = target(*(a.meta["val"] if isinstance(a, Node) else a for a in args), **node.kwargs)
    return node


def _shape(node: Node) -> tuple[int, ...]:
    return tuple(node.meta["val"].shape) if isinstance(node.meta.get("val"), Tensor) else ()


def _convert(program: ExportedProgram) -> bytes:
    """What litert_torch.convert does after a torch.export of its own; with names for the input and the output."""
    (image,) = program.example_inputs[0]
    program = core._run_convert_passes(program)
    call = program.module_call_graph[0]  # the converter takes the output's name from here
    named = replace(call.signature, out_spec=tree_flatten({"logits": 0})[1])
    program.module_call_graph[0] = replace(call, signature=named)
    signature = Signature("serving_default", program.graph_module, (), {"image": image})
    return litert_converter.exported_programs_to_flatbuffer([program], [signature]).to_bytes()  # type: ignore[no-any-return]


# ---- int8 ------------------------------------------------------------------------------------------------------------

# FULLY_CONNECTED with a scale per output channel. The quantiser leaves a lower number, with which tflite-runtime 2.14
# takes the file and computes nonsense (cosine 0.16 against PyTorch); with this one it refuses the file.
PER_CHANNEL_VERSION = 12
REPORT = "this is a bug of bigvit-edge: please report it with the model's name and these words"


def _quantize(data: bytes, graph: Graph) -> bytes:
    """int8 weights per output channel for the Linears in graph.int8; their inputs become int8 per row at run time."""
    layers = _find_linears(data, graph.exported)
    chosen = [re.escape(output) for output, layer in layers.items() if layer in graph.int8]
    work = quantizer.Quantizer(bytearray(data))
    work.add_dynamic_config(f"^({'|'.join(chosen)});$", qtyping.TFLOperationName.FULLY_CONNECTED, num_bits=8)
    result = work.quantize(enable_progress_report=False, enable_progress_bar=False)
    quantized = _mark_per_channel(result.quantized_model)
    found = {layers.get(output, output) for output in _list_quantized(quantized)}
    if found != graph.int8:
        missed, extra = sorted(graph.int8 - found), sorted(found - graph.int8)
        raise RuntimeError(
            f"LiteRT's quantiser left out {missed} and took {extra}, expected exactly the Linears named; {REPORT}"
        )
    return quantized


def _mark_per_channel(data: bytes) -> bytes:
    model = flatbuffer_utils.read_model_from_bytearray(data)
    for code in model.operatorCodes:
        if _name_op(code) == "FULLY_CONNECTED":
            code.version = max(code.version, PER_CHANNEL_VERSION)
    for buffer in model.buffers:
        if buffer.data is not None:  # anything but an array is packed byte by byte
            buffer.data = np.frombuffer(buffer.data, np.uint8)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _find_linears(data: bytes, exported: ExportedProgram) -> dict[str, str]:
    """Which FULLY_CONNECTED, by the name of its output, is which Linear. Told by the weights, because the converter
    merges names; and up to a factor a row, because it multiplies constants that follow a Linear into its weights."""
    names = [name for node, _ in matrix_products(exported) if (name := weight_name(exported, node))]
    weights = [(name, exported.state_dict[name].detach().numpy()) for name in names]
    layers = {}
    for op in _list_ops(data):
        if op.name != "FULLY_CONNECTED" or op.weight is None:
            continue
        for at, (name, weight) in enumerate(weights):
            if weight.size == op.weight.size and _same_rows(weight.reshape(op.weight.shape), op.weight):
                layers[op.output] = name.removesuffix(".weight")
                del weights[at]
                break
    return layers


def _same_rows(a: Array, b: Array) -> bool:
    """Is each row [I] of b a multiple of the same row of a? The first row settles it for almost all that differ."""
    for rows in (slice(1), slice(None)):
        x, y = a[rows], b[rows]
        factor = (x * y).sum(1, keepdims=True) / np.maximum((x * x).sum(1, keepdims=True), 1e-30)
        if not np.allclose(factor * x, y, rtol=1e-4, atol=1e-5 * float(np.abs(y).max())):
            return False
    return True


def _list_quantized(data: bytes) -> list[str]:
    """Outputs of the ops whose weights are int8, one symmetric scale per output channel. RuntimeError at other int8."""
    graph = flatbuffer_utils.read_model_from_bytearray(bytearray(data)).subgraphs[0]
    outputs, weights = [], set()
    for op in graph.operators:
        weight = graph.tensors[op.inputs[1]] if len(op.inputs) > 1 else None
        if weight is None or weight.type != schema.TensorType.INT8:
            continue
        if len(weight.quantization.scale) == weight.shape[0] and not np.any(weight.quantization.zeroPoint):
            outputs.append(graph.tensors[op.outputs[0]].name.decode())
            weights.add(op.inputs[1])
    int8 = {number for number, tensor in enumerate(graph.tensors) if tensor.type == schema.TensorType.INT8}
    if others := [graph.tensors[number].name.decode() for number in int8 - weights]:
        raise RuntimeError(
            f"LiteRT's quantiser made int8 of {others}, expected weights with a scale per output channel; {REPORT}"
        )
    return outputs


# ---- what the file holds, and what the delegate takes ----------------------------------------------------------------


@dataclass(frozen=True)
class Op:
    """One op of the file. inputs, outputs: tensor numbers; output: name of the first; weight: second input, if constant
    and float."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    output: str
    macs: int
    weight: Array | None

    @property
    def layer(self) -> str:
        """The module it came from, as _simplify wrote it: '_layers/3/p/mlp;2' -> 'layers.3.p.mlp'; '' for the model."""
        first = self.output.split(";")[0]
        return first[1:].replace("/", ".") if first.startswith("_") else ""


def _list_ops(data: bytes) -> list[Op]:
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(data))
    tensors, ops = model.subgraphs[0].tensors, []
    shapes = [() if t.shape is None else tuple(map(int, t.shape)) for t in tensors]
    for op in model.subgraphs[0].operators:
        name, output, weight = _name_op(model.operatorCodes[op.opcodeIndex]), op.outputs[0], None
        if len(op.inputs) > 1 and tensors[op.inputs[1]].type == schema.TensorType.FLOAT32:
            content = model.buffers[tensors[op.inputs[1]].buffer].data
            weight = None if content is None else np.frombuffer(content, np.float32).reshape(shapes[op.inputs[1]])
        macs = _count_macs(name, [shapes[number] for number in op.inputs], shapes[output])
        ops.append(Op(name, tuple(op.inputs), tuple(op.outputs), tensors[output].name.decode(), macs, weight))
    return ops


OP_NAMES: dict[int, str] = {
    code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")
}


def _name_op(code: Any) -> str:
    return OP_NAMES[int(flatbuffer_utils.get_builtin_code_from_operator_code(code))]


def _count_macs(name: str, inputs: list[tuple[int, ...]], output: tuple[int, ...]) -> int:
    """Multiply-accumulates of one op; weights are [O, I] in FULLY_CONNECTED and [O, h, w, I] in CONV_2D."""
    if name == "BATCH_MATMUL":
        return prod(inputs[0]) * output[-1]
    return prod(output) * prod(inputs[1][1:]) if name in ("FULLY_CONNECTED", "CONV_2D") else 0


def _find_leftovers(data: bytes) -> tuple[tuple[Leftover, ...], int]:
    """The ops that XNNPACK did not take, in order, and the number of pieces it took. The interpreter lists its nodes of
    before and after delegation together; what a DELEGATE node swallowed lies between its outputs and its inputs."""
    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    ops = _list_ops(data)
    maker = {tensor: number for number, op in enumerate(ops) for tensor in op.outputs}
    delegates = [node for node in interpreter._get_ops_details() if node["op_name"] == "DELEGATE"]
    taken: set[int] = set()
    for node in delegates:
        outside, wanted = set(node["inputs"]), list(node["outputs"])
        while wanted:
            number = maker.get(wanted.pop())
            if number is not None and number not in taken:
                taken.add(number)
                wanted += [tensor for tensor in ops[number].inputs if tensor not in outside]
    total = max(1, sum(op.macs for op in ops))
    left = (op for number, op in enumerate(ops) if number not in taken)
    return tuple(Leftover(op.name, op.layer, op.macs / total) for op in left), len(delegates)
