"""The ops of a Core ML program that compute each value by itself. See ops.py."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from bigvit_edge.runtime.mil.places import Float

DTYPES = {"fp16": torch.float32, "fp32": torch.float32, "bool": torch.bool} | dict.fromkeys(
    ("int32", "int16", "uint16", "int8", "uint8"), torch.int32
)
UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "abs": torch.abs,
    "acos": torch.acos,
    "asin": torch.asin,
    "atan": torch.atan,
    "atanh": torch.atanh,
    "ceil": torch.ceil,
    "cos": torch.cos,
    "cosh": torch.cosh,
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
    "sinh": torch.sinh,
    "softplus": F.softplus,
    "softsign": F.softsign,
    "sqrt": torch.sqrt,
    "square": torch.square,
    "tan": torch.tan,
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


def cast(x: Tensor, dtype: str) -> Tensor:
    return x.to(DTYPES[dtype])


def clip(x: Tensor, alpha: Float, beta: Float) -> Tensor:
    return x.clamp(float(alpha), float(beta))


def select(cond: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(cond, a, b)


# ---- activations -----------------------------------------------------------------------------------------------------


def clamped_relu(x: Tensor, alpha: Float, beta: Float) -> Tensor:
    return torch.where(x >= 0, x, alpha * x).clamp(max=float(beta))


def gelu(x: Tensor, mode: str) -> Tensor:
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    return F.gelu(x, approximate={"EXACT": "none", "TANH_APPROXIMATION": "tanh"}[mode])


def linear_activation(x: Tensor, alpha: Float, beta: Float) -> Tensor:
    return alpha * x + beta


def prelu(x: Tensor, alpha: Tensor) -> Tensor:
    return F.prelu(x, alpha)


def scaled_tanh(x: Tensor, alpha: Float, beta: Float) -> Tensor:
    return alpha * torch.tanh(beta * x)


def sigmoid_hard(x: Tensor, alpha: Float, beta: Float) -> Tensor:
    return (alpha * x + beta).clamp(0, 1)


def softmax(x: Tensor, axis: Tensor) -> Tensor:
    return x.softmax(int(axis))


def softplus_parametric(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    shape = (-1, *[1] * (x.dim() - 2))  # one of each for a channel
    return alpha.reshape(shape) * F.softplus(beta.reshape(shape) * x)


def thresholded_relu(x: Tensor, alpha: Float) -> Tensor:
    return torch.where(x >= alpha, x, 0.0)
