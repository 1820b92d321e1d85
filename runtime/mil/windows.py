"""The ops of a Core ML program that slide a window over space: convolutions and pooling. See ops.py."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bigvit_edge.runtime.mil.places import Bool, Int, ints


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    strides: Tensor,
    pad_type: str,
    pad: Tensor,
    dilations: Tensor,
    groups: Int,
) -> Tensor:
    kernel, steps, spread = list(weight.shape[2:]), ints(strides), ints(dilations)
    pads = list_pads(x, pad_type, pad, [(k - 1) * d + 1 for k, d in zip(kernel, spread, strict=True)], steps)
    convolve: Any = (F.conv1d, F.conv2d, F.conv3d)[len(kernel) - 1]
    result: Tensor = convolve(F.pad(x, pads), weight, bias, steps, 0, spread, int(groups))
    return result


def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    pad: Tensor,
    output_shape: Tensor | None,
    pad_type: str,
    strides: Tensor,
    dilations: Tensor,
    groups: Int,
) -> Tensor:
    """Compute a transposed convolution.

    It is the whole of what every input value reaches, less `pad` before and after; where output_shape asks for more
    than that at the end, zeros that the bias is added to.
    """
    kernel, steps, spread = list(weight.shape[2:]), ints(strides), ints(dilations)
    convolve: Any = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[len(kernel) - 1]
    whole: Tensor = convolve(x, weight, None, steps, 0, 0, int(groups), spread)
    if pad_type == "same":
        over = [n - size * step for n, size, step in zip(whole.shape[2:], x.shape[2:], steps, strict=True)]
        pads = [part for n in over for part in (n // 2, n - n // 2)]
    elif pad_type in ("valid", "custom"):
        pads = ints(pad) if pad_type == "custom" else [0] * (2 * len(kernel))
    else:
        raise ValueError(f"pad_type {pad_type!r} of a transposed convolution")
    if output_shape is not None:
        sizes = [n - pads[2 * at] for at, n in enumerate(whole.shape[2:])]
        pads[1::2] = [have - want for have, want in zip(sizes, ints(output_shape)[2:], strict=True)]
    result = F.pad(whole, reverse_pairs([-n for n in pads]))
    return result if bias is None else result + bias.reshape(-1, *[1] * len(kernel))


def list_pads(x: Tensor, pad_type: str, pad: Tensor, kernel: list[int], steps: list[int]) -> list[int]:
    """List the pads before and after each of the last dimensions.

    They are in F.pad's order: the last dimension first. kernel: with its dilation.
    """
    if pad_type == "valid":
        pads = [0] * (2 * len(kernel))
    elif pad_type == "custom":
        pads = ints(pad)
    elif pad_type in ("same", "same_lower"):
        pads = []
        for size, k, step in zip(x.shape[2:], kernel, steps, strict=True):
            both = max(0, (math.ceil(size / step) - 1) * step + k - size)
            few, many = both // 2, both - both // 2
            pads += [few, many] if pad_type == "same" else [many, few]
    else:
        raise ValueError(f"pad_type {pad_type!r}")
    return reverse_pairs(pads)


def reverse_pairs(pads: list[int]) -> list[int]:
    """Reverse pairs for F.pad, which takes the last dimension first.

    Given: those for the first dimension first.
    """
    return [n for at in reversed(range(len(pads) // 2)) for n in pads[2 * at : 2 * at + 2]]


def max_pool(x: Tensor, kernel_sizes: Tensor, strides: Tensor, pad_type: str, pad: Tensor, ceil_mode: Bool) -> Tensor:
    kernel, steps = ints(kernel_sizes), ints(strides)
    pads = list_pads(x, pad_type, pad, kernel, steps)
    pool: Any = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(kernel) - 1]
    padded = F.pad(x, fit_ceiling(x, pads, kernel, steps, bool(ceil_mode)), value=-math.inf)
    result: Tensor = pool(padded, kernel, steps)
    return result


def avg_pool(
    x: Tensor,
    kernel_sizes: Tensor,
    strides: Tensor,
    pad_type: str,
    pad: Tensor,
    ceil_mode: Bool,
    exclude_padding_from_average: Bool,
) -> Tensor:
    """Average windows.

    What lies beyond the padding, where ceil_mode rounds up, is never counted.
    """
    kernel, steps = ints(kernel_sizes), ints(strides)
    pads = list_pads(x, pad_type, pad, kernel, steps)
    outer = fit_ceiling(x, pads, kernel, steps, bool(ceil_mode))
    counted = torch.ones_like(x) if exclude_padding_from_average else torch.ones_like(F.pad(x, pads))
    rest = outer if exclude_padding_from_average else [b - a for a, b in zip(pads, outer, strict=True)]
    pool: Any = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(kernel) - 1]
    mean: Tensor = pool(F.pad(x, outer), kernel, steps)
    share: Tensor = pool(F.pad(counted, rest), kernel, steps)
    return mean / share


def l2_pool(x: Tensor, kernel_sizes: Tensor, strides: Tensor, pad_type: str, pad: Tensor, ceil_mode: Bool) -> Tensor:
    no = torch.tensor(False)
    count = math.prod(ints(kernel_sizes))
    return (avg_pool(x.square(), kernel_sizes, strides, pad_type, pad, ceil_mode, no) * count).sqrt()


def fit_ceiling(x: Tensor, pads: list[int], kernel: list[int], steps: list[int], ceil_mode: bool) -> list[int]:
    """Extend the pads by what a last window needs after each dimension.

    That window starts within the dimension or its padding before. In F.pad's order.
    """
    if not ceil_mode:
        return pads
    pads = list(pads)
    for at, (size, k, step) in enumerate(zip(reversed(x.shape[2:]), reversed(kernel), reversed(steps), strict=True)):
        before, after = pads[2 * at : 2 * at + 2]
        windows = math.ceil((size + before + after - k) / step) + 1
        if (windows - 1) * step >= size + before:
            windows -= 1
        pads[2 * at + 1] += max(0, (windows - 1) * step + k - size - before - after)
    return pads


def sliding_windows(x: Tensor, axis: Int, size: Int, stride: Int) -> Tensor:
    dim = int(axis) % x.dim()
    return x.unfold(dim, int(size), int(stride)).movedim(-1, dim + 1)
