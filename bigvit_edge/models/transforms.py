"""What models of others say of their evaluation transform, as a Preprocessing."""

import math
from typing import Any

from torch import nn

from bigvit_edge.errors import UserError
from bigvit_edge.preprocessing import BILINEAR, BORDER, CENTER, SQUARE, SQUASH, Preprocessing, Triple, infer_scale

# timm's constants, for what a model's configuration leaves open.
TIMM_MEAN, TIMM_STD, TIMM_CROP_PCT = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 0.875
TIMM_CROPS = (CENTER, SQUASH, BORDER)
INTERPOLATIONS = {
    "nearest": "nearest",
    "bilinear": BILINEAR,
    "bicubic": "bicubic, antialiased",
    "lanczos": "lanczos, antialiased",
}


def read_timm(model: nn.Module, source: str, image_size: int | None = None) -> Preprocessing:
    """Read a timm model's pretrained_cfg as timm's resolve_model_data_config does.

    image_size: pixels of a side, in place of the model's own; where that is test_input_size, test_crop_pct holds.
    UserError unless the input is a square RGB image, and on an interpolation or crop that we do not have.
    """
    config: Any = model.pretrained_cfg
    channels, height, width = config.get("input_size") or (3, 224, 224)
    if channels != 3 or height != width:
        raise UserError(f"{source} takes images {[channels, height, width]}", "square ones with three channels")
    size = image_size or height
    crop_pct = config.get("crop_pct")
    if size != height and size == (config.get("test_input_size") or (3, 0, 0))[1]:
        crop_pct = config.get("test_crop_pct") or crop_pct
    how, _ = make_preprocessing(
        source,
        size,
        tuple(config.get("mean") or TIMM_MEAN),
        tuple(config.get("std") or TIMM_STD),
        crop_pct=crop_pct or TIMM_CROP_PCT,
        crop_mode=config.get("crop_mode") or CENTER,
        interpolation=config.get("interpolation") or "bicubic",
    )
    return how


def make_preprocessing(
    source: str,
    size: int,
    mean: Triple,
    std: Triple,
    *,
    crop_pct: float | None = None,
    crop_mode: str | None = None,
    interpolation: str | None = None,
) -> tuple[Preprocessing, tuple[str, ...]]:
    """Make a Preprocessing of timm's words; notes on what was assumed.

    crop_pct: size over the pixels resized to; crop_mode: 'center', 'squash' or 'border'. With neither, the largest
    centre square. UserError on words that we do not have, and on a mean and std of no sure scale.
    """
    do = "say both of pictures in 0..1 (such as 0.485 and 0.229) or both of pictures in 0..255 (123.675 and 58.395)"
    try:
        scale = infer_scale(mean, std)
        do = "correct it"
        if interpolation not in (None, *INTERPOLATIONS):
            raise ValueError(f"interpolation {interpolation!r}, where one of {', '.join(INTERPOLATIONS)} is expected")
        if crop_pct is not None and not 0 < crop_pct <= 2:  # of volo_d5 1.15
            raise ValueError(f"crop_pct {crop_pct}, where the share of a side that is kept, such as 0.875, is expected")
        how = Preprocessing(
            size,
            mean,
            std,
            crop=SQUARE if crop_mode is None and crop_pct is None else crop_mode or CENTER,
            resize=INTERPOLATIONS[interpolation or "bilinear"],
            scale=scale,
            resize_to=None if crop_pct is None else math.floor(size / crop_pct),
        )
    except ValueError as e:
        raise UserError(f"{source} says {e}", "an evaluation transform of pictures", do) from e
    note = f"mean {mean} is of pictures in 0..255: their values are not divided by 255"
    return how, (note,) if scale == 1 else ()
