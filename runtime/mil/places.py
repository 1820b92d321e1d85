"""The ops of a Core ML program that put values in other places. See ops.py."""

from collections.abc import Sequence

import torch
from torch import Tensor

Int = Tensor | int
Bool = Tensor | bool
Float = Tensor | float


def ints(value: Tensor) -> list[int]:
    """Read a one-dimensional attribute as numbers."""
    return [int(n) for n in value.reshape(-1).tolist()]


def concat(values: Sequence[Tensor], axis: Int, interleave: Bool) -> Tensor:
    if interleave:  # the first of each, then the second
        axis = int(axis) % values[0].dim()
        return torch.stack(list(values), axis + 1).flatten(axis, axis + 1)
    return torch.cat(list(values), int(axis))


def stack(values: Sequence[Tensor], axis: Int) -> Tensor:
    return torch.stack(list(values), int(axis))


def split(x: Tensor, num_splits: Int | None, split_sizes: Tensor | None, axis: Int) -> tuple[Tensor, ...]:
    if split_sizes is not None:
        return torch.split(x, ints(split_sizes), int(axis))
    return torch.chunk(x, int(num_splits or 1), int(axis))


# ---- slices ----------------------------------------------------------------------------------------------------------


def slice_by_index(
    x: Tensor,
    begin: Tensor,
    end: Tensor,
    stride: Tensor | None,
    begin_mask: Tensor | None,
    end_mask: Tensor | None,
    squeeze_mask: Tensor | None,
) -> Tensor:
    for dim, places in enumerate(list_places(x, begin, end, stride, begin_mask, end_mask, squeeze_mask)):
        x = x.index_select(dim, places)
    return x if squeeze_mask is None else x.squeeze([d for d, single in enumerate(ints(squeeze_mask)) if single])


def slice_update(
    x: Tensor,
    update: Tensor,
    begin: Tensor,
    end: Tensor,
    stride: Tensor | None,
    begin_mask: Tensor | None,
    end_mask: Tensor | None,
    squeeze_mask: Tensor | None,
) -> Tensor:
    places = list_places(x, begin, end, stride, begin_mask, end_mask, squeeze_mask)
    grid = torch.meshgrid(places, indexing="ij")
    return x.index_put(grid, update.reshape([len(p) for p in places]))


def list_places(
    x: Tensor,
    begin: Tensor,
    end: Tensor,
    stride: Tensor | None,
    begin_mask: Tensor | None,
    end_mask: Tensor | None,
    squeeze_mask: Tensor | None,
) -> list[Tensor]:
    """List the indices along each dimension."""
    none = [0] * x.dim()
    steps = [1] * x.dim() if stride is None else ints(stride)
    free_first, free_last, single = (none if m is None else ints(m) for m in (begin_mask, end_mask, squeeze_mask))
    found = []
    for d, (first, last) in enumerate(zip(ints(begin), ints(end), strict=True)):
        places = range(x.shape[d])
        if single[d]:
            chosen: Sequence[int] = [places[0 if free_first[d] else first]]
        else:
            chosen = places[slice(None if free_first[d] else first, None if free_last[d] else last, steps[d])]
        found.append(torch.tensor(chosen, dtype=torch.long))
    return found


def slice_by_size(x: Tensor, begin: Tensor, size: Tensor) -> Tensor:
    for dim, (first, count) in enumerate(zip(ints(begin), ints(size), strict=True)):
        x = x.narrow(dim, first, x.shape[dim] - first % x.shape[dim] if count == -1 else count)
    return x


def crop(x: Tensor, crop_height: Tensor, crop_width: Tensor) -> Tensor:
    (top, bottom), (left, right) = ints(crop_height), ints(crop_width)
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


# ---- shapes ----------------------------------------------------------------------------------------------------------


def reshape(x: Tensor, shape: Tensor) -> Tensor:
    """Reshape x; a 0 keeps its size, counted from the last dimension."""
    sizes = ints(shape)
    for at in range(1, len(sizes) + 1):
        if sizes[-at] == 0:
            sizes[-at] = x.shape[-at] if at <= x.dim() else 1
    return x.reshape(sizes)


def reshape_like(
    x: Tensor,
    ref_tensors: Sequence[Tensor],
    begins: Sequence[Tensor],
    ends: Sequence[Tensor],
    end_masks: Sequence[Tensor],
) -> Tensor:
    sizes: list[int] = []
    for like, begin, end, free in zip(ref_tensors, begins, ends, end_masks, strict=True):
        sizes += like.shape[int(begin) : None if free else int(end)]
    return x.reshape(sizes)


def flatten2d(x: Tensor, axis: Int) -> Tensor:
    return x.reshape(x.shape[: int(axis)].numel(), -1)


def transpose(x: Tensor, perm: Tensor) -> Tensor:
    return x.permute(ints(perm))


def expand_dims(x: Tensor, axes: Tensor) -> Tensor:
    rank = x.dim() + axes.numel()
    for axis in sorted(a % rank for a in ints(axes)):
        x = x.unsqueeze(axis)
    return x


