"""From a picture to a model's input: what has to be told, whoever told it."""

import math
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

MOST_PIXELS = 8192  # of a side
SQUARE, CENTER, SQUASH, BORDER = "largest centre square", "center", "squash", "border"
CROPS = (SQUARE, CENTER, SQUASH, BORDER)
BILINEAR = "bilinear, antialiased"
RESIZES = ("nearest", BILINEAR, "bicubic, antialiased", "lanczos, antialiased")
ROUNDINGS = (HALF_TO_EVEN, DOWN) = ("half to even", "down")
COLORS = ("RGB", "BGR")
DTYPES = FLOAT32, UINT8 = "float32", "uint8"
LAYOUTS = NCHW, NHWC = "NCHW", "NHWC"

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Preprocessing:
    """The way from a picture to the input.

    That is [1, 3, size, size] or [1, size, size, 3], as layout says. In this order: turned upright by its EXIF
    orientation; resized and cropped (below); its channels, 0..255, in the order of `color`; times scale, minus mean,
    over std. dtype: of the input. 'uint8': it is the pixels, RGB, as they are after the crop, and the file itself does
    the rest, color, scale, mean and std. Only such a one may be NHWC.

    crop: 'largest centre square', cut out and resized to size; or timm's crop_mode: the picture is resized so that its
    shorter side ('center'), both sides ('squash') or its longer side ('border') are resize_to pixels (size, if None),
    and the middle of that, size x size, is cut out; what it lacks is black, in 'border' mean's colour. resize: the
    interpolation, as Pillow does it. crop_rounding: of the middle's first pixel, 'half to even' (torchvision, timm) or
    'down' (transformers).

    ValueError on what cannot be: words of no meaning here, numbers not finite, a mean or std that no picture has on
    that scale.
    """

    size: int
    mean: Triple
    std: Triple
    color: str = "RGB"
    crop: str = SQUARE
    resize: str = BILINEAR
    layout: str = NCHW
    scale: float = 1 / 255
    resize_to: int | None = None
    crop_rounding: str = HALF_TO_EVEN
    dtype: str = FLOAT32

    __pydantic_config__: ClassVar = {"extra": "forbid"}  # an instruction that we do not know cannot be obeyed

    def __post_init__(self) -> None:
        for name, known in (
            ("color", COLORS),
            ("crop", CROPS),
            ("resize", RESIZES),
            ("layout", LAYOUTS if self.dtype == UINT8 else (NCHW,)),
            ("dtype", DTYPES),
            ("crop_rounding", ROUNDINGS),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} {getattr(self, name)!r}, where one of {', '.join(known)} is expected")
        if not 1 <= self.size <= MOST_PIXELS:
            raise ValueError(f"size {self.size}, where 1 to {MOST_PIXELS} is expected")
        if self.resize_to is not None and not (self.crop != SQUARE and 1 <= self.resize_to <= MOST_PIXELS):
            raise ValueError(f"resize_to {self.resize_to} for crop {self.crop!r} and size {self.size}")
        white = 255 * self.scale
        if not (math.isfinite(white) and white > 0):
            raise ValueError(f"scale {self.scale}, where a number above 0 is expected")
        if not all(0 <= value <= white * 1.001 for value in self.mean):
            raise ValueError(f"mean {self.mean}, where numbers from 0 (black) to {white:g} (white) are expected")
        if not all(0 < value <= white * 1.001 for value in self.std):
            raise ValueError(f"std {self.std}, where numbers above 0, at most {white:g} (white), are expected")

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Tell the input's shape, of one image."""
        return (1, self.size, self.size, 3) if self.layout == NHWC else (1, 3, self.size, self.size)

    def spell(self) -> dict[str, Any]:
        """Spell it in JSON's types, as files hold it.

        Without dtype where that is float32: libraries of ours from before there was another refuse what they do not
        know.
        """
        return {key: value for key, value in asdict(self).items() if (key, value) != ("dtype", FLOAT32)}


def infer_scale(mean: Triple, std: Triple) -> float:
    """Find the scale that a mean and std were taken on.

    1/255 if pictures are 0..1 there, 1 if they are 0..255. ValueError if neither is sure.
    """
    if all(0 <= m <= 1 for m in mean) and all(0 < s <= 1 for s in std):
        return 1 / 255
    # From 16 on nobody means 0..1; a std below 1 is not of 0..255, nor is a mean between 0 and 1.
    if all(m == 0 or 1 <= m <= 255 for m in mean) and all(1 <= s <= 255 for s in std) and max(*mean, *std) > 16:
        return 1.0
    raise ValueError(f"mean {mean} and std {std} are neither of pictures in 0..1 nor of pictures in 0..255")
