"""bve_prepare, through Session.prepare: the bits that Pillow and numpy make of the same picture."""

import json
import re
import zlib
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image

from bigvit_edge.errors import UserError
from bigvit_edge.export.convert import capture
from bigvit_edge.export.emitter import emit_program
from bigvit_edge.export.image import read_image
from bigvit_edge.export.program import Program, to_bytes
from bigvit_edge.models.vit import ViT
from bigvit_edge.preprocessing import BORDER, CENTER, CROPS, RESIZES, SQUARE, Preprocessing
from bigvit_edge.runtime import Session
from tests.native import ROOT, skip

SIZE = 16
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HOW = Preprocessing(SIZE, MEAN, STD)
# Smaller and larger than the model's, thin, of odd numbers, and tall: where Pillow 13 goes along columns first.
SIZES = ((7, 5), (16, 16), (61, 40), (45, 130), (200, 3), (3, 200), (1, 1))

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
Open = Callable[[dict[str, str]], Session]


@pytest.fixture(scope="module")
def program() -> Program:
    model = ViT(image_size=SIZE, patch=8, dim=32, depth=1, head_dim=32, num_classes=3).eval()
    return emit_program([capture(model, SIZE, None)], 4, {})


@pytest.fixture
def start(program: Program, tmp_path: Path) -> Open:
    def write(metadata: dict[str, str]) -> Session:
        path = tmp_path / "tiny.bve"
        path.unlink(missing_ok=True)
        path.write_bytes(to_bytes(replace(program, metadata=metadata)))
        return Session(path)

    return write


def describe(how: Preprocessing) -> dict[str, str]:
    return {"preprocessing": json.dumps(how.spell())}


def draw(width: int, height: int, channels: int) -> Pixels:
    """Noise beside edges: of the first alone, each pixel is as any other."""
    rng = np.random.default_rng(width * 1000 + height)
    pixels = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
    pixels[:, : width // 2] = np.where(pixels[:, : width // 2] > 127, 255, 0)
    return pixels


def expect(pixels: Pixels, how: Preprocessing, folder: Path) -> np.ndarray:
    Image.fromarray(pixels).save(folder / "picture.png")
    return read_image(folder / "picture.png", how)


def need_pillow_13() -> None:
    if int(PIL.__version__.split(".")[0]) < 13:
        skip("an older Pillow, which resizes tall pictures in another order", "pip install 'pillow>=13'")


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("crop", CROPS)
def test_the_input_is_pillows_to_the_bit(crop: str, resize: str, start: Open, tmp_path: Path) -> None:
    need_pillow_13()
    sides = (None,) if crop == SQUARE else (None, 11, 23)
    for resize_to, color, rounding in zip(
        sides, ("RGB", "BGR", "RGB"), ("half to even", "down", "half to even"), strict=False
    ):
        how = replace(HOW, crop=crop, resize=resize, resize_to=resize_to, color=color, crop_rounding=rounding)
        with start(describe(how)) as session:
            for width, height in SIZES:
                pixels = draw(width, height, 3)
                np.testing.assert_array_equal(session.prepare(pixels), expect(pixels, how, tmp_path))


@pytest.mark.parametrize("kind", ["opaque", "partly", "wholly", "white ink", "faint"])
def test_what_is_transparent_is_laid_on_what_python_lays_it_on(kind: str, start: Open, tmp_path: Path) -> None:
    need_pillow_13()
    pixels = draw(50, 33, 4)
    if kind in ("opaque", "wholly"):
        pixels[..., 3] = 255 if kind == "opaque" else 0
    elif kind == "white ink":
        pixels[..., :3] = 255
    elif kind == "faint":
        pixels[..., :3], pixels[..., 3] = 240, pixels[..., 3] // 16 + 1
    for how in (HOW, replace(HOW, crop=CENTER, resize=RESIZES[2]), replace(HOW, crop=BORDER, resize=RESIZES[0])):
        with start(describe(how)) as session:
            np.testing.assert_array_equal(session.prepare(pixels), expect(pixels, how, tmp_path))


@pytest.mark.parametrize(("width", "height"), [(70_000, 1), (1, 70_000)])
def test_a_picture_so_thin_that_its_ends_are_cut_off(width: int, height: int, start: Open, tmp_path: Path) -> None:
    need_pillow_13()
    how = replace(HOW, crop=CENTER, resize_to=100)
    pixels = draw(width, height, 3)
    with start(describe(how)) as session:
        np.testing.assert_array_equal(session.prepare(pixels), expect(pixels, how, tmp_path))


def test_levels_of_a_scale_of_their_own(start: Open, tmp_path: Path) -> None:
    how = replace(HOW, scale=1.0, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375), crop=BORDER)
    pixels = draw(40, 20, 3)
    with start(describe(how)) as session:
        np.testing.assert_array_equal(session.prepare(pixels), expect(pixels, how, tmp_path))


