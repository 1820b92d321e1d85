"""Pillow's images as pixels: upright, in sRGB, of 8 bits a channel."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from bigvit_edge.errors import UserError
from bigvit_edge.runtime.colors import PLAIN_CMYK, apply_profile

PLAIN = ("L", "RGB", "CMYK", "LAB")  # modes that a profile is applied to as they are


def read_image(image: Image.Image) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Read an image's pixels, and note what was assumed or changed.

    Turned as its EXIF orientation says, its colours brought to sRGB where it has a profile: uint8 [height, width, 3],
    or 4 with alpha that is not multiplied in. UserError where it is damaged, or its channels have more than 8 bits.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        do = "save it, and let bigvit_edge.export.image.prepare read the file"
        raise UserError(f"an image of mode {image.mode}", "8 bits a channel", do)
    try:
        upright = ImageOps.exif_transpose(image)
        has_alpha = upright.has_transparency_data
        whole = upright.convert("RGBA") if has_alpha else upright
        opaque = whole if whole.mode in PLAIN else whole.convert("RGB")  # a palette's colours have the profile too
        profile = upright.info.get("icc_profile") or None
        rgb, notes = apply_profile(opaque, profile)
        if opaque.mode == "CMYK" and profile is None:
            notes += (PLAIN_CMYK,)
        pixels = np.asarray(rgb)
        if has_alpha:
            pixels = np.dstack((pixels, np.asarray(whole.getchannel("A"))))
    except Exception as e:  # a decoder's on damaged data: of any kind
        met = f"an image that cannot be read ({type(e).__name__})"
        raise UserError(met, "an undamaged one", "check it") from e
    return pixels, notes
