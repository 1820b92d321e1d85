"""What lies beside an .onnx for Hugging Face's libraries, read by transformers itself."""

import itertools
import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bigvit_edge.artifact import Entry, Tensor
from bigvit_edge.export.hf_configs import BESIDE, BLACK, SQUARED, UNSCALED, list_differences, write_configs
from bigvit_edge.export.image import make_input, prepare
from bigvit_edge.models.hf_models import Folder, import_transformers
from bigvit_edge.models.hf_processors import read_processor
from bigvit_edge.preprocessing import (
    BORDER,
    CENTER,
    DOWN,
    HALF_TO_EVEN,
    NCHW,
    NHWC,
    RESIZES,
    SQUARE,
    SQUASH,
    UINT8,
    Preprocessing,
)
from tests.test_artifact import ENTRY

pytestmark = pytest.mark.skipif(find_spec("transformers") is None, reason="needs the extra [hf]")

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HOW = Preprocessing(32, MEAN, STD, crop=CENTER, resize_to=36, crop_rounding=DOWN)


def describe(how: Preprocessing, labels: tuple[str, ...] | None = None, classes: int = 3) -> Entry:
    return replace(
        ENTRY, file="a.onnx", format="onnx", preprocessing=how, inputs=(Tensor("pixel_values", how.shape, how.dtype),),
        outputs=(Tensor("logits", (1, classes)),), labels=labels,
    )  # fmt: skip


def read(entry: Entry, folder: Path, backend: str = "pil") -> Any:
    write_configs([entry], folder)
    return import_transformers().AutoImageProcessor.from_pretrained(folder, backend=backend, local_files_only=True)


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smooth picture of random colours, whose 36 pixels down are 53 across, of which 21 are cut off."""
    blocks = np.random.default_rng(0).integers(0, 256, (14, 20, 3), np.uint8)
    path = tmp_path_factory.mktemp("pictures") / "picture.png"
    Image.fromarray(blocks).resize((268, 180), Image.Resampling.BICUBIC).save(path)
    return path


def count_levels(entry: Entry, folder: Path, picture: Path, backend: str) -> Any:
    """By how many of 255 levels the processor's input differs, [1, 3, S, S]."""
    how = entry.preprocessing
    told = read(entry, folder, backend)(Image.open(picture), return_tensors="np")["pixel_values"]
    given = make_input(prepare(picture, how).pixels[None], how)
    std = 1 if how.dtype == UINT8 else np.reshape(how.std, (3, 1, 1)) / how.scale
    return np.abs(np.asarray(told, np.float64) - given) * std


@pytest.mark.parametrize("backend", ["pil", "torchvision"])
def test_what_is_said_to_be_exact_is(tmp_path: Path, picture: Path, backend: str) -> None:
    """To float32 by Pillow; by torchvision, which rounds its resize otherwise, to a level in one of 30 values."""
    black = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    ways = [
        replace(HOW, crop=crop, resize=resize, resize_to=side)
        for crop, resize, side in itertools.product((CENTER, SQUASH), RESIZES, (None, 37))
    ]
    ways += [replace(HOW, color="BGR", **black), replace(HOW, color="BGR", dtype=UINT8), replace(HOW, dtype=UINT8)]
    ways += [replace(HOW, crop=SQUASH, resize_to=None, crop_rounding=HALF_TO_EVEN)]
    for how in ways:
        entry = describe(how)
        assert list_differences(entry) == []
        levels = count_levels(entry, tmp_path, picture, backend)
        if backend == "pil":
            assert levels.max() < 1e-3, how
        elif how.resize != RESIZES[0]:  # its nearest is another
            assert levels.max() < 1.001, how
            assert (levels > 1e-3).mean() < 1 / 30, how


def test_what_differs_is_said(tmp_path: Path, picture: Path) -> None:
    """And seen on a picture: no difference is said of what is the same there."""
    for how, said in (
        (Preprocessing(32, MEAN, STD), [SQUARED]),
        (replace(HOW, resize_to=37, crop_rounding=HALF_TO_EVEN), [BESIDE]),
        (replace(HOW, crop=BORDER, resize_to=None), [BLACK]),
        (replace(HOW, color="BGR"), [UNSCALED]),
    ):
        entry = describe(how)
        assert list_differences(entry) == said
        assert count_levels(entry, tmp_path, picture, "pil").max() > 1
        told = json.loads((tmp_path / "preprocessor_config.json").read_text())["bigvit_edge"]
        assert (told["differs"], told["preprocessing"]["crop"]) == (said, how.crop)


def test_our_own_reader_finds_what_was_written(tmp_path: Path) -> None:
    """The processor measured by its effect, as of a model folder, is the Preprocessing again."""
    for how in (HOW, replace(HOW, resize_to=32, scale=1.0, mean=(123.0, 116.0, 103.0), std=(58.0, 57.0, 57.0)),
                replace(HOW, crop=SQUASH, resize=RESIZES[2], resize_to=32)):  # fmt: skip
        entry = describe(how)
        read(entry, tmp_path)
        config = import_transformers().AutoConfig.from_pretrained(tmp_path, local_files_only=True)
        found, notes = read_processor(Folder("hf:here", str(tmp_path), True, config), None)
        scale = 255 * how.scale
        mean, std = (tuple(round(v / scale, 6) for v in values) for values in (how.mean, how.std))
        assert replace(found, mean=HOW.mean, std=HOW.std) == replace(how, mean=HOW.mean, std=HOW.std, scale=1 / 255)
        np.testing.assert_allclose((found.mean, found.std), (mean, std), atol=2e-6)
        assert notes == ()


def test_the_model_is_described(tmp_path: Path) -> None:
    transformers = import_transformers()
    for labels, told in (
        (("ant", "bée", "ant"), {0: "ant", 1: "bée", 2: "ant"}),
        (None, {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}),
    ):
        write_configs([describe(HOW, labels)], tmp_path)
        config = transformers.AutoConfig.from_pretrained(tmp_path, local_files_only=True)
        assert (config.id2label, config.num_labels, config.image_size) == (told, 3, 32)
        assert config.label2id == {label: i for i, label in reversed(told.items())}
        assert type(config) in transformers.AutoModelForImageClassification._model_mapping


@pytest.mark.parametrize("layout", [NCHW, NHWC])
def test_pixels_stay_pixels(tmp_path: Path, picture: Path, layout: str) -> None:
    how = replace(HOW, dtype=UINT8, layout=layout)
    processor = read(describe(how), tmp_path)
    pixels = processor(Image.open(picture), return_tensors="np", input_data_format="channels_last")["pixel_values"]
    given = make_input(prepare(picture, how).pixels[None], how)
    assert (pixels.dtype, given.dtype) == (np.uint8, np.uint8)
    assert (pixels == (given.transpose(0, 3, 1, 2) if layout == NHWC else given)).all()


def test_without_an_onnx_nothing_is_written(tmp_path: Path) -> None:
    assert write_configs([ENTRY], tmp_path) == ({}, ())
    assert not list(tmp_path.iterdir())


def test_what_shows_in_a_picture_is_told_at_the_export(tmp_path: Path) -> None:
    for crop in (SQUARE, CENTER, SQUASH, BORDER):
        _, notes = write_configs([describe(replace(HOW, crop=crop, resize_to=None))], tmp_path)
        assert notes == ((f"by preprocessor_config.json, {BLACK}",) if crop == BORDER else ())
