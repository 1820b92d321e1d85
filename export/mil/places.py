"""The ops of a Core ML program that put values in other places. See ops.py."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Int = Tensor | int
Bool = Tensor | bool
Float = Tensor | float


def ints(value: Tensor | None, default: list[int] | None = None) -> list[int]:
    """A one-dimensional attribute as numbers."""
    if value is None:
        if default is None:
            raise ValueError("an attribute is missing")
        return default
    return [int(n) for n in value.reshape(-1).tolist()]


def gather(x: Tensor, indices: Tensor, axis: Int = 0, batch_dims: Int = 0, validate_indices: Bool = False) -> Tensor:
    dim, batch = int(axis) % x.dim(), int(batch_dims)
    if batch:
        if indices.dim() != batch + 1 or dim != batch:
            raise ValueError(f"gather of {tuple(indices.shape)} from {tuple(x.shape)} with {batch} batch dimensions")
        spread = indices.reshape(*indices.shape, *[1] * (x.dim() - dim - 1)).expand(*indices.shape, *x.shape[dim + 1 :])
        return x.gather(dim, spread.long())
    picked = x.index_select(dim, indices.reshape(-1))
    return picked.reshape(*x.shape[:dim], *indices.shape, *x.shape[dim + 1 :])


def gather_along_axis(x: Tensor, indices: Tensor, axis: Int = 0, validate_indices: Bool = False) -> Tensor:
    return x.gather(int(axis), indices.long())


def concat(values: Sequence[Tensor], axis: Int, interleave: Bool = False) -> Tensor:
    if interleave:
        raise ValueError("concat with interleave")
    return torch.cat(list(values), int(axis))


def stack(values: Sequence[Tensor], axis: Int) -> Tensor:
    return torch.stack(list(values), int(axis))


def split(x: Tensor, axis: Int, num_splits: Int | None = None, split_sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    if split_sizes is not None:
        return torch.split(x, ints(split_sizes), int(axis))
    return torch.chunk(x, int(num_splits or 1), int(axis))


def slice_by_index(
    x: Tensor,
    begin: Tensor,
    end: Tensor,
    stride: Tensor | None = None,
    begin_mask: Tensor | None = None,
    end_mask: Tensor | None = None,
    squeeze_mask: Tensor | None = None,
) -> Tensor:
    first, last, steps = ints(begin), ints(end), ints(stride, [1] * x.dim())
    none = [0] * x.dim()
    free_first, free_last, single = ints(begin_mask, none), ints(end_mask, none), ints(squeeze_mask, none)
    for d in reversed(range(x.dim())):  # the last first: a dimension that goes leaves the earlier ones where they are
        span = slice(None if free_first[d] else first[d], None if free_last[d] else last[d], steps[d])
        places = range(x.shape[d])
        x = x.select(d, places[first[d]]) if single[d] else x.index_select(d, torch.tensor(places[span]))
    return x


def slice_by_size(x: Tensor, begin: Tensor, size: Tensor) -> Tensor:
    for dim, (first, count) in enumerate(zip(ints(begin), ints(size), strict=True)):
        x = x.narrow(dim, first, x.shape[dim] - first if count == -1 else count)
    return x


def reshape(x: Tensor, shape: Tensor) -> Tensor:
    return x.reshape(ints(shape))


def transpose(x: Tensor, perm: Tensor) -> Tensor:
    return x.permute(ints(perm))


def expand_dims(x: Tensor, axes: Tensor) -> Tensor:
    rank = x.dim() + axes.numel()
    for axis in sorted(a % rank for a in ints(axes)):
        x = x.unsqueeze(axis)
    return x


def squeeze(x: Tensor, axes: Tensor | None = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(ints(axes))


def tile(x: Tensor, reps: Tensor) -> Tensor:
    return x.repeat(ints(reps))


def pad(x: Tensor, pad: Tensor, mode: str = "constant", constant_val: Float = 0.0) -> Tensor:
    pairs = ints(pad)
    while len(pairs) > 2 and mode != "constant" and pairs[:2] == [0, 0]:
        pairs = pairs[2:]  # PyTorch reflects in the last dimensions alone
    pads = [n for at in reversed(range(len(pairs) // 2)) for n in pairs[2 * at : 2 * at + 2]]
    return F.pad(x, pads, mode, float(constant_val) if mode == "constant" else None)


def select(cond: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(cond, a, b)


def fill(shape: Tensor, value: Tensor) -> Tensor:
    return value.expand(ints(shape))


def one_hot(indices: Tensor, one_hot_vector_size: Int, axis: Int = -1, on_value: Int = 1, off_value: Int = 0) -> Tensor:
    marks = F.one_hot(indices.long(), int(one_hot_vector_size)).bool()
    return torch.where(marks, torch.as_tensor(on_value), torch.as_tensor(off_value)).movedim(-1, int(axis))
