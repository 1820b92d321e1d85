"""Channels of any kind as sRGB."""

from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms

NEAR = 3  # levels: a profile whose colours differ by no more is sRGB by another name
PLAIN_CMYK = "its CMYK colours have no profile of their own: converted by the plain formula"
FAINT = 32  # levels between the darkest and the brightest of a channel
APPLICABLE = {("L", "L"), ("L", "RGB"), ("RGB", "RGB"), ("CMYK", "CMYK")}
SPACES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}


def convert_to_srgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, tuple[str, ...]]:
    """Convert L, RGB, La, RGBa, CMYK or LAB to RGB; note how."""
    if image.mode in ("La", "RGBa"):
        opaque, ground = _lay_on_ground(image)
        rgb, notes = apply_profile(opaque, profile)
        return rgb, (f"its transparent parts are laid on {ground}", *notes)
    return apply_profile(image, profile)


def _lay_on_ground(image: Image.Image) -> tuple[Image.Image, str]:
    """Premultiplied colours and alpha [.., C + 1] -> colours [.., C] on white, as viewers show them; on black where
    white would hide what there is, such as white ink."""
    pixels = np.asarray(image, np.int16)
    on_black, alpha = pixels[..., :-1], pixels[..., -1:]
    on_white = on_black + (255 - alpha)
    hidden = np.ptp(on_white, (0, 1)).max() < FAINT < np.ptp(on_black, (0, 1)).max()
    opaque = (on_black if hidden else on_white).clip(0, 255).astype(np.uint8)
    return Image.fromarray(opaque[..., 0] if image.mode == "La" else opaque), "black" if hidden else "white"


def apply_profile(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, tuple[str, ...]]:
    """Convert L, RGB, CMYK or LAB as a profile says; note how."""
    if profile is None or image.mode == "LAB":
        return image.convert("RGB"), ()
    try:
        name, transform = _build_transform(profile)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image.convert("RGB"), ("its colour profile is damaged, or of a kind that is not known: not applied",)
    if transform is None or (image.mode, transform.input_mode) not in APPLICABLE:
        return image.convert("RGB"), (PLAIN_CMYK,) if image.mode == "CMYK" else ()
    converted = ImageCms.applyTransform(image.convert(transform.input_mode), transform)
    assert converted is not None  # it is not made in place
    return converted, (f"its colours are converted from {name} to sRGB",)


@lru_cache(maxsize=16)
def _build_transform(data: bytes) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    """A profile's name, and the transform from it to sRGB; None if that changes nothing. ValueError if its colours are
    none of ours."""
    profile = ImageCms.ImageCmsProfile(BytesIO(data))
    mode = SPACES.get(profile.profile.xcolor_space)
    if mode is None:
        raise ValueError(profile.profile.xcolor_space)
    transform = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB")
    name = " ".join(ImageCms.getProfileDescription(profile).split())[:60] or "its profile"
    if mode == "CMYK":
        return name, transform
    steps = np.arange(0, 256, 51, dtype=np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(6, 36, 3)
    before = Image.fromarray(cube).convert(mode)
    after = ImageCms.applyTransform(before, transform)
    assert after is not None
    off = np.abs(np.asarray(after, np.int16) - np.asarray(before.convert("RGB"), np.int16)).max()
    return name, transform if off > NEAR else None
