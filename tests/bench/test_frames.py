"""Frames beside the model alone: when they come, what is kept of them, and why there may be none."""

import ctypes
import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bigvit_edge.bench import frame_reader
from bigvit_edge.bench.frame_reader import HEIGHT, UNTOLD, WIDTH, FrameReader, LackError, find_function
from bigvit_edge.bench.frames import SHARE, Spent, add_frames, begin_frames
from bigvit_edge.bench.runners import FrameTurn
from bigvit_edge.export.image import normalize
from bigvit_edge.preprocessing import Preprocessing
from bigvit_edge.results import Frames, Row
from tests.bench.made import PROTOCOL, make_row, make_turn

SIZE = 6
HOW = Preprocessing(SIZE, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Labelling:
    """A runner whose frames take so long, or that has none."""

    def __init__(self, ms: float = 100, lack: str = "") -> None:
        self.ms, self.lack = ms, lack
        self.asked: list[tuple[float, ...]] = []

    def run_frames(self, seconds: float, images: int, period_ms: float = 0) -> FrameTurn | str:
        self.asked.append((seconds, images, period_ms))
        times = (self.ms / 3,) * 3
        return self.lack or FrameTurn("a frame", "somebody", 0, int(self.ms * 1e6), times, (self.ms / 30,) * 3)


def run(runner: Labelling, rounds: int = 30, turn_ms: float = 100, **more: Any) -> Row:
    row, spent = begin_frames(make_row(()), runner), Spent()  # type: ignore[arg-type]
    protocol = SimpleNamespace(**{**asdict(PROTOCOL), **more})
    for number in range(rounds):
        turn = make_turn((turn_ms / 2,) * 2, number)
        row = add_frames(make_row((*row.turns, turn), frame=row.frame), runner, protocol, spent)  # type: ignore[arg-type]
    return row


@pytest.mark.parametrize(("ms", "turns"), [(100, (0, 7, 15, 23)), (250, (0, 19)), (1000, (0,))])
def test_frames_have_no_more_than_their_share_of_the_time(ms: float, turns: tuple[int, ...]) -> None:
    runner = Labelling(ms)
    row = run(runner)
    assert isinstance(row.frame, Frames)
    assert row.frame.turns == turns
    assert len(row.frame.label_times_ms) == len(row.frame.prepare_times_ms) == 3 * len(turns)
    assert ms * (len(turns) - 1) <= SHARE * 30 * 100  # all but the first, which comes however long it takes
    assert runner.asked == [(0, 1, 0), *[(0.1, 3, 0)] * len(turns)]
    assert len(row.turns) == 30


def test_frames_are_paced_as_images_are() -> None:
    runner = Labelling()
    run(runner, 1, fps=25)
    assert runner.asked[1:] == [(0.1, 3, 40)]


def test_who_has_no_frames_is_asked_once_and_says_why() -> None:
    runner = Labelling(lack="nobody says how")
    row = run(runner)
    assert (row.frame, len(runner.asked)) == ("not available: nobody says how", 1)


def test_a_later_part_goes_on_with_its_frames() -> None:
    first = run(Labelling(), 1)
    runner = Labelling()
    assert begin_frames(first, runner) == first  # type: ignore[arg-type]
    assert runner.asked == []


@pytest.fixture
def pixels(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """What stands in for the library gives; it looks at the frame and at the words as that does."""
    given = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)

    def read(metadata: bytes, frame: Any, out: Any, count: Any, error: Any) -> int:
        told = frame._obj
        planes = [ctypes.string_at(place, size) for place, size in zip(told.planes, (WIDTH * HEIGHT, 1), strict=False)]
        assert (told.width, told.height, told.format, told.rotation, told.pixel_stride) == (WIDTH, HEIGHT, 5, 90, 0)
        assert (planes[0][WIDTH + 2], planes[1][0]) == ((31 * 2 + 17) & 255, 0)
        assert list(told.stride_bytes) == [WIDTH, WIDTH, 0]
        words = json.loads(json.loads(metadata)["preprocessing"])
        assert (words["size"], count.value, "dtype" in words) == (SIZE, 3 * SIZE**2, False)
        ctypes.memmove(out, given.ctypes.data, given.size)
        return 0

    monkeypatch.setattr(frame_reader, "find_function", lambda: read)
    return given


@pytest.mark.parametrize("color", ["RGB", "BGR"])
@pytest.mark.parametrize("scale", [1 / 255, 1.0])
def test_a_float_input_is_normalised_as_elsewhere(color: str, scale: float, pixels: np.ndarray) -> None:
    how = Preprocessing(SIZE, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), color, scale=scale)
    expected = normalize(pixels.transpose(2, 0, 1)[None].astype(np.float32), how)
    made = FrameReader(json.dumps(asdict(how)), np.empty(expected.shape, np.float32))
    assert made.prepared_by == "bve_read_frame_by, numpy"
    image = made.prepare()
    assert (image.dtype, image.flags.c_contiguous) == (np.float32, True)
    assert np.array_equal(image, expected)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_an_image_file_is_given_the_pixels(layout: str, pixels: np.ndarray) -> None:
    expected = pixels[None] if layout == "NHWC" else pixels.transpose(2, 0, 1)[None]
    words = {**asdict(HOW), "dtype": "uint8", "layout": layout}
    made = FrameReader(json.dumps(words), np.empty(expected.shape, np.uint8))
    image = made.prepare()
    assert (made.prepared_by, image.dtype, image.flags.c_contiguous) == ("bve_read_frame_by", np.uint8, True)
    assert np.array_equal(image, expected)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", UNTOLD),
        ("{", "cannot be understood (JSONDecodeError"),
        ("[]", "cannot be understood (TypeError"),
        ('{"size": 6}', "cannot be understood (KeyError: 'color')"),
        (json.dumps({**asdict(HOW), "scale": "a"}), "cannot be understood (TypeError"),
        (json.dumps({**asdict(HOW), "size": 7}), "[1, 3, 6, 6], where the preprocessing makes float32 [1, 3, 7"),
        (json.dumps({**asdict(HOW), "dtype": "a"}), "float32 [1, 3, 6, 6], where the preprocessing makes a [1, 3, 6"),
        (json.dumps({**asdict(HOW), "dtype": "uint8"}), "float32 [1, 3, 6, 6], where the preprocessing makes uint8 [1"),
        (json.dumps({**asdict(HOW), "scale": 0}), "cannot be understood (ZeroDivisionError"),
    ],
)  # fmt: skip
def test_words_that_prepare_nothing_are_no_frames(words: str, says: str, pixels: np.ndarray) -> None:
    with pytest.raises(LackError) as e:
        FrameReader(words, np.empty((1, 3, SIZE, SIZE), np.float32))
    assert says in str(e.value)


def test_a_library_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BVE_LIBRARY", str(tmp_path / "libbve.so"))
    with pytest.raises(LackError, match=r"libbve.so reads no frames \(.*cannot open shared object"):
        find_function()
    monkeypatch.delenv("BVE_LIBRARY")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LackError, match="which reads frames; do there: pip install bigvit-edge"):
        find_function()
