"""Depthwise convolutions of many taps, as sums of convolutions of few.

XNNPACK multiplies a depthwise kernel of up to 25 taps in one go; one of more it takes for a grouped convolution of one
channel a group, and needs ten times the time a tap. The columns of a larger kernel are shared out, in threes and twos
about the middle: each share is a kernel of its own with its columns as far apart as they were.
"""

from collections.abc import Iterator
from typing import Any

import torch

from bigvit_edge.export.graph import shape_of
from bigvit_edge.export.place import Place
from bigvit_edge.export.products import to_pair

aten = torch.ops.aten
MOST_TAPS = 25


def share_taps(
    place: Place, x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    groups: int = 1,
) -> Any:  # fmt: skip
    """Write a depthwise convolution as a sum of smaller ones.

    Of an odd number of columns, and of at most 12 rows.
    """
    data = place.read(weight)
    if data is None or data.dim() != 4 or data.shape[:2] != (groups, 1) or groups != shape_of(x)[1]:
        return NotImplemented
    rows, columns = data.shape[2:]
    stride, padding, dilation = map(to_pair, (stride, padding, dilation))
    if rows * columns <= MOST_TAPS or 2 * rows > MOST_TAPS or columns % 2 == 0:
        return NotImplemented
    shares = list(list_shares(columns, MOST_TAPS // rows))
    if padding[1] < max(share[0] for share in shares) * dilation[1]:
        return NotImplemented
    total = None
    for share in shares:
        apart = share[1] - share[0] if len(share) > 1 else 1
        made = place(
            aten.conv2d.default, x, place.store(data[..., share].contiguous()), bias if total is None else None, stride,
            [padding[0], padding[1] - share[0] * dilation[1]], [dilation[0], apart * dilation[1]], groups,
        )  # fmt: skip
        total = made if total is None else place(aten.add.Tensor, total, made)
    return total


def list_shares(columns: int, most: int) -> Iterator[list[int]]:
    """List a kernel's columns in shares, evenly spaced about the middle.

    columns: odd; most: columns a share, 2 or more. The middle goes with the outermost two where three may go together.
    """
    middle = columns // 2
    pairs = [[i, columns - 1 - i] for i in range(middle)]
    if most >= 3:
        yield [pairs[0][0], middle, pairs[0][1]]
        yield from pairs[1:]
    else:
        yield [middle]
        yield from pairs
