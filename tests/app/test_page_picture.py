"""The page's pictures: each bit of the model's input as bigvit_edge.export.image makes it."""

import itertools
import random
from dataclasses import asdict
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image

from bigvit_edge.export.image import read_image
from bigvit_edge.preprocessing import (
    BORDER,
    CENTER,
    CROPS,
    FLOAT32,
    NCHW,
    NHWC,
    RESIZES,
    SQUARE,
    UINT8,
    Preprocessing,
)
from tests.app.page import run_module

SIZES = ((1, 1), (2, 9), (17, 17), (31, 64), (64, 31), (97, 40), (65, 64), (3, 200))
PREPARE = """(m, [width, height, data, how]) => {
  const {pixels, seen} = m.preparePicture({width, height, data: Uint8ClampedArray.from(data)}, how);
  const bits = pixels instanceof Float32Array ? new Uint32Array(pixels.buffer) : pixels;
  return [Array.from(bits), Array.from(seen.data), pixels.constructor.name];
}"""


def list_ways(rng: random.Random) -> list[Preprocessing]:
    ways = []
    for crop, resize in itertools.product(CROPS, RESIZES):
        for size in (16, 31):
            scale = rng.choice((1 / 255, 1.0, 1 / 127.5))
            mean = tuple(rng.uniform(0, 255 * scale) for _ in range(3))
            std = tuple(rng.uniform(0.1, 255) * scale for _ in range(3))
            more = rng.choice((None, size, size + 5, max(1, size - 6))) if crop != SQUARE else None
            dtype, layout = rng.choice(((FLOAT32, NCHW), (FLOAT32, NCHW), (UINT8, NCHW), (UINT8, NHWC)))
            ways.append(
                Preprocessing(
                    size, mean, std, rng.choice(("RGB", "BGR")), crop, resize, layout, scale, more,
                    rng.choice(("half to even", "down")), dtype,
                )  # type: ignore[arg-type]
            )  # fmt: skip
    return ways


@pytest.mark.skipif(int(PIL.__version__.split(".")[0]) < 13, reason="an older Pillow resizes tall pictures otherwise")
def test_every_bit_is_as_pillow_and_numpy_make_it(tmp_path: Path) -> None:
    rng = random.Random(0)
    noise = np.random.default_rng(0)
    cases, here = [], []
    for number, (how, (width, height)) in enumerate(itertools.product(list_ways(rng), SIZES)):
        channels = 4 if number % 3 == 0 else 3
        pixels = noise.integers(0, 256, (height, width, channels), np.uint8)
        if number % 5 == 0:
            pixels[..., :3] = noise.choice([0, 255], (height, width, 3))  # where bicubic and lanczos overshoot
        if number % 12 == 0:
            pixels[..., :3] = 255  # white ink, which only a black ground shows
        Image.fromarray(pixels).save(path := tmp_path / "picture.png")
        here.append(read_image(path, how))
        shown = np.asarray(Image.fromarray(pixels).convert("RGBA"))
        cases.append([width, height, shown.ravel().tolist(), asdict(how)])
    (folder := tmp_path / "node").mkdir()
    answers = run_module(folder, "picture.js", PREPARE, cases)
    for case, answer, pixels in zip(cases, answers, here, strict=True):
        bits, _, kind = answer["value"]
        assert kind == {FLOAT32: "Float32Array", UINT8: "Uint8Array"}[case[3]["dtype"]]
        assert bits == pixels.view(np.uint32 if pixels.dtype == np.float32 else np.uint8).ravel().tolist(), case
    assert len({(case[3]["dtype"], case[3]["layout"], case[3]["color"]) for case in cases}) == 6


def test_what_the_model_sees_is_shown(tmp_path: Path) -> None:
    """The middle in its own colours, whatever the model's order of channels."""
    pixels = np.zeros((40, 80, 4), np.uint8)
    pixels[:, 20:60] = (10, 200, 30, 255)
    pixels[:, :20], pixels[:, 60:] = 255, 255
    how = Preprocessing(8, (0, 0, 0), (1, 1, 1), "BGR", CENTER, RESIZES[0])
    (answer,) = run_module(tmp_path, "picture.js", PREPARE, [[80, 40, pixels.ravel().tolist(), how.spell()]])
    bits, seen, _ = answer["value"]
    assert seen == [10, 200, 30, 255] * 64
    values = np.array(bits, np.uint32).view(np.float32).reshape(3, 64) * 255
    assert np.allclose(values.T, (30, 200, 10))


def test_what_is_not_known_is_refused_by_name(tmp_path: Path) -> None:
    how = asdict(Preprocessing(8, (0, 0, 0), (1, 1, 1), crop=BORDER))
    cases = [[20, 10, [0] * 800, {**how, "crop": "diagonal"}], [20, 10, [0] * 800, {**how, "resize": "magic"}]]
    cases += [[20, 10, [0] * 800, {**how, "dtype": "int8"}], [20, 10, [0] * 800, {**how, "layout": "NHWC"}]]
    answers = run_module(tmp_path, "picture.js", PREPARE, cases)
    words = ("diagonal", "magic", "int8 in NCHW", "float32 in NHWC")
    assert [word in answer["error"] for word, answer in zip(words, answers, strict=True)] == [True] * 4
