"""What each op of a Core ML program computes, in PyTorch: a table, one short function an op, its arguments named as
the op's inputs are.

Source of names, defaults and meaning: coremltools' definitions (converters/mil/mil/ops/defs, iOS15 to iOS18). Floats
are float32 whatever the file declares, integers int32, attributes are tensors too; a text is a str. A function raises
whatever PyTorch raises when its arguments do not fit.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bigvit_edge.export.mil import places, quantized
from bigvit_edge.export.mil.places import Bool, Float, Int, ints

DTYPES = {"fp16": torch.float32, "fp32": torch.float32, "bool": torch.bool} | dict.fromkeys(
    ("int32", "int16", "uint16", "int8", "uint8"), torch.int32
)


# ---- products --------------------------------------------------------------------------------------------------------


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.linear(x, weight, bias)


def matmul(x: Tensor, y: Tensor, transpose_x: Bool = False, transpose_y: Bool = False) -> Tensor:
    return torch.matmul(x.mT if transpose_x else x, y.mT if transpose_y else y)


def einsum(values: Sequence[Tensor], equation: str) -> Tensor:
    return torch.einsum(equation, *values)


def attend(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    score = query @ key.mT / math.sqrt(query.shape[-1])  # [..., n, N]
    if attn_mask is not None:
        score = score.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else score + attn_mask
    return score.softmax(-1) @ value


def conv(
    x: Tensor,
    weight: Tensor,
    pad_type: str,
    strides: Tensor | None = None,
    pad: Tensor | None = None,
    dilations: Tensor | None = None,
    groups: Int = 1,
    bias: Tensor | None = None,
) -> Tensor:
    kernel = list(weight.shape[2:])
    steps, spread = ints(strides, [1] * len(kernel)), ints(dilations, [1] * len(kernel))
    padded = pad_space(x, pad_type, pad, [(k - 1) * d + 1 for k, d in zip(kernel, spread, strict=True)], steps)
    convolve: Any = (F.conv1d, F.conv2d, F.conv3d)[len(kernel) - 1]
    result: Tensor = convolve(padded, weight, bias, steps, 0, spread, int(groups))
    return result


def pad_space(x: Tensor, pad_type: str, pad: Tensor | None, kernel: list[int], steps: list[int]) -> Tensor:
    """x with its last dimensions padded by zeros as pad_type says; kernel: with its dilation."""
    return F.pad(x, list_pads(x, pad_type, pad, kernel, steps))


def list_pads(x: Tensor, pad_type: str, pad: Tensor | None, kernel: list[int], steps: list[int]) -> list[int]:
    """Before and after each of the last dimensions, in F.pad's order: the last first."""
    if pad_type == "valid":
        pads = [0] * (2 * len(kernel))
    elif pad_type == "custom":
        pads = ints(pad, [0] * (2 * len(kernel)))
    elif pad_type in ("same", "same_lower"):
        pads = []
        for size, k, step in zip(x.shape[2:], kernel, steps, strict=True):
            both = max(0, (math.ceil(size / step) - 1) * step + k - size)
            few, many = both // 2, both - both // 2
            pads += [few, many] if pad_type == "same" else [many, few]
    else:
        raise ValueError(f"pad_type {pad_type!r}")
    return [n for at in reversed(range(len(kernel))) for n in pads[2 * at : 2 * at + 2]]


# ---- pooling, norms, activations -------------------------------------------------------------------------------------


def max_pool(
    x: Tensor,
    kernel_sizes: Tensor,
    pad_type: str,
    strides: Tensor | None = None,
    pad: Tensor | None = None,
    ceil_mode: Bool = False,
) -> Tensor:
    kernel = ints(kernel_sizes)
    steps = ints(strides, [1] * len(kernel))
    pads = list_pads(x, pad_type, pad, kernel, steps)
    pool: Any = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(kernel) - 1]
    result: Tensor = pool(F.pad(x, pads, value=-math.inf), kernel, steps, ceil_mode=bool(ceil_mode))
    return result


