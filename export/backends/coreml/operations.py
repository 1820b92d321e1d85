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

from bigvit_edge.export.backends.coreml.ranks import lower_ranks
from bigvit_edge.export.console import silenced
from bigvit_edge.export.graph import add_constant, copy_program, insert
from bigvit_edge.export.lowering_errors import refuse_op

with silenced():
    from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY
    from coremltools.converters.mil.frontend.torch.utils import sanitize_op_kind

aten = torch.ops.aten
ROUNDS = 8  # decompositions end in ops that are decomposed again

# Resizing that coremltools converts in some forms alone (or, bicubic, in none): the op that takes sizes, and how many
# of its arguments stand before the scales
RESIZES = {
    aten.upsample_bicubic2d.vec: aten.upsample_bicubic2d.default,
    aten.upsample_bilinear2d.vec: aten.upsample_bilinear2d.default,
    aten.upsample_nearest2d.vec: aten.upsample_nearest2d.default,
    aten._upsample_nearest_exact2d.vec: aten._upsample_nearest_exact2d.default,
    aten._upsample_bicubic2d_aa.vec: aten._upsample_bicubic2d_aa.default,
    aten._upsample_bilinear2d_aa.vec: aten._upsample_bilinear2d_aa.default,
}
INTERPOLATES = {op for op in RESIZES if "nearest" not in str(op)}  # these have align_corners


def write_operations(exported: ExportedProgram) -> ExportedProgram:
    """The same function in ops that coremltools converts; on a copy. UserError on one for which there is no way."""
    program = _decompose(copy_program(exported), WRITTEN)
    for _ in range(ROUNDS):
        write_resizes_as_products(program)
        write_folds_as_convolutions(program)
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
    """Positional arguments that stand at their defaults, which TorchScript writes out and ATen graphs leave out."""
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


def _write_diagonal(x: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """Every (columns + 1)th value of the flattened matrix."""
    x = x.movedim((dim1, dim2), (-2, -1))
    rows, columns = x.shape[-2:]
    count = min(rows, columns - offset) if offset >= 0 else min(rows + offset, columns)
    first = offset if offset >= 0 else -offset * columns
    flat = x.reshape(*x.shape[:-2], rows * columns)
    return flat[..., first : first + (count - 1) * (columns + 1) + 1 : columns + 1]


def _write_argsort(x: Tensor, *, stable: bool, dim: int = -1, descending: bool = False) -> Tensor:
    return x.sort(dim, descending)[1]


def _write_median(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    values, places = x.sort(dim)
    middle = (x.shape[dim] - 1) // 2
    pair = values.narrow(dim, middle, 1), places.narrow(dim, middle, 1)
    return pair if keepdim else (pair[0].squeeze(dim), pair[1].squeeze(dim))


def _write_cdist(x: Tensor, y: Tensor, p: float = 2.0, compute_mode: int | None = None) -> Any:
    if p not in (1.0, 2.0):
        return NotImplemented
    apart = x.unsqueeze(-2) - y.unsqueeze(-3)
    return apart.abs().sum(-1) if p == 1.0 else apart.square().sum(-1).sqrt()


def _write_scatter_reduce(
    x: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
) -> Any:
    """Sums and means of what falls on a place, with what was there."""
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
    aten.argsort.stable: _write_argsort,
    aten.cdist.default: _write_cdist,
    aten.diagonal.default: _write_diagonal,
    aten.fmod.Scalar: _write_fmod,
    aten.fmod.Tensor: _write_fmod,
    aten.gelu.default: _write_gelu,
    aten.index_put.default: _write_index_put,
    aten.median.dim: _write_median,
    aten.scatter_reduce.two: _write_scatter_reduce,
    torch.ops.prims.fmod.default: _write_fmod,
}


# ---- resizing --------------------------------------------------------------------------------------------------------


def write_resizes_as_products(program: ExportedProgram) -> None:
    """Resizing of a kind or at scales that coremltools refuses: two matrix products, rows and then columns, since every
    kind is linear and works on each dimension by itself."""
    for node in list(program.graph.nodes):
        if node.target not in RESIZES or _converts_resize(node):
            continue
        x, _, *options = node.args
        aligned = options[:1] if node.target in INTERPOLATES else []
        scales = (options[1:] if node.target in INTERPOLATES else options)[:1]
        high, wide = scales[0] if scales and scales[0] is not None else (None, None)
        have, want = x.meta["val"].shape[-2:], node.meta["val"].shape[-2:]
        rows, columns = (
            _make_matrix(RESIZES[node.target], *sizes, aligned, scale)
            for sizes, scale in zip(zip(have, want, strict=True), (high, wide), strict=True)
        )
        left = add_constant(program, f"resize.{node.name}.rows", rows)
        right = add_constant(program, f"resize.{node.name}.columns", columns.mT.contiguous())
        _replace(program, node, insert(node, aten.matmul.default, left, insert(node, aten.matmul.default, x, right)))


def _converts_resize(node: Node) -> bool:
    """Whether coremltools converts a resizing: of two kinds, those at scales that give whole sizes."""
    if node.target not in (aten.upsample_bilinear2d.vec, aten.upsample_nearest2d.vec):
        return False
    x, _, *options = node.args
    scales: Any = options[-1] if options else None
    sizes = x.meta["val"].shape[-2:]  # type: ignore[union-attr]
    return scales is None or all(float(s) * n == int(float(s) * n) for s, n in zip(scales, sizes, strict=True))


def _make_matrix(op: Any, have: int, want: int, aligned: list[bool], scale: float | None) -> Tensor:
    """[want, have]: what the op makes of each place along one dimension."""
    units = torch.eye(have)[:, None, :, None].repeat(1, 1, 1, 2)  # two columns: torch 2.13 miscounts antialiasing one
    made: Tensor = op(units, [want, 2], *aligned, scale, None)
    return made[:, 0, :, 0].mT.contiguous()


# ---- folding ---------------------------------------------------------------------------------------------------------


def write_folds_as_convolutions(program: ExportedProgram) -> None:
    """Windows added up where they lie, which coremltools refuses if they overlap: a transposed convolution whose
    weights put each value of a window in its place."""
    for node in program.graph.find_nodes(op="call_function", target=aten.col2im.default):
        arguments: tuple[Any, ...] = node.args
        x, size, kernel, dilation, padding, stride = arguments
        reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
        counts = [(n + 2 * p - r) // s + 1 for n, p, r, s in zip(size, padding, reach, stride, strict=True)]
        rest = [
            n - ((c - 1) * s - 2 * p + r) for n, c, s, p, r in zip(size, counts, stride, padding, reach, strict=True)
        ]
        *batch, places, _ = x.meta["val"].shape
        channels = places // math.prod(kernel)
        ones = torch.eye(math.prod(kernel)).reshape(-1, 1, *kernel).repeat(channels, 1, 1, 1)  # [c * k * l, 1, k, l]
        weight = add_constant(program, f"fold.{node.name}", ones)
        windows = insert(node, aten.reshape.default, x, [*batch, places, *counts])
        options = (None, list(stride), list(padding), rest, channels, list(dilation))
        _replace(program, node, insert(node, aten.conv_transpose2d.input, windows, weight, *options))


def _replace(program: ExportedProgram, node: Node, by: Node) -> None:
    node.replace_all_uses_with(by)
    program.graph_signature.replace_all_uses(node.name, by.name)
    program.graph.erase_node(node)
