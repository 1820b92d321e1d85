"""Pictures as models take them."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from bigvit_edge.artifact import Array
from bigvit_edge.errors import UserError
from bigvit_edge.preprocessing import BORDER, CENTER, RESIZES, SQUARE, SQUASH, Preprocessing

RESAMPLINGS = dict(
    zip(
        RESIZES,
        (Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS),
        strict=True,
    )
)
MOST_RESIZED = 2**26  # pixels of a picture after the resize, before the crop


def read_image(path: Path, how: Preprocessing) -> Array:
    """A picture prepared for the model: [1, 3, S, S]. UserError if it is missing or no picture."""
    if not path.is_file():
        raise UserError(f"no file {path}", "a picture", "check the path")
    try:
        with Image.open(path) as picture:
            rgb = _to_rgb(ImageOps.exif_transpose(picture))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as e:
        raise UserError(
            f"{path} cannot be read as a picture ({type(e).__name__})", "a PNG, JPEG or other picture", "check it"
        ) from e
    return normalize(np.asarray(fit(rgb, how), dtype=np.float32).transpose(2, 0, 1)[None], how)


def normalize(images: Array, how: Preprocessing) -> Array:
    """Bring RGB values 0..255 [n, 3, S, S] to the range and channel order that the model takes."""
    if how.color == "BGR":
        images = images[:, ::-1]
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (how.mean, how.std))
    return np.ascontiguousarray((images * np.float32(how.scale) - mean) / std)


def fit(rgb: Image.Image, how: Preprocessing) -> Image.Image:
    """Resize and crop an RGB picture to size x size."""
    method, size = RESAMPLINGS[how.resize], how.size
    if how.crop == SQUARE:
        side = min(rgb.size)
        left, top = ((length - side) // 2 for length in rgb.size)
        return rgb.resize((size, size), method, box=(left, top, left + side, top + side))
    rgb = _shorten(rgb, how)
    whole = rgb.resize(_measure(rgb.size, how), method)
    fill = [round(m / how.scale) if how.crop == BORDER else 0 for m in how.mean]
    canvas = Image.new("RGB", (size, size), tuple(fill if how.color == "RGB" else fill[::-1]))
    # Where one pixel more is cut than added is as in torchvision.
    x, y = ((size - n) // 2 if n < size else -round((n - size) / 2) for n in whole.size)
    canvas.paste(whole, (x, y))
    return canvas


def _shorten(rgb: Image.Image, how: Preprocessing) -> Image.Image:
    """Cut the ends off a picture so thin that, resized, most of it would be cut away and the memory not suffice."""
    width, height = _measure(rgb.size, how)
    if width * height <= MOST_RESIZED:
        return rgb
    share = MOST_RESIZED / (width * height)
    cut_x, cut_y = (int(n * (1 - share) / 2) if n == max(rgb.size) else 0 for n in rgb.size)
    return rgb.crop((cut_x, cut_y, rgb.width - cut_x, rgb.height - cut_y))


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


def _to_rgb(picture: Image.Image) -> Image.Image:
    """Pillow's own conversion clips sixteen-bit gray to white."""
    if picture.mode.startswith("I"):
        picture = Image.fromarray((np.asarray(picture, np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    return picture.convert("RGB")
