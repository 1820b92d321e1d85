"""Integers from the image to the logits: every op of a graph in int8, as NPUs without float units want it.

What is one op in float and many in integers (attention, layer norm) is written as those, so that each has a range of
its own. All values are held in int8 then; what bounds them is the op itself, as a softmax, or what was seen in
calibration.
"""

from collections.abc import Iterator
from math import inf

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node

from bigvit_edge.console import silenced
from bigvit_edge.export.graph import Graph, layer_of, read_constants
from bigvit_edge.export.placement import FIXED, write_for_integers
from bigvit_edge.export.quantization import BYTE, choose_scale
from bigvit_edge.export.rewrite import fold_constants
from bigvit_edge.measures import Span

aten = torch.ops.aten
LEAVE: Tensor = NotImplemented  # PyTorch's word for: as it is
MOST_RANK = 5  # of Core ML's values
CALIBRATED, CONSTANT = "calibration", "constant"  # what bounds a value that no op does


def write_whole(program: ExportedProgram) -> ExportedProgram:
    """Copy the program in ops that each have a range."""
    written = write_for_integers(program)
    table = {
        aten.scaled_dot_product_attention.default: _attend,
        aten.layer_norm.default: _normalize,
    }
    with silenced():
        whole = written.run_decompositions(table)
    fold_constants(whole)
    whole.graph.eliminate_dead_code()
    whole.graph_module.recompile()
    return whole  # type: ignore[no-any-return]


def _attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, dropout: float = 0.0, causal: bool = False, *,
    scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    if dropout or causal or enable_gqa or (mask is not None and not mask.is_floating_point()):
        return LEAVE
    score = (q * (q.shape[-1] ** -0.5 if scale is None else scale)) @ k.transpose(-2, -1)
    return (score if mask is None else score + mask).softmax(-1) @ v


def _normalize(
    x: Tensor, shape: list[int], weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5,
    cudnn: bool = True,
) -> Tensor:  # fmt: skip
    if len(shape) != 1:
        return LEAVE
    x = x - x.mean(-1, True)
    x = x * torch.rsqrt((x * x).mean(-1, True) + eps)
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def list_whole(program: ExportedProgram, runtime: str = "") -> list[Node]:
    """List every op that computes float32 from the image.

    For Core ML without those that move numbers in more dimensions than it has.
    """
    most = MOST_RANK if runtime == "coreml" else inf
    constants, reached, found = read_constants(program), set[Node](), []
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if node in constants or not (node.op == "placeholder" or any(x in reached for x in node.all_input_nodes)):
            continue
        reached.add(node)
        made = node.op == "call_function" and isinstance(value, Tensor) and value.dtype == torch.float32
        inputs = [x.meta["val"] for x in node.all_input_nodes if isinstance(x.meta.get("val"), Tensor)]
        if made and inputs and max(x.dim() for x in (value, *inputs)) <= most:
            found.append(node)
    return found


def describe_spans(graph: Graph) -> Iterator[Span]:
    """Describe the range of each value held in int8.

    It is what int8 stands for, zero always in it; and what bounds it.
    """
    nodes, constants = {node.name: node for node in graph.exported.graph.nodes}, read_constants(graph.exported)
    for name, span in graph.integers.spans.items():
        node, (scale, zero) = nodes[name], choose_scale(span)
        low, high = ((end - zero) * scale for end in BYTE[:2])
        bound = CONSTANT if node in constants else _name_bound(node)
        yield Span(getattr(node.target, "_opname", str(node.target)), layer_of(node), low, high, bound)


def _name_bound(node: Node) -> str:
    """The op, where it bounds its values on both sides whatever it reads."""
    bounded = node.target in FIXED or node.target in (aten.relu6.default, aten.hardtanh.default)
    return str(getattr(node.target, "_opname", node.target)) if bounded else CALIBRATED
