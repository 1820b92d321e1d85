"""Cluttered digits: real handwritten digits at random scale and place on photographs, among distractor strokes.

The digits are scikit-learn's 1,797 (UCI Optical Recognition of Handwritten Digits, 8x8), the photographs those bundled
with scikit-learn and scikit-image: nothing is downloaded. A digit covers few patches, so which tokens a router picks
can be seen and measured. Training and held-out images share no digit instance and no photograph. Everything is drawn in
batches from one seed: equal seeds, equal images.
"""

import importlib.resources
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample

from bigvit_edge.errors import UserError

SIZE = 64  # pixels
PATCH = 8
STROKES = 4  # distractors in each image
HELD_OUT_DIGITS = 360  # of 1,797
HELD_OUT_SEED = 2_000_000_000  # training steps seed with small numbers
PHOTOS = {
    "train": (
        "flower.jpg", "astronaut.png", "chelsea.png", "hubble_deep_field.jpg", "gravel.png", "grass.png",
        "motorcycle_left.png", "rocket.jpg", "retina.jpg", "ihc.png",
    ),
    "held_out": ("china.jpg", "coffee.png", "brick.png", "camera.png", "coins.png"),
}  # fmt: skip

SplitName = Literal["train", "held_out"]


@dataclass(frozen=True)
class Batch:
    """Images of cluttered digits, their labels, and where the digit is.

    images float [B, 3, 64, 64] in 0..1, whole 255ths; labels int64 [B]; ink bool [B, 64]: patches that hold a part of
    the digit.
    """

    images: Tensor
    labels: Tensor
    ink: Tensor


@dataclass(frozen=True)
class Split:
    """The digits and background photos that a split's images are made of.

    digits float [D, 1, 8, 8] in 0..1; labels int64 [D]; photos: float [1, 3, h, w] each, shorter side 160.
    """

    digits: Tensor
    labels: Tensor
    photos: tuple[Tensor, ...]


@cache
def load_split(name: SplitName) -> Split:
    """Load the digits and photos of one split.

    UserError if scikit-learn or scikit-image is not installed.
    """
    photos = tuple(_read_photo(find_photo(photo)) for photo in PHOTOS[name])
    from sklearn.datasets import load_digits

    digits = load_digits()
    shuffled = np.random.default_rng(0).permutation(len(digits.target))
    mine = shuffled[:HELD_OUT_DIGITS] if name == "held_out" else shuffled[HELD_OUT_DIGITS:]
    return Split(
        torch.from_numpy(digits.images[mine]).float().unsqueeze(1) / 16,
        torch.from_numpy(digits.target[mine]).long(),
        photos,
    )


def find_photo(name: str) -> Path:
    """Find a photograph of the demo's data packages.

    UserError if scikit-learn or scikit-image is not installed.
    """
    try:
        roots = [Path(str(importlib.resources.files(m))) for m in ("sklearn.datasets.images", "skimage.data")]
    except ModuleNotFoundError as e:
        raise UserError(
            f"{e.name} is not installed", "the demo's data packages", "pip install 'bigvit-edge[demo]'"
        ) from e
    return next(root / name for root in roots if (root / name).exists())


def _read_photo(path: Path) -> Tensor:
    with Image.open(path) as photo:
        scale = 160 / min(photo.size)
        small = photo.convert("RGB").resize(
            (round(photo.width * scale), round(photo.height * scale)), Image.Resampling.LANCZOS
        )
    return torch.from_numpy(np.array(small)).permute(2, 0, 1).float().unsqueeze(0) / 255


def make_batch(split: SplitName, count: int, seed: int, vary: bool = False) -> Batch:
    """Make `count` fresh images of a split, drawn from `seed` alone.

    vary: backgrounds altered, see _vary.
    """
    material, g = load_split(split), torch.Generator().manual_seed(seed)
    background = _draw_background(material.photos, count, g)  # [B, 3, S, S]
    if vary:
        background = _vary(background, _draw_background(material.photos, count, g), g)
    which = torch.randint(len(material.labels), (count,), generator=g)
    digit = _draw_digit(material.digits[which], g)  # [B, 1, S, S]

    ink = _contrasting_color(background, digit, g)  # [B, 3, 1, 1]
    images = background
    for _ in range(STROKES):
        same = torch.rand(count, 1, 1, 1, generator=g) < 0.5  # half the strokes are written with the digit's own ink
        stroke = _draw_stroke(count, g)
        images = torch.lerp(images, torch.where(same, ink, _contrasting_color(background, stroke, g)), stroke)
    images = torch.lerp(images, ink.expand_as(images), digit)
    images = images + 0.03 * torch.randn(images.shape, generator=g)
    covered = avg_pool2d(digit, PATCH).flatten(1) > 0.06  # about four pixels of 64
    return Batch((images.clamp(0, 1) * 255).round() / 255, material.labels[which], covered)


@cache
def held_out() -> Batch:
    """Make the 1,000 held-out images.

    Every accuracy and parity figure refers to them.
    """
    return make_batch("held_out", 1000, HELD_OUT_SEED)


def _uniform(g: torch.Generator, count: int, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=g)