def test_rows_of_a_larger_picture(start: Open) -> None:
    pixels = draw(64, 48, 3)
    with start(describe(HOW)) as session:
        np.testing.assert_array_equal(
            session.prepare(pixels[8:40, 10:50]), session.prepare(np.ascontiguousarray(pixels[8:40, 10:50]))
        )


def test_a_file_that_says_less_means_what_it_always_meant(start: Open, tmp_path: Path) -> None:
    pixels = draw(40, 20, 3)
    older = {"size": SIZE, "mean": MEAN, "std": STD, "crop": "largest centre square", "layout": "NCHW"}
    with start({"preprocessing": json.dumps(older)}) as session:
        np.testing.assert_array_equal(session.prepare(pixels), expect(pixels, HOW, tmp_path))


def test_labels(start: Open) -> None:
    labels = ["кошка", 'a "dog"', "\U0001f98a"]
    with start({"labels": json.dumps(labels)}) as session:
        assert session.labels() == labels
    with start({"labels": "null"}) as session:
        assert session.labels() == []


def test_the_checksums_that_every_cpu_is_held_to_are_pillows(tmp_path: Path) -> None:
    need_pillow_13()
    told = re.findall(r'{"([a-z ]+)", 0x([0-9a-f]+)}', (ROOT / "tests/runtime/test_picture.cc").read_text())
    found = dict.fromkeys(CROPS, 0)
    for crop, resize, (width, height) in product(CROPS, RESIZES, ((61, 40), (33, 170), (3, 2))):
        how = Preprocessing(4, (0,) * 3, (1,) * 3, scale=1.0, crop=crop, resize=resize)
        how = how if crop == SQUARE else replace(how, resize_to=5)
        state, values = 1, bytearray()
        for _ in range(width * height * 4):
            state = (state * 1664525 + 1013904223) % 2**32
            values.append(state >> 24)
        levels = expect(np.frombuffer(values, np.uint8).reshape(height, width, 4), how, tmp_path)
        found[crop] = zlib.crc32(levels.astype(np.uint8).tobytes(), found[crop])
    assert {crop: int(checksum, 16) for crop, checksum in told} == found


def tell(*changes: tuple[str, object]) -> dict[str, str]:
    return {"preprocessing": json.dumps(HOW.spell() | dict(changes))}


@pytest.mark.parametrize(
    ("metadata", "met", "do"),
    [
        ({}, "a program that says nothing of pictures", "prepare the image yourself"),
        (tell(("crop", "middle")), "preprocessing with crop 'middle'", "update bigvit-edge"),
        (tell(("turn", 90)), "preprocessing with 'turn'", "update bigvit-edge"),
        (tell(("size", 0)), "preprocessing with size 0", "export the model again"),
        (tell(("size", 16.5)), "preprocessing with size 16.5", "export the model again"),
        (tell(("std", [0, 1, 1])), "preprocessing of size 16", "export the model again"),
        (tell(("mean", [0.5, 0.5])), "preprocessing with 2 numbers for mean", "export the model again"),
        (tell(("scale", -1)), "preprocessing of size 16", "export the model again"),
        (tell(("resize_to", 20)), "preprocessing of size 16", "export the model again"),
        ({"preprocessing": '{"size": 1e999'}, "preprocessing that cannot be read", "export the model again"),
        (tell(("size", 8)), "an image of 768 floats", "give as many"),
    ],
    ids=str,
)
def test_what_a_file_says_wrongly(metadata: dict[str, str], met: str, do: str, start: Open) -> None:
    with start(metadata) as session, pytest.raises(UserError) as caught:
        session.prepare(draw(20, 20, 3))
    assert met in caught.value.met
    assert caught.value.expected
    assert do in caught.value.do


@pytest.mark.parametrize(
    "pixels",
    [None, np.zeros((4, 4), np.uint8), np.zeros((4, 4, 2), np.uint8), np.zeros((4, 4, 3), np.float32)],
    ids=["none", "gray", "two channels", "floats"],
)
def test_what_is_no_picture(pixels: object, start: Open) -> None:
    with start(describe(HOW)) as session, pytest.raises(UserError, match="a picture of "):
        session.prepare(pixels)  # type: ignore[arg-type]


def test_an_empty_picture_is_refused(start: Open) -> None:
    with start(describe(HOW)) as session, pytest.raises(UserError) as caught:
        session.prepare(np.zeros((4, 0, 3), np.uint8))
    assert caught.value.met == "a picture of 0 x 4 pixels"
