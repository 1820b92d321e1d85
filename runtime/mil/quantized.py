"""The ops of a Core ML program that round values to integers and back. See ops.py.

Source, for the constexpr ops: coremltools' iOS16/constexpr_ops.py and iOS18/compression.py.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bigvit_edge.runtime.mil.places import Int, ints

SPAN = {"int8": (-128, 127), "uint8": (0, 255)}


def quantize(input: Tensor, zero_point: Tensor | None, scale: Tensor, axis: Int | None, output_dtype: str) -> Tensor:
    scale, zero = along(scale, input, axis), along(zero_point, input, axis)
    return (torch.round(input / scale) + zero).clamp(*SPAN[output_dtype]).to(torch.int32)


def dequantize(input: Tensor, zero_point: Tensor | None, scale: Tensor, axis: Int | None) -> Tensor:
    return (input - along(zero_point, input, axis)) * along(scale, input, axis)


def along(values: Tensor | None, x: Tensor, axis: Int | None) -> Tensor:
    """Shape values for all of x, or along an axis of it.

    One value for all, or one for each place on the axis.
    """
    if values is None:
        return torch.tensor(0)
    if values.dim() == 0 or axis is None:
        return values
    shape = [1] * x.dim()
    shape[int(axis)] = -1
    return values.reshape(shape)


def constexpr_affine_dequantize(quantized_data: Tensor, zero_point: Tensor, scale: Tensor, axis: Int) -> Tensor:
    return dequantize(quantized_data, zero_point, scale, axis)


def constexpr_blockwise_shift_scale(data: Tensor, scale: Tensor, offset: Tensor | None) -> Tensor:
    shifted = data if offset is None else data - repeat_blocks(offset, data.shape)
    return shifted * repeat_blocks(scale, data.shape)


def constexpr_lut_to_dense(
    indices: Tensor, lut: Tensor, shape: Tensor | None = None, vector_axis: Int | None = None
) -> Tensor:
    if shape is not None:  # iOS16: one palette; indices are bytes with the numbers' bits packed, lowest first
        size, width = math.prod(ints(shape)), lut.numel().bit_length() - 1
        bits = (indices.unsqueeze(-1) >> torch.arange(8)) & 1  # [bytes, 8]
        numbers = bits.reshape(-1)[: size * width].reshape(size, width) << torch.arange(width)
        return lut[numbers.sum(-1)].reshape(ints(shape))
    entries, width = lut.shape[-2:]
    palettes = repeat_blocks(lut, (*indices.shape, entries, width))  # [*indices, entries, width]
    places = indices.long()[..., None, None].expand(*indices.shape, 1, width)
    values = palettes.gather(-2, places).squeeze(-2)  # [*indices, width]
    if vector_axis is None:
        return values.squeeze(-1)
    axis = int(vector_axis) % indices.dim()
    return values.movedim(-1, axis + 1).flatten(axis, axis + 1)


def repeat_blocks(values: Tensor, shape: Sequence[int]) -> Tensor:
    """Repeat each value along every dimension until the shape is reached."""
    for dim, (have, want) in enumerate(zip(values.shape, shape, strict=True)):
        if want % have:
            raise ValueError(f"{have} blocks in a dimension of {want}")
        if want != have:
            values = values.repeat_interleave(want // have, dim)
    return values
