"""Exported .tflite files in MediaPipe, in Python and in a browser, beside LiteRT and PyTorch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from bigvit_edge.artifact import Array, Pixels
from bigvit_edge.cli import app
from bigvit_edge.demo.digits import held_out
from bigvit_edge.export.image import make_input
from bigvit_edge.manifest import read_manifest
from bigvit_edge.models.load import load
from bigvit_edge.models.zoo import DIGITS
from bigvit_edge.runtime.opening import open_entry
from tests.libraries import ask_mediapipe, ask_tasks_vision

COUNT = 100


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "bundle"
    words = [
        "--format",
        "litert",
        "--input",
        "image",
        "--set",
        "precisions=fp32,int8,int4",
        "--set",
        "limits.images=50",
    ]
    done = CliRunner().invoke(app, ["export", "blvit_demo", *words, "-o", str(folder)])
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture(scope="module")
def pictures() -> Pixels:
    """Held-out pictures of the model's size, which neither library resizes."""
    pixels: Pixels = (255 * held_out().images[:COUNT]).round().byte().permute(0, 2, 3, 1).numpy()
    return pixels


@pytest.fixture(scope="module")
def expected(pictures: Pixels) -> Array:
    """PyTorch's probabilities."""
    model = load("blvit_demo")
    with torch.no_grad():
        found: Array = model.module(torch.from_numpy(make_input(pictures, model.preprocessing))).softmax(1).numpy()
    return found


@pytest.mark.parametrize(("precision", "least"), [("fp32", 1.0), ("int8", 0.97), ("int4", 0.9)])
def test_mediapipe_says_what_pytorch_says(
    demo: Path, pictures: Pixels, expected: Array, precision: str, least: float
) -> None:
    (entry,) = (each for each in read_manifest(demo).artifacts if each.precision == precision)
    told = ask_mediapipe(demo / entry.file, pictures)
    assert told.names == [DIGITS[number] for number in told.scores.argmax(1)]
    assert (told.scores.argmax(1) == expected.argmax(1)).mean() >= least
    run = open_entry(demo, entry)
    own = np.concatenate([run.run(make_input(each[None], entry.preprocessing)) for each in pictures])
    np.testing.assert_allclose(told.scores, own, atol=1e-5)
    assert (told.metadata["name"], precision in told.metadata["description"]) == ("blvit_demo", True)


def test_a_browser_says_the_same(demo: Path, pictures: Pixels, expected: Array, tmp_path: Path) -> None:
    names, scores = ask_tasks_vision(demo / "blvit_demo_fp32.tflite", pictures[:20], tmp_path / "chromium")
    assert names == [DIGITS[number] for number in expected[:20].argmax(1)]
    np.testing.assert_allclose(scores, expected[:20], atol=1e-4)


def test_a_browser_resizes_alike(demo: Path, tmp_path: Path) -> None:
    larger = np.random.default_rng(0).integers(0, 256, (5, 96, 150, 3), np.uint8)
    _, scores = ask_tasks_vision(demo / "blvit_demo_fp32.tflite", larger, tmp_path / "chromium")
    np.testing.assert_allclose(scores, ask_mediapipe(demo / "blvit_demo_fp32.tflite", larger).scores, atol=1e-4)
