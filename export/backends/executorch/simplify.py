"""Rewrites for XNNPACK: what it refuses, in ops that it takes."""

from collections.abc import Container
from operator import getitem
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from bigvit_edge.export.backends.executorch.casts import CAST
from bigvit_edge.export.backends.executorch.decompositions import OTHERS
from bigvit_edge.export.backends.executorch.moves import (
    view,
    write_select_as_slice,
    write_splits_as_slices,
    write_views,
)
from bigvit_edge.export.equivalents import XNNPACK, write_equivalents
from bigvit_edge.export.graph import add_constant, copy_program, insert, redirect_uses, shape_of, weight_name
from bigvit_edge.export.inlay import PROGRAM
from bigvit_edge.export.rewrite import drop_copies, fold_constants
from bigvit_edge.models.dispatch import DISPATCH

aten = torch.ops.aten
MAX_POOLING: tuple[Any, ...] = ([], [0, 0], [1, 1], False)  # stride, padding, dilation, ceil if not given


def simplify(exported: ExportedProgram) -> ExportedProgram:
    """Copy the program, computing the same in ops that XNNPACK takes."""
    program = copy_program(exported)
    write_equivalents(program, XNNPACK)
    program = program.run_decompositions(OTHERS)
    for rewrite in (
        drop_copies,
        write_casts,
        dispatch_in_float,
        call_in_float,
        write_splits_as_slices,
        write_select_as_slice,
        flatten_topk,
        write_views,
        write_for_xnnpack,
        write_scalars,
        complete_pooling,
        keep_pooled_dims,
        fold_constants,
    ):
        rewrite(program)
        program.graph.eliminate_dead_code()
    program.graph_module.recompile()
    return program  # type: ignore[no-any-return]


# ---- the graph edited ------------------------------------------------------------------------------------------------


def write_casts(program: ExportedProgram) -> None:
    """Write copies that turn one float type into another as casts."""
    for copy in program.graph.find_nodes(op="call_function", target=aten._to_copy.default):
        (value,) = copy.all_input_nodes
        dtype = copy.meta["val"].dtype
        if {dtype, value.meta["val"].dtype} == {torch.float16, torch.float32}:
            redirect_uses(program, copy, insert(copy, CAST, value, dtype))


def dispatch_in_float(program: ExportedProgram) -> None:
    """Put bve::dispatch of float16 between casts.

    Its kernel is for float32.
    """
    for dispatch in program.graph.find_nodes(op="call_function", target=DISPATCH):
        if dispatch.meta["val"][0].dtype != torch.float16:
            continue
        inputs = [insert(dispatch, CAST, a, torch.float32) if isinstance(a, Node) else a for a in dispatch.args]
        results = insert(dispatch, DISPATCH, *inputs)
        for item in list(dispatch.users):
            result = insert(item, getitem, results, item.args[1])
            redirect_uses(program, item, insert(item, CAST, result, torch.float16))


def call_in_float(program: ExportedProgram) -> None:
    """Put bve::program of float16 between casts.

    The layers around it are of float16; our core takes and gives float32.
    """
    for call in program.graph.find_nodes(op="call_function", target=PROGRAM):
        if call.meta["val"].dtype != torch.float16:
            continue
        (image,), (user, *_) = call.all_input_nodes, call.users
        before = insert(call, CAST, image, torch.float32)
        after = insert(call, CAST, insert(call, PROGRAM, before, call.args[1]), torch.float16)
        for cast, neighbour in ((before, image), (after, user)):
            cast.meta["nn_module_stack"] = neighbour.meta.get("nn_module_stack", {})
        redirect_uses(program, call, after)


def flatten_topk(program: ExportedProgram) -> None:
    """Write topk of one row [1, N] as topk of [N].

    The selects of that row behind it go too, for they are not delegated.
    """
    for topk in program.graph.find_nodes(op="call_function", target=aten.topk.default):
        value, k, *rest = topk.args
        rows, *columns = shape_of(value)
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
    """Write whole scalars as floats: x * 2 as x * 2.0.

    In float16, any scalar as a constant: ExecuTorch would keep the 2 as an int64 tensor, or a float32 one, and convert
    it on every run.
    """
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


def complete_pooling(program: ExportedProgram) -> None:
    """Give max pooling each argument that XNNPACK's rule counts on.

    Where the rule refuses it all the same, it becomes the op that ExecuTorch has a kernel for.
    """
    for pool in list(program.graph.find_nodes(op="call_function", target=aten.max_pool2d.default)):
        given: tuple[Any, ...] = pool.args
        x, kernel, *rest = given
        stride, *others = [*rest, *MAX_POOLING[len(rest) :]]
        kernel, stride = (list(pair) * 2 if len(pair) == 1 else pair for pair in (kernel, stride or kernel))
        pool.args = (x, kernel, stride, *others)
        if len(shape_of(x)) != 4 or stride[0] > kernel[0] or stride[1] > kernel[1]:
            both = insert(pool, aten.max_pool2d_with_indices.default, *pool.args)
            redirect_uses(program, pool, insert(pool, getitem, both, 0))


def write_for_xnnpack(program: ExportedProgram) -> None:
    """Write ops as XNNPACK takes them, those that decompositions made among them."""
    write_equivalents(program, XNNPACK)


def keep_pooled_dims(program: ExportedProgram) -> None:
    """Keep the dimensions of a mean over all pixels.

    A mean that drops them is written as one that keeps them, and a view: XNNPACK keeps them.
    """
    for mean in program.graph.find_nodes(op="call_function", target=aten.mean.dim):
        x, dims, *keep = mean.args
        if len(shape_of(x)) == 4 and {dim % 4 for dim in dims} == {2, 3} and keep in ([], [False]):
            kept = insert(mean, aten.mean.dim, x, dims, True)
            redirect_uses(program, mean, view(mean, kept, shape_of(mean)))


def flatten_images(program: ExportedProgram, layers: Container[str]) -> None:
    """Write Linears of images as Linears of rows, those of these layers.

    The images are [B, h, w, C], the layers those that will be quantised: where such an image was turned, XNNPACK's
    exporter puts a copy in another layout behind the quantisation of the Linear's input, and then no longer finds that.
    """
    for linear in list(program.graph.find_nodes(op="call_function", target=aten.linear.default)):
        image, *weights = linear.args
        if len(shape_of(image)) == 4 and (weight_name(program, linear) or "").removesuffix(".weight") in layers:
            rows = view(linear, image, (-1, shape_of(image)[-1]))
            product = insert(linear, aten.linear.default, rows, *weights)
            redirect_uses(program, linear, view(linear, product, shape_of(linear)))
    program.graph.eliminate_dead_code()
