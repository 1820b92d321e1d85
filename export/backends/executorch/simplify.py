"""Rewrites for XNNPACK: what it refuses, in ops that it takes."""

from itertools import accumulate
from operator import getitem
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node
from torch.nn.functional import gelu, linear

from bigvit_edge.export.backends.executorch.casts import CAST
from bigvit_edge.export.graph import add_constant, insert
from bigvit_edge.export.inlay import PROGRAM
from bigvit_edge.export.rewrite import fold_constants
from bigvit_edge.models.dispatch import DISPATCH

aten = torch.ops.aten
SPLITS = (aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default)  # arguments: value, how, dimension
POOLING: tuple[Any, ...] = (
    [],
    [0, 0],
    False,
    True,
    None,
)  # stride, padding, ceil, include padding, divisor if not given


def simplify(exported: ExportedProgram) -> ExportedProgram:
    """A copy of the program that computes the same in ops that XNNPACK takes."""
    program = exported.run_decompositions(
        {
            aten.layer_norm.default: normalize,
            aten.gelu.default: bend,
            aten.silu.default: swish,
            aten.scaled_dot_product_attention.default: attend,
        }
    )
    for rewrite in (
        write_casts,
        dispatch_in_float,
        call_in_float,
        write_select_as_slice,
        write_splits_as_slices,
        flatten_topk,
        write_scalars,
        pad_before_pooling,
        keep_pooled_dims,
        fold_constants,
    ):
        rewrite(program)
        program.graph.eliminate_dead_code()
    program.graph_module.recompile()
    return program  # type: ignore[no-any-return]


# ---- ops written in others; NotImplemented is PyTorch's word for: leave the op as it is ------------------------------