def squeeze(x: Tensor, axes: Tensor | None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(ints(axes))


def tile(x: Tensor, reps: Tensor) -> Tensor:
    return x.repeat(ints(reps))


def reverse(x: Tensor, axes: Tensor | None) -> Tensor:
    return x.flip(list(range(x.dim())) if axes is None else ints(axes))


def reverse_sequence(x: Tensor, lengths: Tensor, seq_axis: Int, batch_axis: Int) -> Tensor:
    seq, batch = int(seq_axis) % x.dim(), int(batch_axis) % x.dim()
    rows = []
    for row, length in zip(torch.split(x, 1, batch), ints(lengths), strict=True):
        head, tail = torch.split(row, [length, row.shape[seq] - length], seq)
        rows.append(torch.cat([head.flip(seq), tail], seq))
    return torch.cat(rows, batch)


def pad(x: Tensor, pad: Tensor, mode: str, constant_val: Tensor) -> Tensor:
    """Pad the last dimensions, as many as `pad` has pairs."""
    pairs = ints(pad)
    if mode == "constant":
        turned = [n for at in reversed(range(len(pairs) // 2)) for n in pairs[2 * at : 2 * at + 2]]
        return torch.constant_pad_nd(
            x, turned, constant_val.item() if isinstance(constant_val, Tensor) else constant_val
        )
    for at in range(len(pairs) // 2):
        dim = x.dim() - len(pairs) // 2 + at
        n = x.shape[dim]
        places = torch.arange(-pairs[2 * at], n + pairs[2 * at + 1])
        if mode == "reflect":
            places = (n - 1) - (n - 1 - places.abs()).abs()
        elif mode == "replicate":
            places = places.clamp(0, n - 1)
        else:
            raise ValueError(f"padding of mode {mode!r}")
        x = x.index_select(dim, places)
    return x


# ---- space, depth and batch ------------------------------------------------------------------------------------------


def depth_to_space(x: Tensor, block_size: Int) -> Tensor:
    (b, c, h, w), n = x.shape, int(block_size)
    blocks = x.reshape(b, n, n, c // (n * n), h, w).permute(0, 3, 4, 1, 5, 2)  # [b, c, h, n, w, n]
    return blocks.reshape(b, -1, h * n, w * n)


def space_to_depth(x: Tensor, block_size: Int) -> Tensor:
    (b, c, h, w), n = x.shape, int(block_size)
    blocks = x.reshape(b, c, h // n, n, w // n, n).permute(0, 3, 5, 1, 2, 4)  # [b, n, n, c, h / n, w / n]
    return blocks.reshape(b, -1, h // n, w // n)


def space_to_batch(x: Tensor, block_shape: Tensor, paddings: Tensor) -> Tensor:
    (rows, columns), (top, bottom, left, right) = ints(block_shape), ints(paddings)
    x = torch.constant_pad_nd(x, [left, right, top, bottom])
    b, c, h, w = x.shape
    blocks = x.reshape(b, c, h // rows, rows, w // columns, columns).permute(3, 5, 0, 1, 2, 4)
    return blocks.reshape(-1, c, h // rows, w // columns)


def batch_to_space(x: Tensor, block_shape: Tensor, crops: Tensor) -> Tensor:
    (rows, columns), (b, c, h, w) = ints(block_shape), x.shape
    blocks = x.reshape(rows, columns, b // (rows * columns), c, h, w).permute(2, 3, 4, 0, 5, 1)
    return crop(blocks.reshape(-1, c, h * rows, w * columns), *crops)


# ---- what is made ----------------------------------------------------------------------------------------------------


def band_part(x: Tensor, lower: Int, upper: Int) -> Tensor:
    """Keep a band of x, and zeros elsewhere.

    x where row - column is at most `lower` and column - row at most `upper`; below 0: no bound.
    """
    below = torch.arange(x.shape[-2])[:, None] - torch.arange(x.shape[-1])
    inside = ((below <= int(lower)) | (int(lower) < 0)) & ((-below <= int(upper)) | (int(upper) < 0))
    return torch.where(inside, x, torch.zeros((), dtype=x.dtype))


def fill(shape: Tensor, value: Tensor) -> Tensor:
    return value.expand(ints(shape))


def fill_like(ref_tensor: Tensor, value: Tensor) -> Tensor:
    return value.expand(ref_tensor.shape)


def one_hot(indices: Tensor, one_hot_vector_size: Int, axis: Int, on_value: Tensor, off_value: Tensor) -> Tensor:
    marks = indices.unsqueeze(-1) == torch.arange(int(one_hot_vector_size))
    return torch.where(marks, on_value, off_value).movedim(-1, int(axis))


def range_1d(end: Tensor, start: Tensor, step: Tensor) -> Tensor:
    return torch.arange(start.item(), end.item(), step.item(), dtype=end.dtype)
