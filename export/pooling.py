"""Pooling whose padding stands in ops of its own, as XNNPACK's runtimes take it."""

import math
from typing import Any

import torch
from torch.nn.functional import adaptive_avg_pool1d, avg_pool2d, pad

from bigvit_edge.export.graph import shape_of
from bigvit_edge.export.place import Call, Place, value_of
from bigvit_edge.export.products import to_pair
from bigvit_edge.export.resizing import multiply_sides

aten = torch.ops.aten


def pool_padded(place: Place, x: Any, kernel: Any, *options: Any) -> Any:
    """Write a max pooling of an image padded with -inf.

    XNNPACK's exporter cannot write that down: the image is padded otherwise.
    """
    if x.target not in (aten.pad.default, aten.constant_pad_nd.default) or -math.inf not in x.args:
        return NotImplemented
    image, padding = x.args[:2]
    left, right, top, bottom = (*padding, 0, 0)[:4]
    dilation = options[2] if len(options) > 2 else 1  # behind stride and padding
    if len(shape_of(image)) != 4 or not 1 < len(padding) < 5 or min(padding) < 0 or set(to_pair(dilation)) != {1}:
        return NotImplemented
    if max(top, bottom) >= to_pair(kernel)[0] or max(left, right) >= to_pair(kernel)[1]:
        return NotImplemented
    return place(aten.max_pool2d.default, _pad(place, image, (top, bottom), (left, right)), kernel, *options)


def max_pool(place: Place, x: Any, kernel: Any, stride: Any = (), padding: Any = 0, *rest: Any) -> Any:
    """Write a max pooling's padding as an op of its own.

    LiteRT's converter pads with -inf, which XNNPACK does not take.
    """
    rows, columns = to_pair(padding)
    if rest or len(shape_of(x)) != 4 or not (rows or columns):
        return pool_padded(place, x, kernel, stride, padding, *rest)
    padded = _pad(place, x, (rows, rows), (columns, columns))
    return place(aten.max_pool2d.default, padded, kernel, stride)


def _pad(call: Call, x: Any, rows: tuple[int, int], columns: tuple[int, int]) -> Any:
    """Around an image, what changes no maximum of windows that reach into it: zeros around what a ReLU gives, else its
    own edge."""
    if x.target is aten.relu.default:
        return call(aten.constant_pad_nd.default, x, [*columns, *rows])
    for dim, (before, after) in ((2, rows), (3, columns)):
        if before or after:
            first, last = (call(aten.slice.Tensor, x, dim, at, at + 1) for at in (0, shape_of(x)[dim] - 1))
            x = call(aten.cat.default, [*[first] * before, x, *[last] * after], dim)
    return x


def average(
    place: Place,
    x: Any,
    kernel: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil: bool = False,
    include: bool = True,
    divisor: int | None = None,
) -> Any:
    """Write an average of windows that reach past the edge.

    As that of a padded image, times what each window's divisor makes of it: XNNPACK's leaves zeros at the edge out,
    knows no windows that reach past them, and even without padding wants to be told so.
    """
    if len(shape_of(x)) != 4 or not value_of(x).is_floating_point():
        return NotImplemented
    kernel, padding = to_pair(kernel), to_pair(padding)
    stride = to_pair(stride or kernel)
    before, counts = shape_of(x)[2:], shape_of(place.node)[2:]
    plain = (kernel, stride, [0, 0], False, False)
    edges: list[int] = []  # before and behind, columns first
    for size, count, k, step, zeros in reversed(list(zip(before, counts, kernel, stride, padding, strict=True))):
        edges += [zeros, max(0, (count - 1) * step + k - size - zeros)]
    if list(place.node.args[1:]) == list(plain) and not any(edges):
        return NotImplemented
    ones = torch.ones(1, 1, *before)
    factor = avg_pool2d(ones, kernel, stride, padding, ceil, include, divisor) / avg_pool2d(pad(ones, edges), *plain)
    padded = place(aten.constant_pad_nd.default, x, edges) if any(edges) else x
    mean = place(aten.avg_pool2d.default, padded, *plain)
    if torch.equal(factor, torch.ones_like(factor)):
        return mean
    return place(aten.mul.Tensor, mean, place.store(factor.to(value_of(x).dtype)))


def adaptive_average(place: Place, x: Any, size: Any) -> Any:
    """Write an average over parts of an image.

    Pooling where they are alike, else two Linears.
    """
    old, new = shape_of(x)[2:], shape_of(place.node)[2:]
    if len(shape_of(x)) != 4 or tuple(new) == (1, 1):  # which is a mean
        return NotImplemented
    if all(whole % parts == 0 for whole, parts in zip(old, new, strict=True)):
        kernel = [whole // parts for whole, parts in zip(old, new, strict=True)]
        return place(aten.avg_pool2d.default, x, kernel, kernel, [0, 0], False, False)
    rows, columns = (adaptive_avg_pool1d(torch.eye(a)[None], b)[0] for a, b in zip(old, new, strict=True))
    return multiply_sides(place, x, rows, columns)


def global_average(place: Place, x: Any, size: Any) -> Any:
    """Write an average over the whole image as a mean."""
    if len(shape_of(x)) != 4 or shape_of(place.node)[2:] != (1, 1):
        return NotImplemented
    return place(aten.mean.dim, x, [2, 3], True)
