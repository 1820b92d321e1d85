"""What is profiled: a model file, of a bundle or alone, and the image that it is given."""

import json
import os
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bigvit_edge.artifact import MANIFEST, Leftover, Runner, find_format
from bigvit_edge.errors import UserError
from bigvit_edge.export.image import make_input, prepare
from bigvit_edge.export.inference import choose_method, find_entry
from bigvit_edge.manifest import read_manifest
from bigvit_edge.preprocessing import NHWC, UINT8, Preprocessing
from bigvit_edge.runtime.opening import load_file, open_entry

DEMOS = ("blvit_demo", "vit_demo")  # models that the package has pictures for


@dataclass(frozen=True)
class Subject:
    """A model file, open in its runtime.

    method: the entry point, None: the file's first. leftovers: as of Profile. preprocessing: None where nobody says.
    demo: whether it is the built-in one, which has pictures.
    """

    path: Path
    format: str
    precision: str
    keep: float | None
    method: str | None
    runner: Runner
    leftovers: tuple[Leftover, ...] | None
    preprocessing: Preprocessing | None
    demo: bool


def open_subject(path: Path, keep: float | None, threads: int) -> Subject:
    """Open a model file in its runtime.

    keep: which of the file's keep ratios, the largest when None; of a file alone that has several, None is its first.
    UserError if it is none that runs here, or has no such ratio.
    """
    if path.is_dir() and os.path.lexists(path / MANIFEST):
        find_entry(path)  # which names the bundle's files
    format_ = find_format(path)
    if os.path.lexists(path.parent / MANIFEST):
        entry = find_entry(path)
        method = choose_method(entry, keep)
        runner = open_entry(path.parent, entry, threads, method.name)
        demo = read_manifest(path.parent).model in DEMOS
        return Subject(
            path, entry.format, entry.precision, method.keep, method.name, runner, method.leftovers,
            entry.preprocessing, demo,
        )  # fmt: skip
    runner = load_file(format_, path, threads, _find_method(path, format_, keep))
    words = runner.words
    return Subject(
        path, format_, words.get("precision", ""), keep, _find_method(path, format_, keep), runner, None,
        parse_preprocessing(words.get("preprocessing")), False,
    )  # fmt: skip


def _find_method(path: Path, format_: str, keep: float | None) -> str | None:
    if keep is None:
        return None
    if format_ == "onnx":
        raise UserError(f"--keep {keep:g} for {path}", "none: an ONNX file has one graph", "leave it out")
    return f"keep_{keep:g}".replace(".", "_")


def parse_preprocessing(text: str | None) -> Preprocessing | None:
    """Parse what a file says of it; None where it says nothing."""
    try:
        told = json.loads(text or "null")
        return Preprocessing(**told) if isinstance(told, dict) else None
    except (ValueError, TypeError):
        return None


def take_image(subject: Subject, picture: Path | None) -> tuple[NDArray[Any], str]:
    """Take the image to profile on, and say which.

    The user's picture; else one of the demo's, for its models; else noise, which routes no differently in time.
    """
    shape = subject.runner.image
    if len(shape) != 4 or min(shape) < 1:
        raise UserError(f"{subject.path} takes {list(shape)}", "one image of fixed size", "export the model again")
    if picture is not None:
        if subject.preprocessing is None:
            met = f"--image for {subject.path}, which does not say how it takes pictures"
            raise UserError(met, "a file in its bundle", "leave --image out, or name the file in its bundle")
        prepared = prepare(picture, subject.preprocessing)
        image = make_input(prepared.pixels[None], subject.preprocessing)
        return image, f"{picture.name}" + "".join(f"; {note}" for note in prepared.notes)
    if subject.demo and find_spec("sklearn") and find_spec("skimage") and find_spec("torch"):
        from bigvit_edge.demo.digits import held_out

        batch = held_out()
        pixels = (255 * batch.images[:1]).round().byte().permute(0, 2, 3, 1).numpy()  # [1, S, S, 3]
        assert subject.preprocessing
        return make_input(pixels, subject.preprocessing), "the demo's first held-out picture"
    if subject.runner.dtype == UINT8:
        return np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8), "noise: no --image was given"
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32), "noise: no --image was given"


def draw_picture(image: NDArray[Any], how: Preprocessing | None) -> bytes:
    """Draw the image that a model saw as a PNG.

    Undone is what `how` says; without it, the values are stretched to black and white.
    """
    pixels = image[0] if how is not None and how.layout == NHWC else image[0].transpose(1, 2, 0)  # [S, S, 3]
    if how is not None and how.dtype != UINT8:
        pixels = (pixels * np.array(how.std) + np.array(how.mean)) / how.scale
        pixels = pixels[..., ::-1] if how.color == "BGR" else pixels
    elif how is None:
        low, high = float(pixels.min()), float(pixels.max())
        pixels = (pixels - low) / max(high - low, 1e-9) * 255
    file = BytesIO()
    Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()
