"""bve_read_frame_by: within a level of what numpy and Pillow make of the same frame."""

import ctypes
import json
from dataclasses import dataclass, field
from itertools import cycle, product
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bigvit_edge.export.image import RESAMPLINGS
from bigvit_edge.preprocessing import CROPS, RESIZES, SQUARE
from bigvit_edge.runtime import load_library
from tests.runtime.test_picture import need_pillow_13

SIZE, MEAN = 12, (9, 8, 7)
FRAMES = 400  # at random
FORMATS = ("RGB", "RGBA", "BGRA", "NV12", "NV21", "YUV420")  # from 1 on, in bve.h
MATRICES = ((0.299, 0.114, True), (0.299, 0.114, False), (0.2126, 0.0722, True), (0.2126, 0.0722, False))
# Odd sides, thin ones, one pixel, wider than a block of columns, and larger and smaller than the model's.
SHAPES = ((61, 40), (13, 12), (7, 5), (35, 131), (1, 1), (3, 70), (70, 3))

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


class CFrame(ctypes.Structure):
    _fields_ = (
        ("planes", ctypes.c_void_p * 3), ("stride_bytes", ctypes.c_size_t * 3), ("width", ctypes.c_uint32),
        ("height", ctypes.c_uint32), ("format", ctypes.c_uint32), ("rotation", ctypes.c_uint32),
        ("matrix", ctypes.c_uint32), ("pixel_stride", ctypes.c_uint32), ("reserved", ctypes.c_uint32 * 2),
    )  # fmt: skip


