"""Pictures as models take them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bigvit_edge.artifact import Array, Pixels
from bigvit_edge.export.decoding import decode, is_huge
from bigvit_edge.preprocessing import BORDER, CENTER, DOWN, NHWC, RESIZES, SQUARE, SQUASH, UINT8, Preprocessing
from bigvit_edge.runtime.colors import convert_to_srgb

RESAMPLINGS = dict(
    zip(
        RESIZES,
        (Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS),
        strict=True,
    )
)
MOST_RESIZED = 2**26  # pixels of a picture after the resize, before the crop
FINENESS = 4  # how many times larger than resized a huge picture is decoded, or is after a first step, at least


@dataclass(frozen=True)
class Prepared:
    """A picture as it is resized and cropped for a model.

    pixels [S, S, 3]; notes: what was assumed or changed on the way.
    """

    pixels: Pixels
    notes: tuple[str, ...]


def read_image(path: Path, how: Preprocessing) -> NDArray[Any]:
    """Read a picture as a model or file takes it.

    UserError as in prepare.
    """
    return make_input(prepare(path, how).pixels[None], how)


def prepare(path: Path, how: Preprocessing) -> Prepared:
    """Decode, resize and crop a picture.

    UserError if it is missing, damaged, too large or no picture.
    """
    decoded = decode(path, FINENESS * (how.resize_to or how.size))
    rgb, color_notes = convert_to_srgb(_resize(decoded.image, how), decoded.profile)
    pixels = np.asarray(_place(rgb, how))  # [S, S, 3]
    notes = [*decoded.notes, *color_notes]
    if how.size > 1 and (pixels == pixels[0, 0]).all():
        notes.append("what the model sees of it is all of one colour")
    return Prepared(pixels, tuple(notes))


def make_input(pixels: Pixels, how: Preprocessing) -> NDArray[Any]:
    """Make what a model or file takes of pixels.

    Of [n, S, S, 3], in its type, layout and range.
    """
    if how.layout == NHWC:
        return pixels
    planes = pixels.transpose(0, 3, 1, 2)  # [n, 3, S, S]
    return np.ascontiguousarray(planes) if how.dtype == UINT8 else normalize(planes.astype(np.float32), how)


def normalize(images: Array, how: Preprocessing) -> Array:
    """Bring RGB values to the model's range and channel order.

    The values are [n, 3, S, S] in 0..255.
    """
    if how.color == "BGR":
        images = images[:, ::-1]
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (how.mean, how.std))
    return np.ascontiguousarray((images / np.float32(1 / how.scale) - mean) / std)  # 255ths as torchvision makes them


def _resize(image: Image.Image, how: Preprocessing) -> Image.Image:
    """The whole picture, resized; of the crop 'largest centre square', that square."""
    method, gap = RESAMPLINGS[how.resize], FINENESS if is_huge(image) else None
    if how.crop == SQUARE:
        side = min(image.size)
        left, top = ((length - side) // 2 for length in image.size)
        return image.resize((how.size, how.size), method, (left, top, left + side, top + side), gap)
    image = _shorten(image, how)
    return image.resize(_measure(image.size, how), method, reducing_gap=gap)


def _place(rgb: Image.Image, how: Preprocessing) -> Image.Image:
    """The middle, size x size, of a resized picture, or the picture in the middle of that."""
    fill = [round(m / how.scale) if how.crop == BORDER else 0 for m in how.mean]
    canvas = Image.new("RGB", (how.size, how.size), tuple(fill if how.color == "RGB" else fill[::-1]))
    across, down = (_find_start(n - how.size, how) for n in rgb.size)
    canvas.paste(rgb, (-across, -down))
    return canvas


def _find_start(extra: int, how: Preprocessing) -> int:
    """The first pixel of the middle, where there are so many more than in it; below zero, where there are fewer."""
    if extra <= 0:
        return -(-extra // 2)
    return extra // 2 if how.crop_rounding == DOWN else round(extra / 2)


def _shorten(image: Image.Image, how: Preprocessing) -> Image.Image:
    """Cut the ends off a picture so thin that, resized, most of it would be cut away and the memory not suffice."""
    width, height = _measure(image.size, how)
    if width * height <= MOST_RESIZED:
        return image
    share = MOST_RESIZED / (width * height)
    cut_x, cut_y = (int(n * (1 - share) / 2) if n == max(image.size) else 0 for n in image.size)
    return image.crop((cut_x, cut_y, image.width - cut_x, image.height - cut_y))


def _measure(size: tuple[int, int], how: Preprocessing) -> tuple[int, int]:
    """Size of the whole picture after the resize, rounded as torchvision ('center') and timm ('border') do."""
    target, (width, height) = how.resize_to or how.size, size
    if how.crop == SQUASH:
        return target, target
    if how.crop == CENTER:
        longer = int(target * max(size) / min(size))
        return (target, longer) if width <= height else (longer, target)
    ratio = max(size) / target
    return max(1, round(width / ratio)), max(1, round(height / ratio))
