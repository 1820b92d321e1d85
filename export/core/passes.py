"""What turns the ops of a graph into those that bve has a kernel for, one pass after the other.

FUSIONS, then LAYOUTS. The first are the same whatever precision each Linear has, and so are done once for all of them.
A pass fuses where there is a kernel for what comes of it, and leaves all else as it is: what no pass has made an op
with a kernel by the end is a leftover.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor

from bigvit_edge.export.core.constants import fill_constants, stack_constants, stack_rows
from bigvit_edge.export.core.image_order import keep_image_order
from bigvit_edge.export.core.ir import (
    Add,
    Attention,
    Body,
    Gate,
    Gelu,
    Linear,
    List,
    Mix,
    Mlp,
    Norm,
    Op,
    RowSet,
    Scale,
    Scores,
    Softmax,
    Value,
    View,
    Views,
    cut_rows,
    edit,
    list_reads,
    view_of,
)
from bigvit_edge.export.core.layout import lay_out_attention, merge_linears, name_parent
from bigvit_edge.export.core.liveness import drop_unread_rows
from bigvit_edge.export.core.ports import change_nothing, copy_inputs, copy_outputs
from bigvit_edge.export.program import BufferType

Pass = Callable[[Body], None]


def fuse_attention(body: Body) -> None:
    """Write products, softmax and products as one attention.

    A number on the scores is its scale.
    """
    for mix in list_ops(body, Mix):
        softmax = body.find_producer(mix.reads["src"])
        scores = softmax and body.find_producer(softmax.reads["src"])
        scale = 1.0
        if scores and isinstance(scores.kind, Scale) and (factor := scores.kind.factor).eq(factor[0]).all():
            scale, scaling = float(factor[0]), scores
            scores = body.find_producer(scores.reads["src"])
            body.redirect(scaling.view.value, scaling.reads["src"])
            body.erase(scaling)
        fits = softmax and isinstance(softmax.kind, Softmax) and scores and isinstance(scores.kind, Scores)
        if fits and softmax and scores:
            kind = Attention(mix.kind.heads, scale)  # type: ignore[union-attr]
            reads = {"src": scores.reads["src"], "key": scores.reads["other"], "value": mix.reads["other"]}
            body.replace(mix, edit(mix, kind, **reads))
            body.erase(softmax)
            body.erase(scores)


def spread_factors(body: Body) -> None:
    """Write a scaled sum as a sum of what is scaled.

    So each factor is next to a product.
    """
    for scale in reversed(list_ops(body, Scale)):
        add = body.find_producer(scale.reads["src"])
        if add is None or not isinstance(add.kind, Add):
            continue
        scaled = {name: Value(scale.view.value.rows, scale.view.columns) for name in add.reads}
        parts = [
            Op(scale.kind, {"src": add.reads[name]}, {"out": view_of(value)}, scale.node, scale.layer)
            for name, value in scaled.items()
        ]
        reads = {name: (view_of(value),) for name, value in scaled.items()}
        body.erase(add)
        body.replace(scale, *parts, edit(scale, add.kind, **reads))


def fold_factors(body: Body) -> None:
    """Fold factors of columns into the Linear that makes them.

    They are LayerScale's, and the scale of attention.
    """
    for op in list_ops(body, Scale, Attention):
        src, kind = op.reads["src"], op.kind
        makers = [maker for view in src for maker in body.producers_of(view)]
        others = [read for other in body.ops if other is not op for read in list_reads(other)]
        is_read = any(view.overlaps(other) for view in src for other in (*others, *chain(*body.outputs)))
        if not makers or is_read or not all(isinstance(maker.kind, Linear) for maker in makers):
            continue
        if isinstance(kind, Scale) and src == (view_of(src[0].value),):
            scale_outputs(makers[0], src[0], kind.factor)
            body.redirect(op.view.value, src)
            body.erase(op)
        elif isinstance(kind, Attention) and kind.scale != 1:
            for view, maker in zip(src, makers, strict=True):
                scale_outputs(maker, view, torch.full((view.columns,), kind.scale))
            op.kind = replace(kind, scale=1.0)


def scale_outputs(op: Op, view: View, factor: Tensor) -> None:
    """Multiply a Linear's outputs in a view by their factors."""
    assert isinstance(op.kind, Linear)
    (weights,) = op.kind.weights
    whole = torch.ones(op.kind.columns) if weights.factor is None else weights.factor.clone()
    first = view.first_column - op.view.first_column
    whole[first : first + view.columns] *= factor.float()
    op.kind = replace(op.kind, weights=(replace(weights, factor=whole),))


def fuse_norm(body: Body) -> None:
    """Compute norms on the way into the Linears behind them."""
    for norm in list_ops(body, Norm):
        fuse_before(body, norm)


def fuse_activation(body: Body) -> None:
    """Compute gelus on the way into the Linears behind them."""
    for gelu in list_ops(body, Gelu):
        fuse_before(body, gelu)


def fuse_before(body: Body, op: Op) -> None:
    """Fuse a norm or gelu into the Linears that read it.

    For others it is a Linear that changes nothing else.
    """
    value = op.view.value
    assert isinstance(op.kind, Norm | Gelu)
    for user in body.users_of(value):
        src = user.reads["src"]
        is_alone = len(src) == 1 and src[0].columns == value.columns
        if is_alone and isinstance(user.kind, Linear) and user.kind.before is None:
            user.reads["src"] = cut_rows(op.reads["src"], src[0].rows.first, src[0].rows.count)
            user.kind = replace(user.kind, before=op.kind)
    if body.users_of(value) or body.gives(value):
        body.replace(op, edit(op, replace(change_nothing(op.layer, value.columns), before=op.kind), **op.reads))
    else:
        body.erase(op)


