"""Ops that some formats have not, written in ops that all of them have. Each gives the same numbers.

A writer gets `call`, which applies an op in front of the one to be written, and that one's arguments.
"""

from collections.abc import Mapping
from functools import partial
from math import prod
from operator import getitem
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node

from bigvit_edge.export.graph import redirect_uses, shape_of
from bigvit_edge.export.place import Call, Place, Writer, value_of
from bigvit_edge.export.pooling import adaptive_average, average, global_average, max_pool, pool_padded
from bigvit_edge.export.resizing import resize, resize_bilinear, resize_nearest
from bigvit_edge.export.strides import (
    Spread,
    copy,
    expand,
    multiply,
    pad,
    pad_around,
    repeat,
    repeat_each,
    slice_by_steps,
)
from bigvit_edge.export.taps import share_taps
from bigvit_edge.export.windows import fold, unfold, unfold_dimension

aten = torch.ops.aten


def write_equivalents(program: ExportedProgram, writers: Mapping[Any, Writer] | None = None) -> None:
    """Write every op that has a writer, in place.

    writers: those that all formats need if None.
    """
    writers = EVERYWHERE if writers is None else writers
    for node in list(program.graph.nodes):
        if node.target not in writers:
            continue
        made = writers[node.target](Place(program, node), *node.args, **node.kwargs)
        if isinstance(made, Node):
            redirect_uses(program, node, made)
        elif made is not NotImplemented and all(made[user.args[1]] for user in node.users if user.users):
            for user in list(node.users):  # each takes one of the values
                if user.users:
                    redirect_uses(program, user, made[user.args[1]])


# ---- order -----------------------------------------------------------------------------------------------------------


def sort(call: Call, x: Any, dim: int = -1, descending: bool = False) -> Any:
    """Write a sort, values and their order, as top-k of all.

    The lowest index comes first of equal values where top-k of the runtime does so, as ONNX Runtime's and LiteRT's do.
    """
    return tuple(_take_top(call, x, (shape_of(x) or (1,))[dim], dim, descending))


def sort_stable(call: Call, x: Any, *, stable: bool | None, dim: int = -1, descending: bool = False) -> Any:
    return sort(call, x, dim, descending)


def argsort(call: Call, x: Any, dim: int = -1, descending: bool = False) -> Any:
    return sort(call, x, dim, descending)[1]


def argsort_stable(call: Call, x: Any, *, stable: bool, dim: int = -1, descending: bool = False) -> Any:
    return argsort(call, x, dim, descending)


def median(call: Call, x: Any, dim: int, keepdim: bool = False) -> Any:
    """Write the median, the lower of two, and where it stands."""
    if not shape_of(x):
        return sort(call, x)
    last = (shape_of(x)[dim] - 1) // 2
    taken = [call(aten.slice.Tensor, part, dim, last, last + 1) for part in _take_top(call, x, last + 1, dim, False)]
    return tuple(taken if keepdim else [call(aten.squeeze.dim, part, dim) for part in taken])


