"""What a transformers image processor does to a picture, as a Preprocessing.

Each class has rules of its own (ConvNeXt's crop_pct below 384 px, LeViT's 256/224, MobileViT's BGR, EfficientNet's
second division), so it is not read but measured: two pictures of one colour show scale, mean, std and the order of the
channels, a picture of two ramps shows from where each pixel of the output comes.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bigvit_edge.errors import UserError, describe_error
from bigvit_edge.models.hf_models import Folder, explain_reading, import_transformers, silence_transformers
from bigvit_edge.models.transforms import INTERPOLATIONS
from bigvit_edge.models.zoo import HALF
from bigvit_edge.preprocessing import CENTER, DOWN, HALF_TO_EVEN, SQUARE, SQUASH, Preprocessing, Triple

PROCESSOR = "preprocessor_config.json"
DEFAULT_SIZE = 224  # pixels, where neither processor nor config says
WIDTH, HEIGHT = 800, 600  # of the pictures shown to a processor
CLOSE = 0.02  # of two ratios that are the same but for rounding
RESAMPLINGS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers
Pixels = NDArray[np.float64]


def read_processor(folder: Folder, image_size: int | None) -> tuple[Preprocessing, tuple[str, ...]]:
    """Read the transform of the folder's preprocessor_config.json.

    Notes say what was assumed or cannot be carried. image_size: pixels of a side, in place of its own; what it resizes
    to grows in proportion. UserError on a processor that cannot be read, or does to colours what is no scale, mean and
    std.
    """
    own_size = image_size or read_own_size(folder.config)
    processor = _find_processor(folder)
    if processor is None:
        note = f"no preprocessor_config.json: image_size {own_size}, mean and std {HALF[0]} are assumed"
        return Preprocessing(own_size, HALF, HALF), (note,)
    offset, gain, color = _read_colors(processor, folder.source)
    name = RESAMPLINGS.get(int(processor.resample), "") if processor.resample is not None else "bilinear"
    notes = [] if name else ["its image processor's interpolation cannot be carried; bilinear is taken"]
    if getattr(processor, "auto_map", None):
        notes.append(f"its image processor is code of its own, which was not run; {type(processor).__name__} is taken")
    resize = INTERPOLATIONS[name or "bilinear"]
    values = (_run(processor, _draw_ramps(), folder.source) - offset[:, None, None]) / gain[:, None, None]
    found = _find_geometry(values[0 if color == "RGB" else 2], values[1])
    if found is None:
        notes.append("how its image processor cuts pictures cannot be carried; the largest centre square is taken")
    crop, resize_to, size = found or (SQUARE, None, own_size)
    if image_size is not None and resize_to is not None:
        resize_to, size = round(resize_to * image_size / size), image_size
    try:
        mean, std = _to_triple(-offset / gain / 255), _to_triple(1 / gain / 255)
        rounding = DOWN if found else HALF_TO_EVEN
        how = Preprocessing(
            size, mean, std, color=color, crop=crop, resize=resize, resize_to=resize_to, crop_rounding=rounding
        )
    except ValueError as e:
        raise UserError(f"the image processor of {folder.source} says {e}", "a transform of pictures") from e
    return how, tuple(notes)


def read_own_size(config: Any) -> int:
    """Read the pixels of a side from the model's config, or 224.

    UserError if it is not square.
    """
    size = getattr(config, "image_size", None) or DEFAULT_SIZE
    sides = set(size) if isinstance(size, list | tuple) else {size}
    if len(sides) > 1:
        raise UserError(f"its config.json says image_size {size}", "square images")
    return int(sides.pop())


def _find_processor(folder: Folder) -> Any:
    """The processor; None if the folder has none."""
    try:
        with silence_transformers():
            return import_transformers().AutoImageProcessor.from_pretrained(
                folder.where, backend="pil", config=folder.config, **folder.options
            )
    except Exception as e:
        if isinstance(e, OSError) and _lacks_processor(folder):
            return None
        raise explain_reading(folder, e) from e


def _lacks_processor(folder: Folder) -> bool:
    """Whether there is surely none; transformers says so of a hub that it could not ask, too."""
    if folder.local:
        return not (Path(folder.where) / PROCESSOR).exists()
    hub = import_module("huggingface_hub")
    try:
        absent = hub.try_to_load_from_cache(folder.where, PROCESSOR) is hub._CACHED_NO_EXIST
        return absent or not hub.file_exists(folder.where, PROCESSOR)
    except Exception:  # of the network
        return False


def _run(processor: Any, picture: Image.Image, source: str) -> Pixels:
    """What the processor makes of a picture: [3, H, W]. UserError if that is no picture."""
    try:
        with silence_transformers():
            pixels = np.asarray(processor(picture, return_tensors="np")["pixel_values"][0], np.float64)
    except Exception as e:
        met = f"the image processor of {source} fails on a picture of {picture.size} ({describe_error(e)})"
        raise UserError(met, "pixel_values", "check preprocessor_config.json") from e
    if pixels.ndim != 3 or len(pixels) != 3:
        raise UserError(f"the image processor of {source} makes {list(pixels.shape)} of a picture", "[3, S, S]")
    return pixels


def _read_colors(processor: Any, source: str) -> tuple[Pixels, Pixels, str]:
    """offset and gain [3] of an output channel, offset + gain * value in 0..255, and the order of the channels."""
    seen = []
    for color in ("black", "white", "red"):
        pixels = _run(processor, Image.new("RGB", (WIDTH, HEIGHT), color), source)
        seen.append(pixels[:, pixels.shape[1] // 2, pixels.shape[2] // 2])
    black, white, red = seen
    gain = (white - black) / 255
    for color, channel in (("RGB", 0), ("BGR", 2)):
        if (gain > 0).all() and np.allclose(red - black, 255 * gain * (np.arange(3) == channel), atol=1e-4):
            return black, gain, color
    met = f"the image processor of {source} does more to colours than scale, mean and std"
    raise UserError(met, "these alone", "write that part into a module of your own: package.module:build")


def _draw_ramps() -> Image.Image:
    """Red grows from left to right, green from top to bottom."""
    across, down = (np.linspace(0, 255, n).round() for n in (WIDTH, HEIGHT))
    red, green = np.broadcast_arrays(across[None], down[:, None])
    return Image.fromarray(np.stack([red, green, np.zeros_like(red)], 2).astype(np.uint8))


def _find_geometry(across: Pixels, down: Pixels) -> tuple[str, int, int] | None:
    """crop, resize_to and size, of what became of the two ramps [H, W]; None if it is none of ours."""
    size = len(across)
    width, height = _measure_side(across.mean(0), WIDTH), _measure_side(down.mean(1), HEIGHT)
    if across.shape != (size, size) or width is None or height is None:
        return None
    if abs(width / height - 1) < CLOSE:
        crop, resize_to = SQUASH, round((width + height) / 2)
    elif abs(width / height / (WIDTH / HEIGHT) - 1) < CLOSE:
        crop, resize_to = CENTER, round((width * HEIGHT / WIDTH + height) / 2)
    else:
        return None
    return (crop, resize_to, size) if resize_to >= size else None


def _measure_side(ramp: Pixels, pixels: int) -> float | None:
    """Pixels that a side of so many was resized to before the middle was cut out; None if this is no ramp's middle."""
    inner = np.arange(len(ramp))[len(ramp) // 8 : -(len(ramp) // 8) or None]
    slope, start = np.polyfit(inner, ramp[inner], 1)
    middle = start + slope * (len(ramp) - 1) / 2
    straight = np.abs(start + slope * inner - ramp[inner]).max() < 1 + slope
    if slope <= 0 or not straight or abs(middle - 127.5) > 1 + slope:
        return None
    return float(255 / slope * pixels / (pixels - 1))


def _to_triple(values: Pixels) -> Triple:
    """Rounded to what single precision can tell: 0.485, not 0.48500001; and 0, not -1e-9."""
    first, second, third = (float(f"{round(float(v), 7) + 0.0:.6g}") for v in values)
    return first, second, third