def fuse_mlp(body: Body) -> None:
    """Write x + gate * fc2(gelu(fc1(norm(x)))) as one op."""
    for add in list_ops(body, Add):
        for name, other in (("src", "other"), ("other", "src")):
            src, gates = add.reads[name], {}
            last = body.find_producer(add.reads[other])
            if last and isinstance(last.kind, Gate):
                gates, gate = {"gate": last.reads["gate"]}, last
                last = body.find_producer(last.reads["src"])
            first = last and body.find_producer(last.reads["src"])
            if not (first and last and isinstance(first.kind, Linear) and isinstance(last.kind, Linear)):
                continue
            fits = isinstance(first.kind.before, Norm) and isinstance(last.kind.before, Gelu)
            if fits and isinstance(first.kind.before, Norm) and first.reads["src"] == src:
                kind = Mlp(first.kind.before, *first.kind.weights, *last.kind.weights)
                mlp = edit(add, kind, src=src, **gates)
                mlp.layer = name_parent(kind.fc1.layer)
                body.replace(add, mlp)
                for fused in (first, last, *([gate] if gates else [])):
                    body.erase(fused)
                break


def spread_sums(body: Body) -> None:
    """Write x + (a + b) as (x + a) + b.

    So each of the two is added in place: an adapter beside its Linear.
    """
    for add in list_ops(body, Add):
        for name, other in (("src", "other"), ("other", "src")):
            inner = body.find_producer(add.reads[other])
            if inner is None or not isinstance(inner.kind, Add):
                continue
            makers = [body.find_producer(views) for views in inner.reads.values()]
            if all(maker and isinstance(maker.kind, Linear) for maker in makers):
                value = Value(add.view.value.rows, add.view.columns)
                reads = {"src": add.reads[name], "other": inner.reads["src"]}
                first = Op(Add(), reads, {"out": view_of(value)}, add.node, add.layer)
                body.erase(inner)
                body.replace(add, first, edit(add, Add(), src=(view_of(value),), other=inner.reads["other"]))
                break


def accumulate(body: Body) -> None:
    """Add in place, where nothing reads what was there.

    One of the two that a sum adds must be what a Linear gives, gated or not, and goes nowhere else.
    """
    for op in list_ops(body, Add, Mlp):
        if isinstance(op.kind, Mlp):
            if may_overwrite(body, op, op.reads["src"]):
                write_in_place(body, op, op.reads["src"])
            continue
        for name, other in (("src", "other"), ("other", "src")):
            last, gates = body.find_producer(op.reads[other]), {}
            if last and isinstance(last.kind, Gate):
                gates, gate = {"gate": last.reads["gate"]}, last
                last = body.find_producer(last.reads["src"])
            if not last or not isinstance(last.kind, Linear) or last.kind.accumulates:
                continue
            if body.is_written_between(last.reads["src"], last, op) or not may_overwrite(body, op, op.reads[name]):
                continue
            reads = {"src": last.reads["src"], **gates}
            linear = Op(replace(last.kind, accumulates=True), reads, op.writes, last.node, last.layer)
            body.replace(op, linear)
            for fused in (last, *([gate] if gates else [])):
                body.erase(fused)
            write_in_place(body, linear, op.reads[name])
            break


def may_overwrite(body: Body, op: Op, src: Views) -> bool:
    """Tell whether an op may write over what it reads."""
    if len(src) != 1 or src[0].value.data is not None or src[0].value in body.inputs:
        return False
    return op.view == src[0] or not body.is_read_after(src[0], op)


def write_in_place(body: Body, op: Op, src: Views) -> None:
    """Let an op write over the rows that it reads.

    Who read the value that it made reads these.
    """
    value = op.view.value
    op.writes = {"out": src[0]}
    if src[0].value is not value:
        body.redirect(value, src)


def list_ops(body: Body, *kinds: type) -> list[Op]:
    """List the ops of some kinds, in order."""
    return [op for op in body.ops if isinstance(op.kind, kinds)]


def list_single_rows(body: Body) -> None:
    """Read a single row behind the first through a row list."""
    for op in list_ops(body, Linear):
        (src, *others) = op.reads["src"]
        if others or src.rows.list is not None or src.rows.count != 1 or src.rows.first == 0:
            continue
        row = Value(1, 1, BufferType.I32, name="row")
        body.replace(op, Op(List(src.rows.first), {}, {"out": view_of(row)}, op.node, op.layer), op)
        op.reads["src"] = (replace(src, rows=RowSet(1, list=row)),)


FUSIONS: tuple[Pass, ...] = (
    fuse_attention,
    spread_factors,
    fold_factors,
    fuse_norm,
    fuse_activation,
    fuse_mlp,
    copy_outputs,
    copy_inputs,
    fill_constants,
    stack_constants,
    spread_sums,
    accumulate,
    stack_rows,
    lay_out_attention,
)

LAYOUTS: tuple[Pass, ...] = (
    merge_linears,
    keep_image_order,
    drop_unread_rows,
    list_single_rows,
)