@dataclass
class Frame:
    """A frame in memory. step: from a U to the next in YUV420; room: bytes behind each row."""

    pixels: tuple[Pixels, ...]  # RGB [h, w, 3]; or Y [h, w], U and V [h / 2, w / 2], rounded up
    format: str
    rotation: int = 0
    matrix: int = 0
    step: int = 1
    room: int = 0
    planes: list[Pixels] = field(default_factory=list)

    def describe(self) -> CFrame:
        """As bve.h wants it. planes has what it points to."""
        height, width = self.pixels[0].shape[:2]
        self.planes = [np.pad(plane, ((0, 0), (0, self.room)), constant_values=99) for plane in self._lay_out()]
        at = (ctypes.c_void_p * 3)(*(plane.ctypes.data for plane in self.planes))
        strides = (ctypes.c_size_t * 3)(*(plane.strides[0] for plane in self.planes))
        step = self.step if self.format == "YUV420" else 0
        return CFrame(at, strides, width, height, FORMATS.index(self.format) + 1, self.rotation, self.matrix, step)

    def _lay_out(self) -> list[Pixels]:
        if len(self.pixels) == 1:
            height, width = self.pixels[0].shape[:2]
            alpha = np.full((height, width, 1), 77, np.uint8)
            order = self.pixels[0][..., ::-1] if self.format == "BGRA" else self.pixels[0]
            whole = order if self.format == "RGB" else np.concatenate([order, alpha], axis=2)
            return [whole.reshape(height, -1)]
        y, u, v = self.pixels
        if self.format == "YUV420":
            return [y, *(np.repeat(plane, self.step, axis=1) if self.step > 1 else plane for plane in (u, v))]
        turns = (u, v) if self.format == "NV12" else (v, u)
        return [y, np.stack(turns, axis=2).reshape(u.shape[0], -1)]

    def convert(self) -> Pixels:
        """The upright picture in RGB, computed in floats and rounded."""
        if len(self.pixels) == 1:
            rgb = self.pixels[0]
        else:
            red, blue, full = MATRICES[self.matrix]
            y, u, v = (plane.astype(float) for plane in self.pixels)
            height, width = y.shape
            u, v = (plane.repeat(2, 0).repeat(2, 1)[:height, :width] - 128 for plane in (u, v))
            if not full:
                y, u, v = (y - 16) * 255 / 219, u * 255 / 224, v * 255 / 224
            r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
            g = (y - red * r - blue * b) / (1 - red - blue)
            rgb = np.stack([r, g, b], axis=2).round().clip(0, 255).astype(np.uint8)
        return np.ascontiguousarray(np.rot90(rgb, -self.rotation // 90))


def describe(**fields: Any) -> bytes:
    how = {"size": SIZE, "mean": MEAN, "std": [1, 1, 1], "scale": 1.0} | fields
    return json.dumps({"preprocessing": json.dumps(how)}).encode()


def read(frame: Frame, metadata: bytes, size: int = SIZE) -> Pixels:
    pixels, error = np.full((size, size, 3), 7, np.uint8), ctypes.create_string_buffer(512)
    described = frame.describe()
    function = load_library().bve_read_frame_by
    function.argtypes = (ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    assert function(metadata, ctypes.byref(described), pixels.ctypes.data, pixels.size, error) == 0, error.value
    return pixels


def prepare(rgb: Pixels, metadata: bytes, size: int = SIZE) -> Pixels:
    """What bve_prepare_by makes of it: Pillow's bits, as test_picture.py proves."""
    height, width, _ = rgb.shape
    image, error = np.empty((3, size, size), np.float32), ctypes.create_string_buffer(512)
    picture = (ctypes.c_uint64 * 4)(rgb.ctypes.data, rgb.strides[0], height << 32 | width, FORMATS.index("RGB") + 1)
    function = load_library().bve_prepare_by
    function.argtypes = (ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    assert function(metadata, picture, image.ctypes.data, image.size, error) == 0, error.value
    return (image.transpose(1, 2, 0) + MEAN).astype(np.uint8)


def test_floats_of_a_file_that_takes_pixels_are_refused() -> None:
    rgb = np.zeros((5, 5, 3), np.uint8)
    with pytest.raises(
        AssertionError, match="a file that takes pixels, expected one that takes floats; use bve_read_frame_by"
    ):
        prepare(rgb, describe(dtype="uint8", layout="NHWC"))
    assert not read(Frame((rgb,), "RGB"), describe(dtype="uint8", layout="NHWC")).any()


def draw(width: int, height: int, kind: str, seed: int = 0) -> tuple[Pixels, ...]:
    """Noise beside edges; of YUV, many of its colours are beyond what RGB has."""
    rng = np.random.default_rng((width, height, seed))
    shapes = [(height, width, 3)] if "YUV" not in kind and "NV" not in kind else [
        (height, width), *[((height + 1) // 2, (width + 1) // 2)] * 2]  # fmt: skip
    planes = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
    return tuple(np.where(np.arange(p.shape[1]).reshape(-1, *[1] * (p.ndim - 2)) < p.shape[1] // 2,
                          np.where(p > 127, 255, 0), p).astype(np.uint8) for p in planes)  # fmt: skip


def distance(found: Pixels, expected: Pixels) -> int:
    return int(np.abs(found.astype(int) - expected).max())


def test_a_phones_frame_is_within_a_level_of_pillows_resize_of_its_square() -> None:
    for resize, rotation in product(RESIZES, (0, 90, 180, 270)):
        frame = Frame(draw(640, 361, "NV21"), "NV21", rotation, room=24)
        picture = Image.fromarray(frame.convert())
        left, top = ((side - 361) // 2 for side in picture.size)
        expected = picture.resize((96, 96), RESAMPLINGS[resize], (left, top, left + 361, top + 361))
        found = read(frame, describe(size=96, resize=resize), 96)
        assert distance(found, np.asarray(expected)) <= 1, (resize, rotation)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_crop_filter_and_rotation_is_within_a_level_of_pillow(kind: str) -> None:
    need_pillow_13()
    choices = cycle(product((0, 1, 2, 3), (1, 2), (0, 5), ("half to even", "down")))
    for (width, height), crop, resize, rotation in product(SHAPES, CROPS, RESIZES, (0, 90, 180, 270)):
        matrix, step, room, rounding = next(choices)
        rest = {} if crop == SQUARE else {"resize_to": 9 + 6 * (rotation % 180 == 0)}
        metadata = describe(crop=crop, resize=resize, crop_rounding=rounding, **rest)
        frame = Frame(draw(width, height, kind), kind, rotation, matrix, step, room)
        found, expected = read(frame, metadata), prepare(frame.convert(), metadata)
        # Of YUV, some levels are rounded to the neighbour of what floats are; two filters spread that.
        most = 2 if len(frame.pixels) == 3 and resize in RESIZES[2:] else 1
        assert distance(found, expected) <= most, (width, height, crop, resize, rotation, matrix, step)


def test_of_random_frames_few_levels_are_further_than_one_from_pillows() -> None:
    need_pillow_13()
    rng = np.random.default_rng(1)
    levels = np.zeros(4, int)  # by how far they are; further ones are an error
    for seed in range(FRAMES):
        kind, resize, crop = (words[rng.integers(len(words))] for words in (FORMATS, RESIZES, CROPS))
        width, height = map(int, np.exp(rng.uniform(0, 6, 2)))
        size, rotation = int(rng.choice([1, 2, 7, 16, 33, 64])), 90 * int(rng.integers(4))
        rest = {} if crop == SQUARE else {"resize_to": int(rng.integers(1, 100))}
        metadata = describe(size=size, crop=crop, resize=resize, **rest)
        matrix, step, room = (int(rng.integers(*limits)) for limits in ((4,), (1, 3), (7,)))
        frame = Frame(draw(width, height, kind, seed), kind, rotation, matrix, step, room)
        away = np.abs(read(frame, metadata, size).astype(int) - prepare(frame.convert(), metadata, size))
        counts = np.bincount(away.ravel(), minlength=4)
        assert counts[2:].sum() == 0 or len(frame.pixels) == 3 or resize in RESIZES[2:], (resize, width, height)
        levels += counts
    assert levels[2:].sum() < levels.sum() / 5000
