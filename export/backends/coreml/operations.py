"""A captured graph in the operations that coremltools converts: what it lacks is decomposed, or written otherwise here.

coremltools 9.0's converter of ATen graphs knows most ops as TorchScript wrote them, with every argument, and none of
many that TorchScript took apart.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._decomp import decomposition_table
from torch.export import ExportedProgram, default_decompositions
from torch.fx import Node

from bigvit_edge.console import silenced
from bigvit_edge.export.backends.coreml.ranks import lower_ranks
from bigvit_edge.export.equivalents import write_equivalents
from bigvit_edge.export.graph import add_constant, copy_program, insert, replace_node, shape_of
from bigvit_edge.export.lowering_errors import refuse_op
from bigvit_edge.export.resizing import make_resizing

with silenced():
    from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY
    from coremltools.converters.mil.frontend.torch.utils import sanitize_op_kind

aten = torch.ops.aten
ROUNDS = 8  # decompositions end in ops that are decomposed again

RESIZES = {  # which coremltools converts in some forms alone, or, bicubic, in none
    aten.upsample_bicubic2d.vec,
    aten.upsample_bilinear2d.vec,
    aten.upsample_nearest2d.vec,
    aten._upsample_nearest_exact2d.vec,
    aten._upsample_bicubic2d_aa.vec,
    aten._upsample_bilinear2d_aa.vec,
}


def write_operations(exported: ExportedProgram) -> ExportedProgram:
    """Copy a program in ops that coremltools converts.

    It computes the same. UserError on an op for which there is no way.
    """
    program = _decompose(copy_program(exported), WRITTEN)
    for _ in range(ROUNDS):
        write_equivalents(program)  # of what was taken apart
        program.graph.eliminate_dead_code()
        write_resizes_as_products(program)
        if not (table := _list_decompositions(program)):
            break
        program = _decompose(program, table)
    for node in program.graph.nodes:
        if node.op == "call_function" and not _is_known(node):
            raise refuse_op("coreml", node, "coremltools converts no such op")
    lower_ranks(program)
    give_every_argument(program)
    return program


def _decompose(program: ExportedProgram, table: dict[Any, Callable[..., Any]]) -> ExportedProgram:
    for node in program.graph.find_nodes(op="call_function", target=aten.view.default):
        node.target = aten.reshape.default  # what is decomposed lays its values out otherwise, and a view may not fit
    decomposed: ExportedProgram = program.run_decompositions(dict(table))
    return decomposed


def _list_decompositions(program: ExportedProgram) -> dict[Any, Callable[..., Any]]:
    """How to take apart each op that coremltools does not convert; if there is a way."""
    default: Any = default_decompositions()
    known = {**decomposition_table, **dict(default.items()), **WRITTEN}
    return {
        node.target: known[node.target]
        for node in program.graph.nodes
        if node.op == "call_function" and node.target in known and not _is_converted(node)
    }


def _is_converted(node: Node) -> bool:
    options = [str(a) for a in node.args]
    if node.target is aten.pad.default and "circular" in options:
        return False
    if node.target is aten.grid_sampler.default and node.args[2] not in (0, 1):
        return False
    return _is_known(node)


def _is_known(node: Node) -> bool:
    target: Any = node.target
    name = target.name() if hasattr(target, "name") else target.__name__
    return sanitize_op_kind(name) in _TORCH_OPS_REGISTRY.name_to_func_mapping


def give_every_argument(program: ExportedProgram) -> None:
    """Write out positional arguments that stand at their defaults.

    TorchScript writes them out and ATen graphs leave them out.
    """
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if node.op == "call_function" and schema is not None:
            rest = [a for a in schema.arguments[len(node.args) :] if not a.kwarg_only]
            if all(a.has_default_value() and a.name not in node.kwargs for a in rest):
                node.args = (*node.args, *(a.default_value for a in rest))


# ---- ops written otherwise -------------------------------------------------------------------------------------------


def _write_gelu(x: Tensor, approximate: str = "none") -> Any:
    """The tanh form in ops that coremltools knows again and fuses: its converter does not look at the keyword and would
    write the exact form (coremltools 9.0)."""
    if approximate == "none":
        return NotImplemented
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3))))


def _write_cdist(x: Tensor, y: Tensor, p: float = 2.0, compute_mode: int | None = None) -> Any:
    if p not in (1.0, 2.0):
        return NotImplemented
    apart = x.unsqueeze(-2) - y.unsqueeze(-3)
    return apart.abs().sum(-1) if p == 1.0 else apart.square().sum(-1).sqrt()


def _write_scatter_reduce(
    x: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
) -> Any:
    """Sums and means of what falls on a place, with what was there; of integers, the others being written for all."""
    if reduce not in ("sum", "mean") or not include_self:
        return NotImplemented
    total = x.scatter_add(dim, index, src)
    if reduce == "sum":
        return total
    return total / torch.ones_like(x).scatter_add(dim, index, torch.ones_like(src))


def _write_index_put(
    x: Tensor, indices: list[Tensor | None], values: Tensor, accumulate: bool = False, unsafe: bool = False
) -> Any:
    """A scatter of rows, the indexed dimensions being made one and brought to the front."""
    dims = [d for d, index in enumerate(indices) if index is not None]
    given = [index for index in indices if index is not None]
    apart = dims != list(range(dims[0], dims[-1] + 1))
    if apart or any(index.dtype == torch.bool for index in given):
        return NotImplemented
    first, last = dims[0], dims[-1] + 1
    places = sum(
        i % n * math.prod(x.shape[d + 1 : last]) for d, i, n in zip(dims, given, x.shape[first:], strict=False)
    )
    assert isinstance(places, Tensor)
    written = [*x.shape[:first], *places.shape, *x.shape[last:]]
    spread = values.expand(written).movedim(list(range(first, first + places.dim())), list(range(places.dim())))
    others = [*x.shape[:first], *x.shape[last:]]
    table = x.flatten(first, last - 1).movedim(first, 0).reshape(-1, math.prod(others))
    rows = places.reshape(-1, 1).expand(-1, math.prod(others))
    changes = spread.reshape(rows.shape)
    table = table.scatter_add(0, rows, changes) if accumulate else table.scatter(0, rows, changes)
    moved = table.reshape(math.prod(x.shape[first:last]), *others).movedim(0, first)
    return moved.reshape(x.shape)


def _write_fmod(x: Tensor, y: Any) -> Tensor:
    times = x / y
    rest: Tensor = x - y * times.sign() * times.abs().floor()
    return rest


WRITTEN: dict[Any, Callable[..., Any]] = {
    aten.affine_grid_generator.default: decomposition_table[aten.affine_grid_generator.default],
    aten.cdist.default: _write_cdist,
    aten.fmod.Scalar: _write_fmod,
    aten.fmod.Tensor: _write_fmod,
    aten.gelu.default: _write_gelu,
    aten.index_put.default: _write_index_put,
    aten.scatter_reduce.two: _write_scatter_reduce,
    torch.ops.prims.fmod.default: _write_fmod,
}


# ---- resizing --------------------------------------------------------------------------------------------------------


def write_resizes_as_products(program: ExportedProgram) -> None:
    """Write resizing that coremltools refuses as two matrix products.

    It refuses some kinds and scales. The products go over the rows and then the columns.
    """
    for node in list(program.graph.nodes):
        if node.target in RESIZES and not _converts_resize(node):
            rows, columns = (make_resizing(node, dim) for dim in (2, 3))
            left = add_constant(program, f"resize.{node.name}.rows", rows.mT.contiguous())
            right = add_constant(program, f"resize.{node.name}.columns", columns)
            wide = insert(node, aten.matmul.default, node.args[0], right)
            replace_node(program, node, insert(node, aten.matmul.default, left, wide))


def _converts_resize(node: Node) -> bool:
    """Whether coremltools converts a resizing: of two kinds, those at scales that give whole sizes."""
    if node.target not in (aten.upsample_bilinear2d.vec, aten.upsample_nearest2d.vec):
        return False
    x, _, *options = node.args
    scales: Any = options[-1] if options else None
    sizes = shape_of(x)[-2:]
    return scales is None or all(float(s) * n == int(float(s) * n) for s, n in zip(scales, sizes, strict=True))