def normalize(
    x: Tensor,
    shape: list[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn: bool = True,
) -> Tensor:
    """Layer norm over the last dimension. XNNPACK has no such op, and takes a mean only over pixels; but a mean is a
    Linear with one output. In float32 whatever the type: a square passes float16's 65504 from 256 on."""
    if len(shape) != 1:
        return NotImplemented  # type: ignore[no-any-return]
    dtype, x = x.dtype, x.float()
    average = torch.full((1, shape[0]), 1 / shape[0])  # [1, C]
    x = x - linear(x, average)  # [..., C] - [..., 1]
    x = x * torch.rsqrt(linear(x * x, average, torch.full((1,), eps)))  # [..., C]
    x = x if weight is None else x * weight.float()
    return (x if bias is None else x + bias.float()).to(dtype)


def bend(x: Tensor, approximate: str = "none") -> Tensor:
    """GELU in float16, which XNNPACK has in float32 alone."""
    if x.dtype != torch.float16:
        return NotImplemented  # type: ignore[no-any-return]
    return gelu(x.float(), approximate=approximate).half()


def swish(x: Tensor) -> Tensor:
    """SiLU in its own type, where PyTorch's way casts float16 to float32 and back."""
    return x * torch.sigmoid(x)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attention without a care for rows that are masked out altogether, which a picture has not: PyTorch's own way
    spends ten ops on those, and expands on the batch."""
    if (
        dropout
        or causal
        or enable_gqa
        or q.shape[:-2] != k.shape[:-2]
        or (mask is not None and not mask.is_floating_point())
    ):
        return NotImplemented  # type: ignore[no-any-return]
    q = q * (q.shape[-1] ** -0.5 if scale is None else scale)
    score = torch.bmm(q.flatten(0, -3), k.flatten(0, -3).transpose(1, 2))  # [B * H, N, M]
    if mask is not None:
        score = (score.view(*q.shape[:-1], k.shape[-2]) + mask).flatten(0, -3)  # [B, H, N, M] between
    return torch.bmm(score.softmax(-1), v.flatten(0, -3)).view(*q.shape[:-1], v.shape[-1])


# ---- the graph edited ------------------------------------------------------------------------------------------------


def replace(program: ExportedProgram, node: Node, by: Node) -> None:
    """`by` wherever `node` was used, the program's outputs included."""
    node.replace_all_uses_with(by)
    program.graph_signature.replace_all_uses(node.name, by.name)


def write_casts(program: ExportedProgram) -> None:
    """Copies that turn one float type into the other, as casts."""
    for copy in program.graph.find_nodes(op="call_function", target=aten._to_copy.default):
        (value,) = copy.all_input_nodes
        dtype = copy.meta["val"].dtype
        if {dtype, value.meta["val"].dtype} == {torch.float16, torch.float32}:
            replace(program, copy, insert(copy, CAST, value, dtype))


def dispatch_in_float(program: ExportedProgram) -> None:
    """bve::dispatch of float16 between casts: its kernel is for float32."""
    for dispatch in program.graph.find_nodes(op="call_function", target=DISPATCH):
        if dispatch.meta["val"][0].dtype != torch.float16:
            continue
        inputs = [insert(dispatch, CAST, a, torch.float32) if isinstance(a, Node) else a for a in dispatch.args]
        results = insert(dispatch, DISPATCH, *inputs)
        for item in list(dispatch.users):
            result = insert(item, getitem, results, item.args[1])
            replace(program, item, insert(item, CAST, result, torch.float16))


def call_in_float(program: ExportedProgram) -> None:
    """bve::program of float16 between casts, which are of the layers around it: our core takes and gives float32."""
    for call in program.graph.find_nodes(op="call_function", target=PROGRAM):
        if call.meta["val"].dtype != torch.float16:
            continue
        (image,), (user, *_) = call.all_input_nodes, call.users
        before = insert(call, CAST, image, torch.float32)
        after = insert(call, CAST, insert(call, PROGRAM, before, call.args[1]), torch.float16)
        for cast, neighbour in ((before, image), (after, user)):
            cast.meta["nn_module_stack"] = neighbour.meta.get("nn_module_stack", {})
        replace(program, call, after)


def write_select_as_slice(program: ExportedProgram) -> None:
    """x[:, 0] as x[:, 0:1] without that dimension: XNNPACK slices, but does not select."""
    for select in program.graph.find_nodes(op="call_function", target=aten.select.int):
        value, dim, index = select.args
        if select.meta["val"].is_floating_point() and index >= 0:
            part = insert(select, aten.slice.Tensor, value, dim, index, index + 1)
            replace(program, select, insert(select, aten.view.default, part, list(select.meta["val"].shape)))


def write_splits_as_slices(program: ExportedProgram) -> None:
    """Each part of a split as a slice of its own."""
    for split in program.graph.nodes:
        if split.target not in SPLITS:
            continue
        value, _, *given = split.args
        dim = given[0] if given else 0
        ends = list(accumulate(part.shape[dim] for part in split.meta["val"]))
        for item in list(split.users):
            place = item.args[1]
            start = ends[place] - split.meta["val"][place].shape[dim]
            replace(program, item, insert(split, aten.slice.Tensor, value, dim, start, ends[place]))


def flatten_topk(program: ExportedProgram) -> None:
    """topk of one row [1, N] and the selects of that row behind it, as topk of [N]: the selects are not delegated."""
    for topk in program.graph.find_nodes(op="call_function", target=aten.topk.default):
        value, k, *rest = topk.args
        rows, *columns = value.meta["val"].shape
        selects = [select for item in topk.users for select in item.users]
        of_row = all(select.target is aten.select.int and select.args[1:] == (0, 0) for select in selects)
        if not (rows == 1 and len(columns) == 1 and rest in ([], [1], [-1]) and of_row):
            continue
        flat = insert(topk, aten.topk.default, insert(topk, aten.view.default, value, columns), k, 0)
        for item in topk.users:
            part = insert(topk, getitem, flat, item.args[1])
            for select in list(item.users):
                select.replace_all_uses_with(part)


def write_scalars(program: ExportedProgram) -> None:
    """x * 2 as x * 2.0, and in float16 as a product with a constant: ExecuTorch would keep the 2 as an int64 tensor, or
    a float32 one, and convert it on every run."""
    for target in (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor):
        for node in program.graph.find_nodes(op="call_function", target=target):
            dtype = node.meta["val"].dtype
            if dtype == torch.float16:
                for i, scalar in enumerate(node.args):
                    if isinstance(scalar, int | float):
                        constant = torch.tensor(scalar, dtype=dtype)
                        node.update_arg(i, add_constant(program, f"scalar.{node.name}.{i}", constant))
            elif dtype.is_floating_point:
                node.args = tuple(float(a) if type(a) is int else a for a in node.args)


def pad_before_pooling(program: ExportedProgram) -> None:
    """An average over zeros at the edges as an average of a padded image: XNNPACK's leaves such zeros out, and even
    without padding wants to be told so."""
    for pool in program.graph.find_nodes(op="call_function", target=aten.avg_pool2d.default):
        given: tuple[Any, ...] = pool.args
        x, kernel, *rest = given
        stride, padding, ceil, *include_and_divisor = [*rest, *POOLING[len(rest) :]]
        if ceil or include_and_divisor != [True, None] or len(x.meta["val"].shape) != 4:
            continue
        rows, columns = padding * 2 if len(padding) == 1 else padding
        if rows or columns:
            x = insert(pool, aten.constant_pad_nd.default, x, [columns, columns, rows, rows])
        pool.args = (x, kernel, stride or kernel, [0, 0], False, False)


def keep_pooled_dims(program: ExportedProgram) -> None:
    """A mean over all pixels that drops their dimensions as one that keeps them, and a view: XNNPACK keeps them."""
    for mean in program.graph.find_nodes(op="call_function", target=aten.mean.dim):
        x, dims, *keep = mean.args
        if len(x.meta["val"].shape) == 4 and {dim % 4 for dim in dims} == {2, 3} and keep in ([], [False]):
            kept = insert(mean, aten.mean.dim, x, dims, True)
            replace(program, mean, insert(mean, aten.view.default, kept, list(mean.meta["val"].shape)))
