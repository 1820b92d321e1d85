"""Pictures as models take them."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from bigvit_edge.artifact import Array, Preprocessing
from bigvit_edge.errors import UserError


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
    side = min(rgb.size)
    left, top = (rgb.width - side) // 2, (rgb.height - side) // 2
    square = rgb.resize((how.size, how.size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
    pixels = np.asarray(square, dtype=np.float32) * np.float32(how.scale)  # [S, S, 3]
    normal = (pixels - np.array(how.mean, np.float32)) / np.array(how.std, np.float32)
    return np.ascontiguousarray(normal.transpose(2, 0, 1)[None])


def _to_rgb(picture: Image.Image) -> Image.Image:
    """Pillow's own conversion clips sixteen-bit gray to white."""
    if picture.mode.startswith("I"):
        picture = Image.fromarray((np.asarray(picture, np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    return picture.convert("RGB")
