"""Ops written in others that XNNPACK takes."""

from math import pi, prod, sqrt
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, gelu, hardtanh, linear

aten = torch.ops.aten
LEAVE: Tensor = NotImplemented  # PyTorch's word for: as it is
LONGEST = 16  # dimension whose largest is looked for by comparing each
TWICE_U = 2 * sqrt(2 / pi)  # GELU by tanh is x / 2 * (1 + tanh(u)), u = sqrt(2 / pi) * (x + 0.044715 x^3)


def normalize(
    x: Tensor,
    shape: list[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn: bool = True,
) -> Tensor:
    """Compute layer norm over the last dimension by Linears.

    XNNPACK has no such op, and takes a mean only over pixels; but a mean is a Linear with one output. In float32
    whatever the type: a square passes float16's 65504 from 256 on.
    """
    if len(shape) != 1:
        return LEAVE
    dtype, x = x.dtype, x.float()
    average = torch.full((1, shape[0]), 1 / shape[0])  # [1, C]
    x = x - linear(x, average)  # [..., C] - [..., 1]
    x = x * torch.rsqrt(linear(x * x, average, torch.full((1,), eps)))  # [..., C]
    x = x if weight is None else x * weight.float()
    return (x if bias is None else x + bias.float()).to(dtype)


def bend(x: Tensor, approximate: str = "none") -> Tensor:
    """Compute GELU in float16, and GELU by tanh, in other ops.

    XNNPACK has the first in float32 alone, and takes the second for the exact one: half of 1 + tanh(u) is the sigmoid
    of 2 u. In float32, for the cube of a float16 is infinite from 40 on.
    """
    if approximate == "tanh":
        wide = x.float()
        return (wide * torch.sigmoid(wide * (TWICE_U + TWICE_U * 0.044715 * (wide * wide)))).to(x.dtype)
    return gelu(x.float()).half() if x.dtype == torch.float16 else LEAVE


def swish(x: Tensor) -> Tensor:
    """Compute SiLU in its own type.

    PyTorch's way casts float16 to float32 and back.
    """
    return x * torch.sigmoid(x)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Compute attention without a care for rows masked out altogether.

    A picture has no such rows: PyTorch's own way spends ten ops on those, and expands on the batch. Heads that share
    their keys are more rows of one.
    """
    shared = q.dim() == k.dim() == 4 and k.shape[1] == 1 and k.shape[:2] == v.shape[:2] and k.shape[0] == q.shape[0]
    if (
        dropout
        or causal
        or (enable_gqa and not shared)
        or (q.shape[:-2] != k.shape[:-2] and not shared)
        or (mask is not None and not mask.is_floating_point())
    ):
        return LEAVE
    q = q * (q.shape[-1] ** -0.5 if scale is None else scale)
    rows = q.flatten(1, 2) if shared else q.flatten(0, -3)
    score = torch.bmm(rows, k.flatten(0, -3).transpose(1, 2))  # [B * H, N, M], or [B, H * N, M]
    if mask is not None:
        score = (score.view(*q.shape[:-1], k.shape[-2]) + mask).view(score.shape)  # [B, H, N, M] between
    return torch.bmm(score.softmax(-1), v.flatten(0, -3)).view(*q.shape[:-1], v.shape[-1])


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """Multiply matrices in batches.

    PyTorch's own way expands both, if only to what they are.
    """
    if a.dim() < 2 or b.dim() < 3:
        return LEAVE
    batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])  # type: ignore[no-untyped-call]
    flat = [(x if x.shape[:-2] == batch else x.expand(*batch, -1, -1)).flatten(0, -3) for x in (a, b)]
    return torch.bmm(*flat).view(*batch, a.shape[-2], b.shape[-1])


def normalize_groups(
    x: Tensor,
    groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn: bool = True,
) -> Tensor:
    """Compute group norm, [B, C, ...], by means over pixels.

    The means are over what XNNPACK takes for pixels; in float32 as layer norm is.
    """
    dtype, wide, each = x.dtype, x.float(), (1, -1, *[1] * (x.dim() - 2))
    parts = wide.reshape(x.shape[0], groups, x.shape[1] // groups, -1)  # [B, G, C / G, H * W]
    parts = parts - parts.mean((2, 3), keepdim=True)
    parts = parts * torch.rsqrt((parts * parts).mean((2, 3), keepdim=True) + eps)
    wide = parts.view(x.shape)
    wide = wide if weight is None else wide * weight.float().view(each)
    return (wide if bias is None else wide + bias.float().view(each)).to(dtype)


def average(x: Tensor, dims: list[int] | None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Tensor:
    """Compute a mean as a sum.

    A mean over the pixels of four dimensions stays: XNNPACK has that one.
    """
    taken = list_dims(x, dims)
    if dtype is not None or (x.dim() == 4 and taken == [2, 3]):
        return LEAVE
    return weigh(x, taken, keepdim, 1 / prod(x.shape[dim] for dim in taken))


def add_up(x: Tensor, dims: list[int] | None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Tensor:
    """Compute a sum as a Linear with one output."""
    taken = list_dims(x, dims)
    return LEAVE if dtype is not None else weigh(x, taken, keepdim, 1.0)


def list_dims(x: Tensor, dims: list[int] | None) -> list[int]:
    return sorted(dim % x.dim() for dim in dims or range(x.dim()))


def weigh(x: Tensor, taken: list[int], keepdim: bool, factor: float) -> Tensor:
    """Compute a sum over dimensions, times a factor, in float32.

    The last dimension's is a Linear with one output.
    """
    if not x.is_floating_point() or not x.dim():
        return LEAVE
    kept = [dim for dim in range(x.dim()) if dim not in taken]
    rows = x.permute(*kept, *taken).reshape(-1, prod(x.shape[dim] for dim in taken)).float()  # [the rest, taken]
    shape = [1 if dim in taken else size for dim, size in enumerate(x.shape) if keepdim or dim not in taken]
    return linear(rows, torch.full((1, rows.shape[1]), factor)).to(x.dtype).view(shape)


def take_largest(x: Tensor, dims: list[int], keepdim: bool = False) -> Tensor:
    """Take the largest along one short dimension, pair by pair."""
    if len(dims) != 1 or not 1 < x.shape[dims[0]] <= LONGEST:
        return LEAVE
    parts: list[Tensor] = list(torch.split(x, 1, dims[0]))
    while len(parts) > 1:
        parts.append(torch.maximum(parts.pop(0), parts.pop(0)))
    return parts[0] if keepdim else parts[0].squeeze(dims[0])


def measure(
    x: Tensor, order: float | None, dims: list[int] | None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Tensor:
    """Measure the Euclidean length, of F.normalize and Tensor.norm."""
    if order not in (2, None) or dtype is not None:
        return LEAVE
    wide = x.float()
    return torch.sqrt((wide * wide).sum(dims or list(range(x.dim())), keepdim)).to(x.dtype)


def raise_to(x: Tensor, power: float) -> Tensor:
    """Compute squares and roots, which XNNPACK has under their own names."""
    known = {2: lambda: x * x, 3: lambda: x * x * x, 0.5: lambda: torch.sqrt(x), -0.5: lambda: torch.rsqrt(x)}
    return known[power]() if power in known and x.is_floating_point() else LEAVE


def harden(x: Tensor) -> Tensor:
    """Compute hardsigmoid by the clamp that XNNPACK has."""
    return hardtanh(x + 3.0, 0.0, 6.0) * (1 / 6)


def soften(x: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    """Compute softmax over the last of three dimensions.

    Of four, behind a convolution, XNNPACK's exporter takes the channels, which its layout has last, and says nothing.
    """
    last = dim % x.dim() == x.dim() - 1
    if dtype is not None or (last and x.dim() < 4):
        return LEAVE
    rows = x if last else x.transpose(dim, -1)
    rows = (rows.flatten(0, -3) if x.dim() > 3 else rows).softmax(-1).view(rows.shape)
    return rows if last else rows.transpose(dim, -1)


def pool_rows(
    x: Tensor, kernel: list[int], stride: list[int] | None = None, padding: tuple[int, ...] = (0,), *options: bool
) -> Tensor:
    """Average along the last dimension as over pixels in a row."""
    return avg_pool2d(x.unsqueeze(-2), (1, *kernel), (1, *(stride or kernel)), (0, *padding), *options).squeeze(-2)


OTHERS: dict[Any, Any] = {
    aten.avg_pool1d.default: pool_rows,
    aten.layer_norm.default: normalize,
    aten.group_norm.default: normalize_groups,
    aten.gelu.default: bend,
    aten.silu.default: swish,
    aten.hardsigmoid.default: harden,
    aten.softmax.int: soften,
    aten.scaled_dot_product_attention.default: attend,
    aten.matmul.default: multiply,
    aten.mean.dim: average,
    aten.mean.default: lambda x, dtype=None: average(x, None, dtype=dtype),
    aten.sum.dim_IntList: add_up,
    aten.sum.default: lambda x, dtype=None: add_up(x, None, dtype=dtype),
    aten.amax.default: take_largest,
    aten.linalg_vector_norm.default: measure,
    aten.norm.ScalarOpt_dim: measure,
    aten.pow.Tensor_Scalar: raise_to,
}