def _draw_background(photos: tuple[Tensor, ...], count: int, g: torch.Generator) -> Tensor:
    """Square windows of 40 to 150 photograph pixels, mirrored at random, contrast varied. [B, 3, S, S]"""
    which = torch.randint(len(photos), (count,), generator=g)
    window, left, top = _uniform(g, count, 40, 150), torch.rand(count, generator=g), torch.rand(count, generator=g)
    mirror = torch.where(torch.rand(count, generator=g) < 0.5, -1.0, 1.0)
    out = torch.empty(count, 3, SIZE, SIZE)
    for i, photo in enumerate(photos):
        mine = (which == i).nonzero().flatten()
        if len(mine):
            height, width = photo.shape[2:]
            sx, sy = window[mine] / width, window[mine] / height
            zero = torch.zeros_like(sx)
            tx, ty = (1 - sx) * (2 * left[mine] - 1), (1 - sy) * (2 * top[mine] - 1)
            theta = torch.stack([sx * mirror[mine], zero, tx, zero, sy, ty], 1).reshape(-1, 2, 3)
            grid = affine_grid(theta, [len(mine), 3, SIZE, SIZE], align_corners=False)
            out[mine] = grid_sample(
                photo.expand(len(mine), -1, -1, -1), grid, padding_mode="border", align_corners=False
            )
    gain, shift = _uniform(g, count, 0.6, 1.1), _uniform(g, count, -0.12, 0.12)
    return ((out - 0.5) * gain.view(-1, 1, 1, 1) + 0.5 + shift.view(-1, 1, 1, 1)).clamp(0, 1)


def _vary(background: Tensor, other: Tensor, g: torch.Generator) -> Tensor:
    """Ten photographs must stand for all that training does not see: each is turned on its side, its channels exchanged
    and inverted, and blended with another, at random. [B, 3, S, S]
    """
    count = len(background)
    channels = torch.rand(count, 3, generator=g).argsort(1).view(-1, 3, 1, 1).expand_as(background)
    inverted, turned, blended = torch.rand(3, count, 1, 1, 1, generator=g) < 0.5
    varied = background.gather(1, channels)
    varied = torch.where(inverted, 1 - varied, varied)
    varied = torch.where(turned, varied.transpose(2, 3), varied)
    share = _uniform(g, count, 0, 0.6).view(-1, 1, 1, 1)
    return torch.where(blended, torch.lerp(varied, other, share), varied)


def _draw_digit(digits: Tensor, g: torch.Generator) -> Tensor:
    """8x8 digits -> opacity [B, 1, S, S]: 22 to 44 pixels high, turned up to 12 degrees, sheared, anywhere inside the
    image.
    """
    count = len(digits)
    size = _uniform(g, count, 22, 44)
    angle, shear = _uniform(g, count, -0.21, 0.21), _uniform(g, count, -0.2, 0.2)
    aspect = _uniform(g, count, 0.85, 1.15)
    scale = SIZE / size
    room = 1 - size / SIZE  # how far the centre may lie from the image's
    cx, cy = room * _uniform(g, count, -1, 1), room * _uniform(g, count, -1, 1)
    a, b = scale * aspect * torch.cos(angle), scale * (shear - torch.sin(angle))
    c, d = scale * torch.sin(angle), scale * torch.cos(angle)
    theta = torch.stack([a, b, -(a * cx + b * cy), c, d, -(c * cx + d * cy)], 1).reshape(-1, 2, 3)
    grid = affine_grid(theta, [count, 1, SIZE, SIZE], align_corners=False)
    gray = grid_sample(digits, grid, mode="bicubic", padding_mode="zeros", align_corners=False)
    return ((gray - 0.38) / 0.3).clamp(0, 1)


def _draw_stroke(count: int, g: torch.Generator) -> Tensor:
    """Arcs of circles, 6 to 26 pixels long and 1.5 to 4 wide -> opacity [B, 1, S, S]."""
    radius, length, width = _uniform(g, count, 5, 40), _uniform(g, count, 6, 26), _uniform(g, count, 1.5, 4)
    x0, y0, turn = _uniform(g, count, 0, SIZE), _uniform(g, count, 0, SIZE), _uniform(g, count, -np.pi, np.pi)
    shape = (-1, 1, 1)
    pixel = torch.arange(SIZE) + 0.5
    # centre of the circle such that the arc's middle lies at (x0, y0)
    dx = pixel.view(1, 1, -1) - (x0 - radius * torch.cos(turn)).view(shape)
    dy = pixel.view(1, -1, 1) - (y0 - radius * torch.sin(turn)).view(shape)
    away = (torch.hypot(dx, dy) - radius.view(shape)).abs()
    off = torch.atan2(dy, dx) - turn.view(shape)
    along = torch.atan2(torch.sin(off), torch.cos(off)).abs() * radius.view(shape)
    edge = torch.maximum(away - width.view(shape) / 2, along - length.view(shape) / 2)
    return (0.5 - edge).clamp(0, 1).unsqueeze(1)


def _contrasting_color(background: Tensor, shape: Tensor, g: torch.Generator) -> Tensor:
    """A colour 0.3 to 0.6 brighter or darker than what lies under the shape, with a tint. [B, 3, 1, 1]"""
    count = len(background)
    under = (background.mean(1, keepdim=True) * shape).sum((1, 2, 3)) / (shape.sum((1, 2, 3)) + 1e-3)
    sign = torch.where(under + 0.1 * torch.randn(count, generator=g) > 0.5, -1.0, 1.0)
    gray = under + sign * _uniform(g, count, 0.3, 0.6)
    return (gray.view(-1, 1) + 0.12 * torch.randn(count, 3, generator=g)).clamp(0, 1).view(-1, 3, 1, 1)
