"""From a picture's file to 8-bit channels: which files are opened, and what their numbers are taken for."""

import logging
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from bigvit_edge.console import silenced
from bigvit_edge.errors import UserError
from bigvit_edge.runtime.colors import PLAIN_CMYK

# Decoders that read a picture and do nothing else; others run programs (EPS) or libraries of unknown state.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "TGA", "ICO", "DDS")
MOST_MEGAPIXELS = 100
TOO_LARGE = (f"{MOST_MEGAPIXELS} at the most", "make it smaller")
EXACT_MEGAPIXELS = 50  # above, a JPEG is decoded at a fraction of its size, and others are resized in two steps
EXACT_JPEG2000_MEGAPIXELS = 8  # whose decoder is slow: the same
BITS = (8, 10, 12, 14, 16)  # that integers may have in a wider container
DIM = 64  # of 255: that no pixel reaches of 14 bits or fewer in 16
HDR_SHARE = 0.01  # of the values that may be brighter than white
ORIENTATION = 0x0112  # EXIF's
PHOTOMETRIC = 262  # TIFF's
METHODS = Image.Transpose
TURNS = (
    None, METHODS.FLIP_LEFT_RIGHT, METHODS.ROTATE_180, METHODS.FLIP_TOP_BOTTOM, METHODS.TRANSPOSE, METHODS.ROTATE_270,
    METHODS.TRANSVERSE, METHODS.ROTATE_90,
)  # fmt: skip

logging.getLogger("PIL").addHandler(logging.NullHandler())  # of a damaged file it writes to the terminal

Say = Callable[[str], object]


@dataclass(frozen=True)
class Decoded:
    """An upright picture of 8 bits a channel.

    L, RGB, La, RGBa (colours times alpha), CMYK or LAB. profile: its ICC profile, None if it has none; notes: what was
    assumed.
    """

    image: Image.Image
    profile: bytes | None
    notes: tuple[str, ...]


def decode(path: Path, side: int) -> Decoded:
    """Decode a picture's file.

    side: pixels that a side has to have at least, where a decoder can make less of a very large picture. UserError if
    there is no file, it is in none of FORMATS, damaged, or larger than MOST_MEGAPIXELS (told by its header).
    """
    if not path.is_file():
        what = f"{path} is a folder, a pipe or a device" if path.exists() else f"no file {path}"
        raise UserError(what, "a picture's file", "check the path")
    notes: dict[str, None] = {}  # ordered, each once
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            decoded, profile = _read(path, side, notes.setdefault)
        except UserError as e:
            raise UserError(f"{path}: {e.met}", e.expected, e.do) from e
        except UnidentifiedImageError as e:
            raise UserError(f"{path} cannot be read as a picture (unknown format)", _name_formats(), "check it") from e
        except Image.DecompressionBombError as e:
            raise UserError(f"{path}: far more than {MOST_MEGAPIXELS} megapixels", *TOO_LARGE) from e
        except Exception as e:  # a decoder's on damaged data: of any kind
            met = f"{path} cannot be read as a picture ({type(e).__name__})"
            raise UserError(met, f"an undamaged one; {_name_formats()}", "check it") from e
    for warning in warned:
        if not issubclass(warning.category, Image.DecompressionBombWarning | DeprecationWarning):
            notes.setdefault(f"Pillow says: {' '.join(str(warning.message).split())[:200]}")
    return Decoded(decoded, profile, tuple(notes))


def is_huge(picture: Image.Image) -> bool:
    """Tell whether exactness in the last level costs seconds."""
    return picture.width * picture.height > EXACT_MEGAPIXELS * 1e6


def _read(path: Path, side: int, say: Say) -> tuple[Image.Image, bytes | None]:
    formats = _list_formats()
    with Image.open(path, formats=formats) as picture:
        times = min(picture.size) // side
        large = picture.width * picture.height > EXACT_JPEG2000_MEGAPIXELS * 1e6
        if picture.format != "JPEG2000" or not large or times < 2:
            return _decode(picture, side, say), _find_profile(picture)
        cast("Any", picture).reduce = times.bit_length() - 1  # its finest levels take seconds, and are averaged away
        with suppress(OSError):  # it has fewer levels, or is damaged
            return _decode(picture, side, say), _find_profile(picture)
    with Image.open(path, formats=formats) as picture:
        return _decode(picture, side, say), _find_profile(picture)


def list_endings() -> frozenset[str]:
    """List how the names of files in FORMATS end, as '.jpg'."""
    formats = _list_formats()
    return frozenset(ending for ending, name in Image.registered_extensions().items() if name in formats)


def _list_formats() -> list[str]:
    """Those that this Pillow was built with."""
    if not set(FORMATS) <= Image.OPEN.keys():
        Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _name_formats() -> str:
    return f"one of {', '.join(_list_formats())}"


def _check_size(picture: Image.Image) -> None:
    pixels = picture.width * picture.height
    if pixels > MOST_MEGAPIXELS * 1e6:
        raise UserError(f"{pixels / 1e6:.1f} megapixels", *TOO_LARGE)


