"""The ops of a Core ML program that read or write at computed places, and that sort. See ops.py."""

from math import prod

import torch
from torch import Tensor

from bigvit_edge.runtime.mil.places import Bool, Int

REDUCE = {"add": "sum", "sub": "sum", "mul": "prod", "div": "prod", "max": "amax", "min": "amin"}


def gather(x: Tensor, indices: Tensor, axis: Int, batch_dims: Int = 0, validate_indices: Bool = False) -> Tensor:
    dim, batch = int(axis) % x.dim(), int(batch_dims)
    before, after = x.shape[batch:dim], x.shape[dim + 1 :]
    first = x.shape[:batch]
    table = x.movedim(dim, batch).reshape(prod(first), x.shape[dim], -1)  # [batch, n, rest]
    rows = indices.reshape(prod(first), -1)  # [batch, m]
    picked = torch.stack([part[row] for part, row in zip(table, rows.long(), strict=True)])  # [batch, m, rest]
    picked = picked.reshape(*first, rows.shape[1], prod(before), prod(after)).transpose(batch, batch + 1)
    return picked.reshape(*first, *before, *indices.shape[batch:], *after)


def gather_along_axis(x: Tensor, indices: Tensor, axis: Int, validate_indices: Bool = False) -> Tensor:
    return x.gather(int(axis), indices.long())


def gather_nd(x: Tensor, indices: Tensor, batch_dims: Int = 0, validate_indices: Bool = False) -> Tensor:
    batch, depth = int(batch_dims), indices.shape[-1]
    first, rest = x.shape[:batch], x.shape[batch + depth :]
    table = x.reshape(prod(first), prod(x.shape[batch : batch + depth]), prod(rest))
    rows = flatten_places(indices, x.shape[batch : batch + depth]).reshape(prod(first), -1)
    picked = torch.stack([part[row] for part, row in zip(table, rows, strict=True)])
    return picked.reshape(*indices.shape[:-1], *rest)


def flatten_places(indices: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Number the places that coordinates in the last dimension give.

    One number for each place.
    """
    strides = [prod(sizes[d + 1 :]) for d in range(len(sizes))]
    return (indices.long() * torch.tensor(strides)).sum(-1)


def scatter(
    data: Tensor, indices: Tensor, updates: Tensor, axis: Int, mode: str, validate_indices: Bool = False
) -> Tensor:
    dim = int(axis) % data.dim()
    places = indices.reshape(-1, *[1] * (data.dim() - dim - 1)).expand(updates.shape)
    return scatter_along_axis(data, places, updates, dim, mode)


def scatter_along_axis(
    data: Tensor, indices: Tensor, updates: Tensor, axis: Int, mode: str, validate_indices: Bool = False
) -> Tensor:
    if mode == "update":
        return data.scatter(int(axis), indices.long(), updates)
    changes = {"sub": torch.neg, "div": torch.reciprocal}.get(mode, lambda u: u)(updates)
    return data.scatter_reduce(int(axis), indices.long(), changes, REDUCE[mode])


def scatter_nd(data: Tensor, indices: Tensor, updates: Tensor, mode: str, validate_indices: Bool = False) -> Tensor:
    depth = indices.shape[-1]
    table = data.reshape(prod(data.shape[:depth]), prod(data.shape[depth:]))
    rows = flatten_places(indices, data.shape[:depth]).reshape(-1)
    return scatter(table, rows, updates.reshape(len(rows), table.shape[1]), 0, mode).reshape(data.shape)


# ---- order -----------------------------------------------------------------------------------------------------------


def cumsum(x: Tensor, axis: Int, exclusive: Bool, reverse: Bool) -> Tensor:
    dim = int(axis)
    x = x.flip(dim) if reverse else x
    total = x.cumsum(dim, dtype=x.dtype)
    total = total - x if exclusive else total
    return total.flip(dim) if reverse else total


def argsort(x: Tensor, axis: Int, ascending: Bool) -> Tensor:
    return torch.sort(x, dim=int(axis), descending=not ascending, stable=True)[1].to(torch.int32)


def topk(
    x: Tensor,
    k: Int,
    axis: Int,
    ascending: Bool,
    sort: Bool = True,
    return_indices: Bool = True,
    output_indices_dtype: str | None = None,
) -> tuple[Tensor, ...]:
    count = x.shape[int(axis)] if int(k) == -1 else int(k)
    values, indices = x.topk(count, int(axis), largest=not ascending)
    return (values, indices.to(torch.int32)) if return_indices else (values,)
