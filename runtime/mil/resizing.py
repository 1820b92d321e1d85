"""The ops of a Core ML program that resize or resample images. See ops.py."""

import torch
import torch.nn.functional as F
from torch import Tensor

from bigvit_edge.runtime.mil.places import Bool, Float, Int, ints


def list_points(have: int, want: int, sampling_mode: str) -> Tensor:
    """List where on 0..have - 1 each of `want` points is read.

    Source: the notes of iOS15 resize_bilinear.
    """
    steps = torch.arange(want, dtype=torch.float64)
    if sampling_mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        points = steps * (have - 1) / max(1, want - 1)
        if want == 1 and sampling_mode == "ALIGN_CORNERS":
            points = points + (have - 1) / 2
    elif sampling_mode == "DEFAULT":
        points = steps * have / want
    elif sampling_mode == "OFFSET_CORNERS":
        points = (steps + 0.5) * max(1, have - 1) / want
    elif sampling_mode == "UNALIGN_CORNERS":
        points = (steps + 0.5) * have / want - 0.5
    else:
        raise ValueError(f"sampling mode {sampling_mode!r}")
    return points.clamp(0, have - 1)


def read_between(x: Tensor, dim: int, points: Tensor) -> Tensor:
    """Interpolate linearly along one dimension."""
    low = points.floor().long()
    high = (low + 1).clamp(max=x.shape[dim] - 1)
    share = (points - low).float().reshape(-1, *[1] * (x.dim() - dim % x.dim() - 1))
    return x.index_select(dim, low) * (1 - share) + x.index_select(dim, high) * share


def resize_bilinear(x: Tensor, target_size_height: Int, target_size_width: Int, sampling_mode: str) -> Tensor:
    for dim, want in ((-2, int(target_size_height)), (-1, int(target_size_width))):
        x = read_between(x, dim, list_points(x.shape[dim], want, sampling_mode))
    return x


def resize_nearest_neighbor(x: Tensor, target_size_height: Int, target_size_width: Int) -> Tensor:
    for dim, want in ((-2, int(target_size_height)), (-1, int(target_size_width))):
        x = x.index_select(dim, torch.arange(want) * x.shape[dim] // want)
    return x


def upsample_bilinear(
    x: Tensor,
    scale_factor_height: Tensor,
    scale_factor_width: Tensor,
    align_corners: Bool,
    half_pixel_centers: Bool | None = None,
) -> Tensor:
    """Resize by scales, which give the size alone.

    Points are spread by the sizes (the notes of iOS15 upsample_bilinear).
    """
    centred = not align_corners if half_pixel_centers is None else bool(half_pixel_centers)
    mode = "STRICT_ALIGN_CORNERS" if align_corners else "UNALIGN_CORNERS" if centred else "DEFAULT"
    return resize_bilinear(x, scale(x, -2, scale_factor_height), scale(x, -1, scale_factor_width), mode)


def upsample_nearest_neighbor(x: Tensor, scale_factor_height: Tensor, scale_factor_width: Tensor) -> Tensor:
    return resize_nearest_neighbor(x, scale(x, -2, scale_factor_height), scale(x, -1, scale_factor_width))


def scale(x: Tensor, dim: int, factor: Tensor) -> int:
    return int(float(factor) * x.shape[dim])


def resize(x: Tensor, shape: Tensor, resized_dims: Int, interpolation_mode: str, sampling_mode: str) -> Tensor:
    if interpolation_mode != "LINEAR":
        raise ValueError(f"resize in mode {interpolation_mode}, whose rounding is not documented")
    count = int(resized_dims)
    for dim, want in zip(range(-count, 0), ints(shape)[-count:], strict=True):
        x = read_between(x, dim, list_points(x.shape[dim], want or x.shape[dim], sampling_mode))
    return x


# ---- sampling at coordinates -----------------------------------------------------------------------------------------


def resample(
    x: Tensor,
    coordinates: Tensor,
    sampling_mode: str,
    padding_mode: str,
    padding_value: Float,
    coordinates_mode: str,
    align_corners: Bool,
) -> Tensor:
    sizes = torch.tensor([x.shape[-1], x.shape[-2]])
    aligned = bool(align_corners) or coordinates_mode == "unnormalized"
    grid = coordinates.float()
    if coordinates_mode == "unnormalized":
        grid = 2 * grid / (sizes - 1).clamp(min=1) - 1
    elif coordinates_mode == "normalized_zero_to_one":
        grid = 2 * grid - 1
    elif coordinates_mode != "normalized_minus_one_to_one":
        raise ValueError(f"coordinates mode {coordinates_mode!r}")
    if padding_mode in ("reflection", "symmetric") and (padding_mode == "reflection") != aligned:
        raise ValueError(f"padding mode {padding_mode!r} with align_corners={bool(align_corners)}")
    padding = {"constant": "zeros", "border": "border", "reflection": "reflection", "symmetric": "reflection"}
    outer = float(padding_value) if padding_mode == "constant" else 0.0
    return F.grid_sample(x - outer, grid, sampling_mode, padding[padding_mode], aligned) + outer


def affine(
    x: Tensor,
    transform_matrix: Tensor,
    output_height: Int,
    output_width: Int,
    sampling_mode: str,
    padding_mode: str,
    padding_value: Float,
    coordinates_mode: str,
    align_corners: Bool,
) -> Tensor:
    size = [x.shape[0], x.shape[1], int(output_height), int(output_width)]
    theta = transform_matrix.reshape(-1, 2, 3).expand(x.shape[0], 2, 3)
    grid = F.affine_grid(theta, size, align_corners=bool(align_corners))
    return resample(x, grid, sampling_mode, padding_mode, padding_value, coordinates_mode, align_corners)