def top(place: Place, x: Any, count: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """Write what LiteRT's own top-k cannot do."""
    read = any(user.args[1] == 1 and user.users for user in place.node.users)
    if largest and read and len(shape_of(x)) == 2 and dim % 2 == 1:
        return NotImplemented
    return tuple(_take_top(place, x, count, dim, largest))


def _take_top(call: Call, x: Any, count: int, dim: int, largest: bool) -> list[Any]:
    """Values and places. LiteRT's top-k takes the largest alone, of the rows of a matrix, and becomes a sort, which its
    interpreter has not, where nobody reads the places: so they give the values."""
    if not shape_of(x):
        return [x, call(aten.zeros_like.default, x, dtype=torch.int64)]
    last = len(shape_of(x)) - 1
    turns = dim % (last + 1) != last
    x = call(aten.transpose.int, x, dim, last) if turns else x
    shape = shape_of(x)
    flat = call(aten.reshape.default, _make_key(call, x, largest), [-1, shape[-1]])
    order = call(getitem, call(aten.topk.default, flat, count, -1, True, True), 1)
    order = call(aten.reshape.default, order, [*shape[:-1], count])
    parts = [call(aten.gather.default, x, last, order), order]
    return [call(aten.transpose.int, part, dim, last) for part in parts] if turns else parts


def _make_key(call: Call, x: Any, largest: bool) -> Any:
    """Numbers that are the larger, the earlier a value comes: of integers, in a type that holds their negatives."""
    if largest and value_of(x).dtype != torch.bool:
        return x
    if not value_of(x).is_floating_point() and value_of(x).dtype != torch.int64:
        x = call(aten._to_copy.default, x, dtype=torch.int64)
    return x if largest else call(aten.neg.default, x)


# ---- windows and diagonals -------------------------------------------------------------------------------------------


def adaptive_max_pool(call: Call, x: Any, size: list[int]) -> Any:
    """Write adaptive max pooling, [..., h, w] -> [..., *size], without places."""
    pixels = shape_of(x)[-2:]
    if all(length % count == 0 for length, count in zip(pixels, size, strict=True)):
        window = [length // count for length, count in zip(pixels, size, strict=True)]
        return call(aten.max_pool2d.default, x, window, window), None
    for dim, count in zip((-2, -1), size, strict=True):
        length = shape_of(x)[dim]
        spans = [(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]
        parts = [call(aten.amax.default, call(aten.slice.Tensor, x, dim, *span), [dim], True) for span in spans]
        x = call(aten.cat.default, parts, dim)
    return x, None


def diagonal(call: Call, x: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    """Write a diagonal: [..., rows, columns] -> [..., d].

    Rows and columns in whatever order: both dimensions as one, and every (columns + 1)th of it.
    """
    shape = shape_of(x)
    pair = [dim1 % len(shape), dim2 % len(shape)]
    rest = [dim for dim in range(len(shape)) if dim not in pair]
    rows, columns = (shape[dim] for dim in pair)
    start = offset if offset >= 0 else -offset * columns
    count = min(rows, columns - offset) if offset >= 0 else min(rows + offset, columns)
    if count <= 0:
        return NotImplemented
    flat = call(aten.reshape.default, call(aten.permute.default, x, rest + pair), [*(shape[d] for d in rest), -1])
    stop = start + (count - 1) * (columns + 1) + 1
    return call(aten.slice.Tensor, flat, len(rest), start, stop, columns + 1)


def einsum(call: Call, equation: str, operands: list[Any], **options: Any) -> Any:
    """Write an einsum of diagonals: a letter twice in an operand, 'bii->bi'."""
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    terms, operands = inputs.split(","), list(operands)
    if not arrow or "." in inputs or all(len(set(term)) == len(term) for term in terms):
        return NotImplemented
    for number, term in enumerate(terms):
        while letter := next((letter for letter in term if term.count(letter) > 1), ""):
            first, second = [place for place, other in enumerate(term) if other == letter][:2]
            operands[number] = diagonal(call, operands[number], 0, first, second)
            term = term[:first] + term[first + 1 : second] + term[second + 1 :] + letter
        terms[number] = term
    return call(aten.einsum.default, f"{','.join(terms)}->{output}", operands, **options)


# ---- scatters, for formats without -----------------------------------------------------------------------------------


def scatter_value(call: Call, x: Any, dim: int, index: Any, value: Any) -> Any:
    hits = _find_hits(call, x, dim, index)
    if hits is NotImplemented:
        return hits
    reached = call(aten.amax.default, hits, [dim % len(shape_of(x)) + 1])
    return _blend(call, reached, x, call(aten.full_like.default, x, value))


def scatter(call: Call, x: Any, dim: int, index: Any, source: Any) -> Any:
    """Write a scatter of unrepeated indices; PyTorch says nothing of others."""
    hits = _find_hits(call, x, dim, index)
    if hits is NotImplemented:
        return hits
    dim %= len(shape_of(x))
    reached = call(aten.amax.default, hits, [dim + 1])
    return _blend(call, reached, x, _gather_hits(call, hits, dim, index, source))


def scatter_add(call: Call, x: Any, dim: int, index: Any, source: Any) -> Any:
    hits = _find_hits(call, x, dim, index)
    if hits is NotImplemented:
        return hits
    return call(aten.add.Tensor, x, _gather_hits(call, hits, dim % len(shape_of(x)), index, source))


def scatter_reduce(
    call: Call, x: Any, dim: int, index: Any, source: Any, reduce: str, *, include_self: bool = True
) -> Any:
    """Write a scatter of sums or means."""
    total = scatter_add(call, x, dim, index, source)
    if reduce not in ("sum", "mean") or not include_self or total is NotImplemented:
        return NotImplemented
    if reduce == "sum":
        return total
    count = call(aten.sum.dim_IntList, _find_hits(call, x, dim, index), [dim % len(shape_of(x)) + 1])
    return call(aten.div.Tensor, total, call(aten.add.Scalar, count, 1))


def _find_hits(call: Call, x: Any, dim: int, index: Any) -> Any:
    """[.., N, K, ..] of 1 where the k-th index at `dim` is n, and 0: floats, which every format multiplies. Its last
    dimensions are 1 where one index holds for a whole row."""
    shape, given = shape_of(x), shape_of(index)
    if not shape:
        return NotImplemented
    dim %= len(shape)
    if given[:dim] + given[dim + 1 :] != shape[:dim] + shape[dim + 1 :] or not value_of(x).is_floating_point():
        return NotImplemented
    if isinstance(index, Node) and index.target is aten.expand.default:
        index = index.args[0]
    if shape_of(index)[dim] != given[dim]:
        return NotImplemented
    places = call(aten.arange.default, shape[dim], dtype=torch.float32, device=torch.device("cpu"))
    places = call(aten.reshape.default, places, [shape[dim]] + [1] * (len(shape) - dim))
    wanted = call(aten.unsqueeze.default, call(aten._to_copy.default, index, dtype=torch.float32), dim)
    return call(aten._to_copy.default, call(aten.eq.Tensor, places, wanted), dtype=torch.float32)


def _gather_hits(call: Call, hits: Any, dim: int, index: Any, source: Any) -> Any:
    """Of the source's values, the sum of those that go to each place."""
    source = call(aten.slice.Tensor, source, dim, 0, shape_of(index)[dim])
    if dim == len(shape_of(source)) - 2 and shape_of(hits)[-1] == 1:
        return call(aten.matmul.default, call(aten.squeeze.dim, hits, -1), source)
    return call(aten.sum.dim_IntList, call(aten.mul.Tensor, hits, call(aten.unsqueeze.default, source, dim)), [dim + 1])


def _blend(call: Call, reached: Any, x: Any, other: Any) -> Any:
    return call(aten.where.self, call(aten.gt.Scalar, reached, 0), other, x)


def index_put(place: Place, x: Any, indices: list[Any], values: Any, accumulate: bool = False) -> Any:
    """Write an assignment to constant places along M dimensions.

    x [*A, *M, *R], of whose dimensions M constants index L places: each takes its own of the values [*A, *L, *R].
    """
    shape, known = shape_of(x), [None if index is None else place.read(index) for index in indices]
    if any(index is not None and data is None for index, data in zip(indices, known, strict=True)):
        return NotImplemented
    spread = [part for data in known for part in ([None] if data is None else _as_integers(data))]
    indexed = [dim for dim, data in enumerate(spread) if data is not None]
    first, last = indexed[0], indexed[-1] + 1
    if len(indexed) != last - first:
        return NotImplemented
    numbers = torch.arange(prod(shape[first:last])).reshape(shape[first:last])[tuple(spread[first:last])]  # [*L]
    flat = [prod(shape[:first]), prod(shape[first:last]), prod(shape[last:])]
    wide = place(aten.expand.default, values, [*shape[:first], *numbers.shape, *shape[last:]])
    wide = place(aten.reshape.default, wide, [flat[0], numbers.numel(), flat[2]])
    result = place(aten.reshape.default, x, flat)
    for sources in _list_sources(numbers.flatten(), flat[1], accumulate):  # [M], -1 where nothing is put
        picked = place(aten.index_select.default, wide, 1, place.store(sources.clamp(min=0)))
        other = place(aten.add.Tensor, result, picked) if accumulate else picked
        result = place(aten.where.self, place.store((sources >= 0).unsqueeze(1)), other, result)
    return place(aten.reshape.default, result, shape)


def _as_integers(index: Tensor) -> list[Tensor]:
    """An index of a dimension as it is; a mask as the indices of its dimensions."""
    return list(index.nonzero(as_tuple=True)) if index.dtype == torch.bool else [index]


def _list_sources(numbers: Tensor, places: int, accumulate: bool) -> list[Tensor]:
    """Which of the values [L] go to each place [M]: the last one, or to add them up, one after another."""
    rounds: list[Tensor] = []
    met = [0] * places
    for source, number in enumerate(numbers.tolist()):
        turn = met[number] if accumulate else 0
        if turn == len(rounds):
            rounds.append(torch.full((places,), -1))
        rounds[turn][number] = source
        met[number] += 1
    return rounds


def add_product(call: Call, x: Any, a: Any, b: Any, *, value: Any = 1) -> Any:
    """Write addcmul as a product and a sum."""
    product = call(aten.mul.Tensor, a, b)
    return call(aten.add.Tensor, x, product if value == 1 else call(aten.mul.Tensor, product, value))


EVERYWHERE: Mapping[Any, Writer] = {
    aten.sort.default: sort,
    aten.sort.stable: sort_stable,
    aten.argsort.default: argsort,
    aten.argsort.stable: argsort_stable,
    aten.median.dim: median,
    aten.adaptive_max_pool2d.default: adaptive_max_pool,
    aten.adaptive_avg_pool2d.default: adaptive_average,
    aten.diagonal.default: diagonal,
    aten.einsum.default: einsum,
    aten.scatter_reduce.two: scatter_reduce,
    aten.addcmul.default: add_product,
    aten.unfold.default: unfold_dimension,
    aten.im2col.default: unfold,
    aten.col2im.default: fold,
}


def subtract_from(call: Call, x: Any, other: Any, alpha: Any = 1) -> Any:
    """Write other - alpha * x of integers.

    LiteRT's converter makes x - other of it (litert-torch 0.10).
    """
    if alpha != 1 or value_of(x).is_floating_point():
        return NotImplemented
    return call(aten.add.Tensor, call(aten.neg.default, x), other)


def list_repetitions(spread: Spread) -> dict[Any, Writer]:
    """List the writers of ops that repeat values."""
    return {
        aten.expand.default: partial(expand, spread),
        aten.repeat.default: partial(repeat, spread),
        aten.repeat_interleave.self_int: partial(repeat_each, spread),
        aten.upsample_nearest2d.vec: partial(resize_nearest, spread),
    }


XNNPACK: dict[Any, Writer] = {  # what its delegates refuse, besides EVERYWHERE
    aten.conv2d.default: share_taps,
    aten.slice.Tensor: slice_by_steps,
    **list_repetitions(multiply),
    aten.max_pool2d.default: pool_padded,
    aten.avg_pool2d.default: average,
    aten.adaptive_avg_pool2d.default: global_average,
    aten.upsample_bilinear2d.vec: resize_bilinear,
    aten.upsample_bicubic2d.vec: resize,
    aten._upsample_nearest_exact2d.vec: resize,
    aten._upsample_bilinear2d_aa.vec: resize,
    aten._upsample_bicubic2d_aa.vec: resize,
}
LITERT: Mapping[Any, Writer] = XNNPACK | {
    **list_repetitions(copy),
    aten.topk.default: top,
    aten.rsub.Scalar: subtract_from,
    aten.scatter.value: scatter_value,
    aten.scatter.src: scatter,
    aten.scatter_add.default: scatter_add,
    aten.index_put.default: index_put,
    aten.max_pool2d.default: max_pool,
    aten.pad.default: pad,
    aten.constant_pad_nd.default: pad_around,
}
