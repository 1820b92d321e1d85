"""Resizing as products with matrices, for runtimes that do it otherwise or in many steps."""

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from bigvit_edge.export.graph import shape_of
from bigvit_edge.export.place import Place, value_of
from bigvit_edge.export.strides import Spread, spread_to

aten = torch.ops.aten


def resize_nearest(spread: Spread, place: Place, x: Any, size: Any, scales: Any) -> Any:
    """Write a nearest-neighbour resizing.

    By whole factors each pixel is repeated in the way `spread`; what XNNPACK has is bilinear.
    """
    (n, c, h, w), (_, _, height, width) = shape_of(x), shape_of(place.node)
    if height % h or width % w:
        return resize(place, x, size, scales)
    return spread_to(spread, place, x, [n, c, h, 1, w, 1], [n, c, h, height // h, w, width // w])


def resize_bilinear(place: Place, x: Any, size: Any, align: bool, scales: Any) -> Any:
    """Write a bilinear resizing.

    Runtimes' own knows no factor but that of the sizes.
    """
    pairs = zip(shape_of(place.node)[2:], shape_of(x)[2:], scales or (), strict=False)
    if all(new == old * scale for new, old, scale in pairs):
        return NotImplemented
    return resize(place, x, size, align, scales)


def resize(place: Place, x: Any, *options: Any) -> Any:
    """Write a resizing as two Linears."""
    if not value_of(x).is_floating_point():
        return NotImplemented
    return multiply_sides(place, x, *(make_resizing(place.node, dim) for dim in (2, 3)))


def multiply_sides(place: Place, x: Any, rows: Tensor, columns: Tensor) -> Any:
    """Write a map of rows and one of columns as two Linears.

    [N, C, h, w], rows [h, H], columns [w, W] -> [N, C, H, W].
    """
    for matrix in (columns, rows):
        weight = place.store(matrix.T.to(value_of(x).dtype).contiguous())
        x = place(aten.transpose.int, place(aten.linear.default, x, weight), 2, 3)
    return x


def make_resizing(node: Node, dim: int) -> Tensor:
    """Compute the matrix [old, new] of a resizing along a dimension.

    What it makes of each place along that dimension of an image. It is linear and sees each dimension by itself, so its
    answer to the unit vectors says all.
    """
    arguments: tuple[Any, ...] = node.args
    op: Any = node.target
    x, _, *align, scales = arguments
    old, new = shape_of(x)[dim], shape_of(node)[dim]
    units = torch.eye(old)[:, None, :, None].repeat(1, 1, 1, 2)  # two columns: torch 2.13 miscounts antialiasing one
    made = op(units, *((None, *align, [scales[dim - 2], 1.0]) if scales else ([new, 2], *align, None)))
    return made[:, 0, :, 0].to(value_of(x).dtype).contiguous()  # type: ignore[no-any-return]
