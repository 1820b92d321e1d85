"""What each op of a Core ML program computes, in PyTorch: a table, one short function an op, its arguments named as
the op's inputs are.

Source of names and meaning: coremltools' definitions (converters/mil/mil/ops/defs, iOS15 to iOS18). Floats are float32
whatever the file declares, integers int32, attributes are tensors too; a text is a str. Every input is given, as
definitions.py has it where the program leaves it out; a Python default stands where an older version of the op has no
such input. A function raises whatever PyTorch raises when its arguments do not fit.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bigvit_edge.runtime.mil import elementwise, norms, places, quantized, resizing, scatters, windows
from bigvit_edge.runtime.mil.places import Bool

SEVERAL = ("values", "ref_tensors", "begins", "ends", "end_masks")  # inputs that are a tuple of values

# Ops of coremltools without an evaluation, and why our packages hold none, or none that can be compared.
FLOW = "branches and loops, which no captured graph has"
LIST = "lists of tensors, which no captured graph has"
RANDOM = "draws other numbers on each run"
RECURRENT = "recurrent layers are not evaluated here"
SPARSE = "sparse weights, which nothing here makes"
STATE = "keeps a state between runs, which an image model has not"
TENSORFLOW = "coremltools makes it of TensorFlow's models alone"
ABSENT = {
    "_const_symbolic": "never saved",
    "cond": FLOW,
    "const": "a value, not an op",
    "constexpr_lut_to_sparse": SPARSE,
    "constexpr_sparse_blockwise_shift_scale": SPARSE,
    "constexpr_sparse_to_dense": SPARSE,
    "conv_quantized": "of the older format, neural networks",
    "crop_resize": TENSORFLOW,
    "gru": RECURRENT,
    "list_gather": LIST,
    "list_length": LIST,
    "list_read": LIST,
    "list_scatter": LIST,
    "list_write": LIST,
    "lstm": RECURRENT,
    "make_list": LIST,
    "non_maximum_suppression": "chooses boxes, and ours answer with logits",
    "random_bernoulli": RANDOM,
    "random_categorical": RANDOM,
    "random_normal": RANDOM,
    "random_uniform": RANDOM,
    "read_state": STATE,
    "rnn": RECURRENT,
    "while_loop": FLOW,
}


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.linear(x, weight, bias)


def matmul(x: Tensor, y: Tensor, transpose_x: Bool, transpose_y: Bool) -> Tensor:
    return torch.matmul(x.mT if transpose_x else x, y.mT if transpose_y else y)


def einsum(values: Sequence[Tensor], equation: str) -> Tensor:
    return torch.einsum(equation, *values)


def attend(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None) -> Tensor:
    score = query @ key.mT / math.sqrt(query.shape[-1])  # [..., n, N]
    if attn_mask is not None:
        score = score.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else score + attn_mask
    return score.softmax(-1) @ value


def classify(probabilities: Tensor, classes: tuple[str, ...]) -> tuple[str, dict[str, float]]:
    """Find the likeliest label, and the probability of each."""
    if len(set(classes)) < len(classes) or len(classes) != probabilities.numel():
        raise ValueError(f"{len(set(classes))} different labels for {probabilities.numel()} classes")
    of = dict(zip(classes, probabilities.flatten().tolist(), strict=True))
    return classes[int(probabilities.argmax())], of


OPS: dict[str, Callable[..., Any]] = {
    **{name: lambda x, function=function: function(x) for name, function in elementwise.UNARY.items()},
    **{name: lambda x, y, function=function: function(x, y) for name, function in elementwise.BINARY.items()},
    **{name: norms.reduction(function) for name, function in norms.REDUCE.items()},
    "affine": resizing.affine,
    "argsort": scatters.argsort,
    "avg_pool": windows.avg_pool,
    "band_part": places.band_part,
    "batch_norm": norms.batch_norm,
    "batch_to_space": places.batch_to_space,
    "cast": elementwise.cast,
    "clamped_relu": elementwise.clamped_relu,
    "classify": classify,
    "clip": elementwise.clip,
    "concat": places.concat,
    "constexpr_affine_dequantize": quantized.constexpr_affine_dequantize,
    "constexpr_blockwise_shift_scale": quantized.constexpr_blockwise_shift_scale,
    "constexpr_cast": lambda source_val, output_dtype: elementwise.cast(source_val, output_dtype),
    "constexpr_lut_to_dense": quantized.constexpr_lut_to_dense,
    "conv": windows.conv,
    "conv_transpose": windows.conv_transpose,
    "crop": places.crop,
    "cumsum": scatters.cumsum,
    "depth_to_space": places.depth_to_space,
    "dequantize": quantized.dequantize,
    "einsum": einsum,
    "elu": lambda x, alpha: F.elu(x, float(alpha)),
    "expand_dims": places.expand_dims,
    "fill": places.fill,
    "fill_like": places.fill_like,
    "flatten2d": places.flatten2d,
    "gather": scatters.gather,
    "gather_along_axis": scatters.gather_along_axis,
    "gather_nd": scatters.gather_nd,
    "gelu": elementwise.gelu,
    "instance_norm": norms.instance_norm,
    "inverse": lambda x, epsilon: 1 / (x + epsilon),
    "l2_norm": norms.l2_norm,
    "l2_pool": windows.l2_pool,
    "layer_norm": norms.layer_norm,
    "leaky_relu": lambda x, alpha: F.leaky_relu(x, float(alpha)),
    "linear": linear,
    "linear_activation": elementwise.linear_activation,
    "local_response_norm": norms.local_response_norm,
    "log": lambda x, epsilon: torch.log(x + epsilon),
    "matmul": matmul,
    "max_pool": windows.max_pool,
    "non_zero": lambda x: x.nonzero().to(torch.int32),
    "one_hot": places.one_hot,
    "pad": places.pad,
    "pixel_shuffle": lambda x, upscale_factor: F.pixel_shuffle(x, int(upscale_factor)),
    "pixel_unshuffle": lambda x, downscale_factor: F.pixel_unshuffle(x, int(downscale_factor)),
    "prelu": elementwise.prelu,
    "quantize": quantized.quantize,
    "range_1d": places.range_1d,
    "reduce_argmax": norms.arg_reduction(torch.argmax),
    "reduce_argmin": norms.arg_reduction(torch.argmin),
    "resample": resizing.resample,
    "reshape": places.reshape,
    "reshape_like": places.reshape_like,
    "resize": resizing.resize,
    "resize_bilinear": resizing.resize_bilinear,
    "resize_nearest_neighbor": resizing.resize_nearest_neighbor,
    "reverse": places.reverse,
    "reverse_sequence": places.reverse_sequence,
    "rsqrt": lambda x, epsilon: torch.rsqrt(x + epsilon),
    "scaled_dot_product_attention": attend,
    "scaled_tanh": elementwise.scaled_tanh,
    "scatter": scatters.scatter,
    "scatter_along_axis": scatters.scatter_along_axis,
    "scatter_nd": scatters.scatter_nd,
    "select": elementwise.select,
    "shape": lambda x: torch.tensor(x.shape, dtype=torch.int32),
    "sigmoid_hard": elementwise.sigmoid_hard,
    "slice_by_index": places.slice_by_index,
    "slice_by_size": places.slice_by_size,
    "slice_update": places.slice_update,
    "sliding_windows": windows.sliding_windows,
    "softmax": elementwise.softmax,
    "softplus_parametric": elementwise.softplus_parametric,
    "space_to_batch": places.space_to_batch,
    "space_to_depth": places.space_to_depth,
    "split": places.split,
    "squeeze": places.squeeze,
    "stack": places.stack,
    "threshold": lambda x, alpha: x.clamp(min=alpha.item()),
    "thresholded_relu": elementwise.thresholded_relu,
    "tile": places.tile,
    "topk": scatters.topk,
    "transpose": places.transpose,
    "upsample_bilinear": resizing.upsample_bilinear,
    "upsample_nearest_neighbor": resizing.upsample_nearest_neighbor,
}