def _decode(picture: Any, side: int, say: Say) -> Image.Image:
    _check_size(picture)
    if picture.format == "MPO":
        pass  # a camera's JPEG, its second picture a preview
    elif _has_several(picture):
        say("the file has several pictures (frames or pages): the first is taken")
    if picture.format in ("JPEG", "MPO") and is_huge(picture):
        picture.draft(None, (side, side))
    deep = _is_deep(picture)
    _load(picture)
    _check_size(picture)  # some formats' headers know less than their data
    upright = _turn(_convert(picture, say), picture, say)
    if deep and np.asarray(upright.getextrema())[:3, 1].max() < DIM:
        say("its 16-bit colours use less than a quarter of the range: if they have 14 bits or fewer, it is too dark")
    return upright


def _load(picture: Any) -> None:
    if picture.format != "TIFF":
        picture.load()
        return
    fault = None
    with silenced():  # libtiff writes of damage to file descriptor 2
        try:
            picture.load()
        except Exception as e:
            fault = e
    if fault:
        raise fault


def _has_several(picture: Any) -> bool:
    """False also where what follows the first picture is damaged: it is not used."""
    with suppress(Exception):
        return bool(getattr(picture, "is_animated", False))
    return False


def _is_deep(picture: Any) -> bool:
    """Whether the file has 16 bits for each of several channels, of which Pillow keeps the upper eight."""
    return bool(picture.tile) and len(picture.getbands()) > 2 and ";16" in str(picture.tile[0][3])


def _turn(image: Image.Image, picture: Image.Image, say: Say) -> Image.Image:
    try:
        orientation = picture.getexif().get(ORIENTATION, 1)
    except Exception:  # Pillow's readers raise anything on damaged EXIF data
        say("its EXIF data is damaged: it is taken to be upright")
        return image
    method = TURNS[orientation - 1] if orientation in range(1, 9) else None
    return image if method is None else image.transpose(method)


def _convert(picture: Any, say: Say) -> Image.Image:
    """To one of Decoded's modes."""
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        gray = Image.fromarray(_quantize(np.asarray(picture), say))
        if getattr(picture, "tag_v2", {}).get(PHOTOMETRIC) == 0:  # white is zero, which Pillow forgets where it is wide
            gray = gray.point(lambda value: 255 - value)
        return gray
    if picture.has_transparency_data:
        mode = "LA" if picture.mode in ("1", "L", "LA", "La") else "RGBA"
        return _premultiply(picture if picture.mode == mode else picture.convert(mode), say)
    if picture.mode == "1":
        return picture.convert("L")  # type: ignore[no-any-return]
    if picture.mode in ("L", "RGB", "LAB") or (picture.mode == "CMYK" and _find_profile(picture)):
        return picture  # type: ignore[no-any-return]
    if picture.mode == "CMYK":
        say(PLAIN_CMYK)
    return picture.convert("RGB")  # type: ignore[no-any-return]


def _premultiply(image: Image.Image, say: Say) -> Image.Image:
    opaque = "L" if image.mode == "LA" else "RGB"
    low, high = image.getchannel("A").getextrema()
    if low == 255:
        return image.convert(opaque)
    if high == 0:
        say("it is wholly transparent: its colours are taken as if they were not")
        return image.convert(opaque)
    return image.convert("La" if image.mode == "LA" else "RGBa")


def _quantize(values: NDArray[Any], say: Say) -> NDArray[np.uint8]:
    """Wide numbers [H, W] as 0..255. What is white is inferred from the largest."""
    white = _find_white(values, say)
    out = np.empty(values.shape, np.uint8)
    rows = max(1, 2**22 // values.shape[1])
    for y in range(0, len(values), rows):
        block = values[y : y + rows].clip(0, white).astype(np.float32)
        out[y : y + rows] = np.rint(block * np.float32(255 / white))
    return out


def _find_white(values: NDArray[Any], say: Say) -> float:
    """UserError where none is sure."""
    low, high = float(values.min()), float(values.max())
    expected = "values in 0..1, in 0..255, or of 8 to 16 bits"
    do = "save it as an 8-bit PNG"
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UserError("values that are not finite", expected, do)
    if low < 0:
        raise UserError(f"values from {low:g} to {high:g}", expected, do)
    if values.dtype.kind == "f":
        if high <= 1:
            say("its float values are taken as 0..1")
            return 1.0
        if (values > 1).mean() < HDR_SHARE:
            say("its float values are taken as 0..1; brighter ones, of less than 1 % of the pixels, are white")
            return 1.0
        if 16 < high <= 255:
            say("its float values are taken as 0..255")
            return 255.0
    bits = next((bits for bits in BITS if high < 2**bits), None)
    if bits is None or (values.dtype.kind == "f" and high < 256):
        raise UserError(f"values from {low:g} to {high:g}", expected, do)
    if bits < 16:
        say(f"its values, below {2**bits}, are taken as of {bits} bits")
    return 2.0**bits - 1


def _find_profile(picture: Image.Image) -> bytes | None:
    profile = picture.info.get("icc_profile")
    return profile if isinstance(profile, bytes) and profile else None
