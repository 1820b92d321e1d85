"""The graph in ops that LiteRT has: tfl.gather, tfl.gelu, a batch_matmul of four dimensions.

The converter passes them through; of the PyTorch ops it would make towers: an index_select becomes ten ops.
"""

from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Graph as FxGraph
from torch.fx import Node

from bigvit_edge.console import silenced
from bigvit_edge.export.backends.litert.names import has_convolutions, tag_nodes
from bigvit_edge.export.equivalents import LITERT, write_equivalents
from bigvit_edge.export.graph import copy_program, layer_of, shape_of
from bigvit_edge.export.rewrite import fold_constants

with silenced():
    from litert_torch import fx_infra
    from litert_torch._convert.fx_passes.optimize_layout_transposes_pass import layout_rewrite
    from litert_torch.backend.experimental import torch_tfl  # noqa: F401  registers torch.ops.tfl

aten, tfl = torch.ops.aten, torch.ops.tfl
# the converter's pass that makes convolutions channels-last need not turn its values back for an element-wise op
layout_rewrite.rewriters.register(tfl.gelu.default)(layout_rewrite.noop)


def simplify(exported: ExportedProgram, tagged: bool = False) -> ExportedProgram:
    """Copy the graph in core ATen and tfl ops.

    Tensors of a file made of it say which node they come from, where it has convolutions or tagged is set
    (names.py).
    """
    exported = copy_program(exported)
    if tagged or has_convolutions(exported):
        tag_nodes(exported)
    write_equivalents(exported, LITERT)
    fold_constants(exported)
    exported.graph.eliminate_dead_code()
    program: ExportedProgram = exported.run_decompositions(fx_infra.decomp.pre_convert_decomp() | DECOMPOSITIONS)
    _widen_operands(program.graph)
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


def _widen_operands(graph: FxGraph) -> None:
    """[1, C, 1, 1] for a constant [C, 1, 1] beside an image [1, C, h, w]: the layout pass takes four dimensions."""
    for node in list(graph.nodes):
        if node.target not in ELEMENTWISE or len(shape_of(node)) != 4:
            continue
        for operand in node.all_input_nodes:
            shape = shape_of(operand)
            if operand.op == "placeholder" and 1 < len(shape) < 4:
                wide = _insert(graph, operand, aten.view.default, (operand, [1] * (4 - len(shape)) + list(shape)))
                node.replace_input_with(operand, wide)


MOVES = {aten.transpose.int, aten.softmax.int}
ELEMENTWISE = {aten.clone.default, aten.mul.Tensor, aten.div.Tensor, aten.add.Tensor}


def _keep_batch(graph: FxGraph) -> None:
    """Attention in four dimensions: [1, H, N, d] stays so through bmm and softmax, without reshapes around each bmm."""
    whole: dict[Node, Node] = {}  # a value [A, B, C] -> the same as [1, A, B, C]
    for node in list(graph.nodes):
        source = node.args[0] if node.op == "call_function" and node.args else None
        if not isinstance(source, Node) or not isinstance(node.meta.get("val"), Tensor):
            continue
        shape = shape_of(node)
        if node.target is aten.view.default and len(shape) == 3 and shape_of(source) == (1, *shape):
            whole[node] = source
        elif node.target is aten.view.default and source in whole and shape == (1, *shape_of(source)):
            node.replace_all_uses_with(whole[source])
        elif four := _in_four(graph, node, whole):
            whole[node] = four
    for three, four in whole.items():  # for users that still want three dimensions; nobody else uses those nodes now
        if three.target is not aten.view.default and any(user not in whole for user in three.users):
            three.replace_all_uses_with(_insert(graph, four, aten.view.default, (four, list(shape_of(three)))))


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
