"""The ops of a Core ML program that normalise or reduce. See ops.py."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from bigvit_edge.runtime.mil.places import Bool, Float, Int, ints

Reduce = Callable[[Tensor, list[int], bool], Tensor]
REDUCE: dict[str, Reduce] = {
    "reduce_l1_norm": lambda x, axes, keep: x.abs().sum(axes, keep, dtype=x.dtype),
    "reduce_l2_norm": lambda x, axes, keep: x.square().sum(axes, keep).sqrt(),
    "reduce_log_sum": lambda x, axes, keep: x.sum(axes, keep).log(),
    "reduce_log_sum_exp": torch.logsumexp,
    "reduce_max": torch.amax,
    "reduce_mean": torch.mean,
    "reduce_min": torch.amin,
    "reduce_prod": lambda x, axes, keep: multiply(x, axes, keep),
    "reduce_sum": lambda x, axes, keep: x.sum(axes, keep, dtype=x.dtype),
    "reduce_sum_square": lambda x, axes, keep: x.square().sum(axes, keep, dtype=x.dtype),
}


def reduction(function: Reduce) -> Callable[..., Tensor]:
    """Make the op that reduces some axes, all if none are given."""

    def reduce(x: Tensor, axes: Tensor | None, keep_dims: Bool) -> Tensor:
        return function(x, list(range(x.dim())) if axes is None else ints(axes), bool(keep_dims))

    return reduce


def multiply(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((a % x.dim() for a in axes), reverse=True):
        x = x.prod(axis, keepdim=keep, dtype=x.dtype)
    return x


def arg_reduction(function: Callable[[Tensor, int, bool], Tensor]) -> Callable[..., Tensor]:
    def reduce(x: Tensor, axis: Int, keep_dims: Bool, output_dtype: str | None = None) -> Tensor:
        return function(x, int(axis), bool(keep_dims)).to(torch.int32)

    return reduce


def batch_norm(
    x: Tensor, mean: Tensor, variance: Tensor, gamma: Tensor | None, beta: Tensor | None, epsilon: Float
) -> Tensor:
    return F.batch_norm(x, mean, variance, gamma, beta, eps=float(epsilon))


def instance_norm(x: Tensor, gamma: Tensor | None, beta: Tensor | None, epsilon: Float) -> Tensor:
    return F.instance_norm(x, weight=gamma, bias=beta, eps=float(epsilon))


def layer_norm(x: Tensor, axes: Tensor, gamma: Tensor | None, beta: Tensor | None, epsilon: Float) -> Tensor:
    dims = sorted(a % x.dim() for a in ints(axes))
    others = [d for d in range(x.dim()) if d not in dims]
    order = [*others, *dims]
    moved = x.permute(order)
    normed = F.layer_norm(moved, moved.shape[len(others) :], gamma, beta, float(epsilon))
    return normed.permute([order.index(d) for d in range(x.dim())])


def l2_norm(x: Tensor, epsilon: Float) -> Tensor:
    return x / (x.square().sum((-3, -2, -1), keepdim=True) + epsilon).sqrt()


def local_response_norm(x: Tensor, size: Int, alpha: Float, beta: Float, k: Float) -> Tensor:
    return F.local_response_norm(x, int(size), float(alpha), float(beta), float(k))
