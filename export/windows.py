"""Sliding windows cut out and laid back, in slices, views and sums, where converters make gathers and scatters.

A dimension at a time: of windows of k at steps of s, the a-th run of s values is, over all windows, one slice of the
whole from a * s on.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch

from bigvit_edge.export.graph import shape_of
from bigvit_edge.export.place import Call

aten = torch.ops.aten


def unfold(call: Call, x: Any, kernel: Any, dilation: Any, padding: Any, stride: Any) -> Any:
    """Cut windows out of images, as F.unfold does.

    [N, C, H, W] -> [N, C * k * l, windows].
    """
    *batch, channels, height, width = shape_of(x)
    rows, columns = count_windows((height, width), kernel, dilation, padding, stride)
    images = prod(batch) * channels
    cut = call(aten.reshape.default, x, [images, height, width])
    cut = cut_windows(call, cut, kernel[0], dilation[0], stride[0], padding[0], rows)  # [i, k, rows, W]
    cut = call(aten.reshape.default, cut, [images * kernel[0] * rows, width, 1])
    cut = cut_windows(call, cut, kernel[1], dilation[1], stride[1], padding[1], columns)  # [.., l, columns, 1]
    cut = call(aten.reshape.default, cut, [images, kernel[0], rows, kernel[1], columns])
    cut = call(aten.permute.default, cut, [0, 1, 3, 2, 4])
    return call(aten.reshape.default, cut, [*batch, channels * prod(kernel), rows * columns])


def fold(call: Call, x: Any, size: Any, kernel: Any, dilation: Any, padding: Any, stride: Any) -> Any:
    """Add windows up where they lie, as F.fold does.

    [N, C * k * l, windows] -> [N, C, H, W].
    """
    *batch, places, _ = shape_of(x)
    rows, columns = count_windows(size, kernel, dilation, padding, stride)
    channels = places // prod(kernel)
    images = prod(batch) * channels
    laid = call(aten.reshape.default, x, [images, *kernel, rows, columns])
    laid = call(aten.permute.default, laid, [0, 1, 3, 2, 4])
    laid = call(aten.reshape.default, laid, [images * kernel[0] * rows, kernel[1], columns, 1])
    laid = lay_windows(call, laid, dilation[1], stride[1], padding[1], size[1])  # [i * k * rows, W, 1]
    laid = call(aten.reshape.default, laid, [images, kernel[0], rows, size[1]])
    laid = lay_windows(call, laid, dilation[0], stride[0], padding[0], size[0])
    return call(aten.reshape.default, laid, [*batch, channels, *size])


def unfold_dimension(call: Call, x: Any, dim: int, size: int, step: int) -> Any:
    """Cut windows out along a dimension, as Tensor.unfold does.

    [.., n, ..] -> [.., windows, .., size].
    """
    shape = shape_of(x)
    dim %= len(shape) or 1
    if not shape:
        return NotImplemented
    before, beside, count = shape[:dim], shape[dim + 1 :], (shape[dim] - size) // step + 1
    cut = call(aten.reshape.default, x, [prod(before), shape[dim], prod(beside)])
    cut = cut_windows(call, cut, size, 1, step, 0, count)  # [before, size, windows, beside]
    return call(aten.reshape.default, call(aten.permute.default, cut, [0, 2, 3, 1]), [*before, count, *beside, size])


def count_windows(size: Any, kernel: Any, dilation: Any, padding: Any, stride: Any) -> list[int]:
    """Count the windows along each dimension."""
    options = zip(size, kernel, dilation, padding, stride, strict=True)
    return [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, d, p, s in options]


def cut_windows(call: Call, x: Any, kernel: int, dilation: int, stride: int, padding: int, count: int) -> Any:
    """Cut `count` windows out along the second dimension.

    [n, size, m] -> [n, kernel, count, m].
    """
    images, size, beside = shape_of(x)
    reach = dilation * (kernel - 1) + 1
    runs = -(-reach // stride)
    x = pad(call, x, padding, (count + runs - 1) * stride - padding - size)
    parts = []
    for run in range(runs):
        part = call(aten.slice.Tensor, x, 1, run * stride, (run + count) * stride)
        part = call(aten.reshape.default, part, [images, count, stride, beside])
        parts.append(call(aten.permute.default, part, [0, 2, 1, 3]))
    whole = parts[0] if runs == 1 else call(aten.cat.default, parts, 1)
    return call(aten.slice.Tensor, whole, 1, 0, reach, dilation)


def lay_windows(call: Call, x: Any, dilation: int, stride: int, padding: int, size: int) -> Any:
    """Add windows up along the second dimension.

    [n, kernel, count, m] -> [n, size, m].
    """
    images, kernel, count, beside = shape_of(x)
    if dilation > 1:
        x = pad(call, call(aten.reshape.default, x, [images * kernel, 1, count * beside]), 0, dilation - 1)
        x = call(aten.reshape.default, x, [images, kernel * dilation, count, beside])
    reach = kernel * dilation
    runs = -(-reach // stride)
    x = pad(call, x, 0, runs * stride - reach)
    total = None
    for run in range(runs):
        part = call(aten.slice.Tensor, x, 1, run * stride, (run + 1) * stride)
        part = call(aten.permute.default, part, [0, 2, 1, 3])
        part = call(aten.reshape.default, part, [images, count * stride, beside])
        part = pad(call, part, run * stride - padding, size + padding - (run + count) * stride)
        total = part if total is None else call(aten.add.Tensor, total, part)
    return total


def pad(call: Call, x: Any, before: int, after: int) -> Any:
    """Put zeros around the second dimension.

    A negative number takes as many values away.
    """
    shape: Sequence[int] = shape_of(x)
    if before < 0 or after < 0:
        x = call(aten.slice.Tensor, x, 1, max(-before, 0), shape[1] - max(-after, 0))
    added = [max(before, 0), max(after, 0)]
    if not any(added):
        return x
    return call(aten.constant_pad_nd.default, x, [0, 0] * (len(shape) - 2) + added)