def avg_pool(
    x: Tensor,
    kernel_sizes: Tensor,
    pad_type: str,
    strides: Tensor | None = None,
    pad: Tensor | None = None,
    exclude_padding_from_average: Bool = False,
    ceil_mode: Bool = False,
) -> Tensor:
    kernel = ints(kernel_sizes)
    steps = ints(strides, [1] * len(kernel))
    pool: Any = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(kernel) - 1]
    padded = pad_space(x, pad_type, pad, kernel, steps)
    total: Tensor = pool(padded, kernel, steps, ceil_mode=bool(ceil_mode))
    if not exclude_padding_from_average:
        return total
    ones = pad_space(torch.ones_like(x), pad_type, pad, kernel, steps)
    share: Tensor = pool(ones, kernel, steps, ceil_mode=bool(ceil_mode))
    return total / share


def layer_norm(
    x: Tensor, axes: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None, epsilon: Float = 1e-5
) -> Tensor:
    dims = sorted(a % x.dim() for a in ints(axes))
    if dims != list(range(x.dim() - len(dims), x.dim())):
        raise ValueError(f"layer_norm over axes {dims} of {x.dim()}, not the last")
    return F.layer_norm(x, x.shape[dims[0] :], gamma, beta, float(epsilon))


def batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: Float = 1e-5,
) -> Tensor:
    return F.batch_norm(x, mean, variance, gamma, beta, eps=float(epsilon))


def gelu(x: Tensor, mode: str = "EXACT") -> Tensor:
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    return F.gelu(x, approximate={"EXACT": "none", "TANH_APPROXIMATION": "tanh"}[mode])


def softmax(x: Tensor, axis: Int = -1) -> Tensor:
    return x.softmax(int(axis))


def clip(x: Tensor, alpha: Float, beta: Float) -> Tensor:
    return x.clamp(float(alpha), float(beta))


def prelu(x: Tensor, alpha: Tensor) -> Tensor:
    return F.prelu(x, alpha)


def cast(x: Tensor, dtype: str) -> Tensor:
    return x.to(DTYPES[dtype])


# ---- reductions and order --------------------------------------------------------------------------------------------

Reduce = Callable[[Tensor, list[int], bool], Tensor]


def reduction(function: Reduce) -> Callable[..., Tensor]:
    """The op over some axes, or all if none are given."""

    def reduce(x: Tensor, axes: Tensor | None = None, keep_dims: Bool = False) -> Tensor:
        return function(x, ints(axes, list(range(x.dim()))), bool(keep_dims))

    return reduce


def arg_reduction(function: Callable[[Tensor, int, bool], Tensor]) -> Callable[..., Tensor]:
    def reduce(x: Tensor, axis: Int = -1, keep_dims: Bool = False, output_dtype: str = "int32") -> Tensor:
        return function(x, int(axis), bool(keep_dims)).to(torch.int32)

    return reduce


def cumsum(x: Tensor, axis: Int = 0, exclusive: Bool = False, reverse: Bool = False) -> Tensor:
    dim = int(axis)
    x = x.flip(dim) if reverse else x
    total = x.cumsum(dim, dtype=x.dtype)
    total = total - x if exclusive else total
    return total.flip(dim) if reverse else total


def topk(
    x: Tensor,
    k: Int = 1,
    axis: Int = -1,
    ascending: Bool = False,
    sort: Bool = True,
    return_indices: Bool = True,
    output_indices_dtype: str = "int32",
) -> tuple[Tensor, ...]:
    values, indices = x.topk(int(k), int(axis), largest=not ascending)
    return (values, indices.to(torch.int32)) if return_indices else (values,)


UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "abs": torch.abs,
    "ceil": torch.ceil,
    "cos": torch.cos,
    "erf": torch.erf,
    "exp": torch.exp,
    "exp2": torch.exp2,
    "floor": torch.floor,
    "identity": lambda x: x,
    "logical_not": torch.logical_not,
    "relu": torch.relu,
    "relu6": F.relu6,
    "round": torch.round,
    "sigmoid": torch.sigmoid,
    "sign": torch.sign,
    "silu": F.silu,
    "sin": torch.sin,
    "softplus": F.softplus,
    "softsign": F.softsign,
    "sqrt": torch.sqrt,
    "square": torch.square,
    "tanh": torch.tanh,
}
BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "equal": torch.eq,
    "floor_div": torch.floor_divide,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "less": torch.lt,
    "less_equal": torch.le,
    "logical_and": torch.logical_and,
    "logical_or": torch.logical_or,
    "logical_xor": torch.logical_xor,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "mod": torch.remainder,
    "mul": torch.mul,
    "not_equal": torch.ne,
    "pow": torch.pow,
    "real_div": torch.div,
    "sub": torch.sub,
}
REDUCE: dict[str, Reduce] = {
    "reduce_l2_norm": lambda x, axes, keep: x.square().sum(axes, keep).sqrt(),
    "reduce_log_sum_exp": torch.logsumexp,
    "reduce_max": torch.amax,
    "reduce_mean": torch.mean,
    "reduce_min": torch.amin,
    "reduce_sum": lambda x, axes, keep: x.sum(axes, keep, dtype=x.dtype),
    "reduce_sum_square": lambda x, axes, keep: x.square().sum(axes, keep, dtype=x.dtype),
}
OPS: dict[str, Callable[..., Any]] = {
    **{name: lambda x, function=function: function(x) for name, function in UNARY.items()},
    **{name: lambda x, y, function=function: function(x, y) for name, function in BINARY.items()},
    **{name: reduction(function) for name, function in REDUCE.items()},
    "avg_pool": avg_pool,
    "batch_norm": batch_norm,
    "cast": cast,
    "clip": clip,
    "concat": places.concat,
    "constexpr_affine_dequantize": quantized.constexpr_affine_dequantize,
    "constexpr_blockwise_shift_scale": quantized.constexpr_blockwise_shift_scale,
    "constexpr_cast": lambda source_val, output_dtype: cast(source_val, output_dtype),
    "constexpr_lut_to_dense": quantized.constexpr_lut_to_dense,
    "conv": conv,
    "cumsum": cumsum,
    "dequantize": quantized.dequantize,
    "einsum": einsum,
    "elu": lambda x, alpha: F.elu(x, float(alpha)),
    "expand_dims": places.expand_dims,
    "fill": places.fill,
    "gather": places.gather,
    "gather_along_axis": places.gather_along_axis,
    "gelu": gelu,
    "inverse": lambda x, epsilon=1e-4: 1 / (x + epsilon),
    "layer_norm": layer_norm,
    "leaky_relu": lambda x, alpha: F.leaky_relu(x, float(alpha)),
    "linear": linear,
    "log": lambda x, epsilon=1e-45: torch.log(x + epsilon),
    "matmul": matmul,
    "max_pool": max_pool,
    "one_hot": places.one_hot,
    "pad": places.pad,
    "prelu": prelu,
    "quantize": quantized.quantize,
    "reduce_argmax": arg_reduction(torch.argmax),
    "reduce_argmin": arg_reduction(torch.argmin),
    "reshape": places.reshape,
    "reverse": lambda x, axes=None: x.flip(ints(axes, list(range(x.dim())))),
    "rsqrt": lambda x, epsilon=1e-12: torch.rsqrt(x + epsilon),
    "scaled_dot_product_attention": attend,
    "select": places.select,
    "sigmoid_hard": lambda x, alpha, beta: (alpha * x + beta).clamp(0, 1),
    "slice_by_index": places.slice_by_index,
    "slice_by_size": places.slice_by_size,
    "softmax": softmax,
    "split": places.split,
    "squeeze": places.squeeze,
    "stack": places.stack,
    "tile": places.tile,
    "topk": topk,
    "transpose": places.transpose,
}
