"""One picture through one exported file: what a person tries first."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from bigvit_edge.artifact import Array, Entry, Preprocessing, read_manifest
from bigvit_edge.errors import UserError, suggest
from bigvit_edge.export.check import verify_file
from bigvit_edge.export.convert import load_backend


@dataclass(frozen=True)
class Guess:
    """A class and its softmax probability in 0..1."""

    label: str
    probability: float


def classify(file: Path, image: Path, top: int = 5) -> list[Guess]:
    """The most probable classes of a picture, best first, by a file of a bundle (its manifest says how to prepare the
    picture).

    UserError if the file is no part of a bundle, was changed since the export, or the picture cannot be read.
    """
    entry = find_entry(file)
    logits = (
        load_backend(entry.format).load(file)(read_image(image, entry.preprocessing))[0].astype(np.float64)
    )  # [classes]
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    best = np.argsort(-probabilities, kind="stable")[:top]
    return [Guess(entry.labels[i] if entry.labels else f"class {i}", float(probabilities[i])) for i in best]


def find_entry(file: Path) -> Entry:
    """The manifest's entry of a model file, its bytes verified."""
    if not file.is_file():
        raise UserError(f"no file {file}", "a model file of a bundle", "see the bundle's manifest.json")
    entries = {entry.file: entry for entry in read_manifest(file.parent).artifacts}
    if file.name not in entries:
        raise UserError(
            f"{file.name} is not in its manifest", f"one of {', '.join(entries)}", suggest(file.name, entries)
        )
    if fault := verify_file(file.parent, entries[file.name]):
        raise UserError(f"{file}: {fault}", "the file as exported", "export the model again")
    return entries[file.name]


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
