"""Steps and repetitions, for XNNPACK's runtimes: slices, views, products with ones or copies."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import Node

from bigvit_edge.export.graph import shape_of
from bigvit_edge.export.place import Call, Place, value_of

aten = torch.ops.aten
BROADCASTING = {
    aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor, aten.maximum.default, aten.minimum.default,
}  # fmt: skip
HIGHEST_RANK = 6  # of XNNPACK's values

Spread = Callable[[Place, Any, Sequence[int]], Any]  # how a value is repeated to a shape: multiply or copy


def slice_by_steps(
    place: Place, x: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Any:
    """Write x[:, ::2] as the first column of x in pairs."""
    shape = shape_of(x)
    if step == 1 or not value_of(x).is_floating_point() or len(shape) >= HIGHEST_RANK:
        return NotImplemented
    dim, (start, _, _) = dim % len(shape), slice(start, end).indices(shape[dim])
    return _take_every(place, x, dim, start, step, shape_of(place.node)[dim])


def _take_every(call: Call, x: Any, dim: int, start: int, step: int, count: int) -> Any:
    """`count` elements along a dimension, from `start` on, each `step` after the one before."""
    shape = shape_of(x)
    first = max(0, min(start, shape[dim] - count * step))  # of whole groups that hold one element each
    place, last = start - first, start + (count - 1) * step
    if count == 1:
        return call(aten.slice.Tensor, x, dim, start, start + 1)
    if first + count * step > shape[dim]:
        parts = [_take_every(call, x, dim, start, step, count - 1), _take_every(call, x, dim, last, 1, 1)]
        return call(aten.cat.default, parts, dim)
    groups = call(aten.slice.Tensor, x, dim, first, first + count * step)
    groups = call(aten.reshape.default, groups, [*shape[:dim], count, step, *shape[dim + 1 :]])
    taken = call(aten.slice.Tensor, groups, dim + 1, place, place + 1)
    return call(aten.reshape.default, taken, [*shape[:dim], count, *shape[dim + 1 :]])


def pad(place: Place, x: Any, padding: Sequence[int], mode: str = "constant", value: float | None = None) -> Any:
    """Write a number around a value as constants beside it.

    LiteRT's XNNPACK pads with zeros alone. What is padded for a maximum is left to that.
    """
    if mode != "constant" or not value or not math.isfinite(value) or min(padding, default=-1) < 0:
        return NotImplemented
    for back, (before, after) in enumerate(zip(padding[::2], padding[1::2], strict=True), 1):
        shape, dim = list(shape_of(x)), len(shape_of(x)) - back
        sides = [
            [place.store(torch.full([*shape[:dim], width, *shape[dim + 1 :]], value, dtype=value_of(x).dtype))]
            if width
            else []
            for width in (before, after)
        ]
        if before or after:
            x = place(aten.cat.default, [*sides[0], x, *sides[1]], dim)
    return x


def pad_around(place: Place, x: Any, padding: Sequence[int], value: float = 0) -> Any:
    """Write constant_pad_nd as `pad`."""
    return pad(place, x, padding, "constant", value)


def multiply(place: Place, x: Any, wide: Sequence[int]) -> Any:
    """Repeat a value to a shape, as a product with ones."""
    ones = [1 if have == want else want for have, want in zip(shape_of(x), wide, strict=True)]
    return place(aten.mul.Tensor, x, place.store(torch.ones(ones, dtype=value_of(x).dtype)))


def copy(call: Call, x: Any, wide: Sequence[int]) -> Any:
    """Repeat a value to a shape, as copies put together in pairs.

    LiteRT's converter makes a broadcast of a product with ones, and loses a permute behind it (litert-torch 0.10).
    """
    for dim, (have, want) in enumerate(zip(shape_of(x), wide, strict=True)):
        x = _copy_along(call, x, dim, want) if have != want else x
    return x


def _copy_along(call: Call, x: Any, dim: int, count: int) -> Any:
    if count == 1:
        return x
    half = _copy_along(call, x, dim, count // 2)
    twice = call(aten.cat.default, [half, half], dim)
    return call(aten.cat.default, [twice, x], dim) if count % 2 else twice


def expand(spread: Spread, place: Place, x: Any, size: Any, **_: Any) -> Any:
    """Write what is repeated in the way `spread`.

    A reader that repeats it by itself gets it as it is.
    """
    before, shape = shape_of(x), shape_of(place.node)
    if before == shape or all(repeats_itself(user, place.node, before) for user in place.node.users):
        return x
    return spread_to(spread, place, x, [1] * (len(shape) - len(before)) + list(before), shape)


def repeat(spread: Spread, place: Place, x: Any, repeats: Sequence[int]) -> Any:
    """Write copies beside each other, along dimensions of their own."""
    shape = [1] * (len(repeats) - len(shape_of(x))) + list(shape_of(x))
    pairs = list(zip(repeats, shape, strict=True))
    apart = [size for times, own in pairs for size in ([1, own] if times != 1 else [own])]
    wide = [size for times, own in pairs for size in ([times, own] if times != 1 else [own])]
    return spread_to(spread, place, x, apart, wide)


def repeat_each(spread: Spread, place: Place, x: Any, repeats: int, dim: int | None = None, **_: Any) -> Any:
    """Write copies of each element behind it, with a dimension more."""
    if dim is None:
        return NotImplemented
    shape = shape_of(x)
    dim %= len(shape)
    apart, wide = ([*shape[: dim + 1], times, *shape[dim + 1 :]] for times in (1, repeats))
    return spread_to(spread, place, x, apart, wide)


def spread_to(spread: Spread, place: Place, x: Any, apart: Sequence[int], wide: Sequence[int]) -> Any:
    """Repeat a value from one shape to another.

    It is brought into the shape `apart`, made `wide`, and given the shape of what is replaced.
    """
    if not value_of(x).is_floating_point() or len(wide) > HIGHEST_RANK or 0 in wide:
        return NotImplemented
    shape = shape_of(place.node)
    if list(apart) == list(wide):
        return place(aten.reshape.default, x, list(shape))
    x = x if shape_of(x) == tuple(apart) else place(aten.reshape.default, x, list(apart))
    made = spread(place, x, wide)
    return made if tuple(wide) == shape else place(aten.reshape.default, made, list(shape))


def repeats_itself(user: Node, expanded: Node, shape: tuple[int, ...]) -> bool:
    """Tell whether a reader of an expanded value repeats it itself.

    It then gives the same of the value before the expansion, in that shape.
    """
    if user.target not in BROADCASTING:
        return False
    shapes = [shape if n is expanded else shape_of(n) for n in user.args if isinstance(n, Node)]
    return bool(torch.broadcast_shapes(*shapes) == shape_of(user))  # type: ignore[no-untyped-call]
