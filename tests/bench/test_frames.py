"""Frames beside the model alone: when they come, what is kept of them, and why there may be none."""

import json
import sys
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bigvit_edge.bench.frame_reader import HEIGHT, UNTOLD, WIDTH, FrameReader, LackError
from bigvit_edge.bench.frames import SHARE, Spent, add_frames, begin_frames
from bigvit_edge.bench.runners import FrameTurn
from bigvit_edge.errors import UserError
from bigvit_edge.export.image import make_input
from bigvit_edge.preprocessing import Preprocessing
from bigvit_edge.results import Frames, Row
from bigvit_edge.runtime.frames import Frame
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
    """What stands in for the library gives; it looks at the frame as that does."""
    given = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)

    def read(frame: Frame, how: Preprocessing) -> np.ndarray:
        luma, pairs = frame.planes
        assert (luma.shape, pairs.shape) == ((HEIGHT, WIDTH), (HEIGHT // 2, WIDTH // 2, 2))
        assert (frame.format, frame.rotation, frame.matrix) == ("NV21", 90, "BT.601 full")
        assert (luma[1, 2], *pairs[3, 5]) == (31 * 2 + 17, 7 * 10 + 11 * 3, 7 * 11 + 11 * 3)
        return given

    monkeypatch.setattr("bigvit_edge.runtime.frames.read_frame", read)
    return given


@pytest.mark.parametrize("color", ["RGB", "BGR"])
@pytest.mark.parametrize("scale", [1 / 255, 1.0])
def test_a_float_input_is_normalised_as_elsewhere(color: str, scale: float, pixels: np.ndarray) -> None:
    how = Preprocessing(SIZE, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), color, scale=scale)
    expected = make_input(pixels[None], how)
    made = FrameReader(json.dumps(asdict(how)), np.empty(expected.shape, np.float32))
    assert made.prepared_by == "bve_read_frame_by, numpy"
    image = made.prepare()
    assert (image.dtype, image.flags.c_contiguous) == (np.float32, True)
    assert np.array_equal(image, expected)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_an_image_file_is_given_the_pixels(layout: str, pixels: np.ndarray) -> None:
    how = replace(HOW, dtype="uint8", layout=layout, color="BGR")  # which the file itself does
    expected = make_input(pixels[None], how)
    made = FrameReader(json.dumps(how.spell()), np.empty(expected.shape, np.uint8))
    image = made.prepare()
    assert (made.prepared_by, image.dtype, image.flags.c_contiguous) == ("bve_read_frame_by", np.uint8, True)
    assert np.array_equal(image, expected)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", UNTOLD),
        ("{", "cannot be understood (JSONDecodeError"),
        ("[]", "cannot be understood (TypeError"),
        ('{"size": 6}', "cannot be understood (TypeError"),
        (json.dumps({**asdict(HOW), "scale": "a"}), "cannot be understood (TypeError"),
        (json.dumps({**asdict(HOW), "size": 7}), "[1, 3, 6, 6], where the preprocessing makes float32 [1, 3, 7"),
        (json.dumps({**asdict(HOW), "dtype": "a"}), "cannot be understood (ValueError: dtype 'a'"),
        (json.dumps({**asdict(HOW), "dtype": "uint8"}), "float32 [1, 3, 6, 6], where the preprocessing makes uint8 [1"),
        (json.dumps({**asdict(HOW), "scale": 0}), "cannot be understood (ValueError: scale 0"),
    ],
)  # fmt: skip
def test_words_that_prepare_nothing_are_no_frames(words: str, says: str, pixels: np.ndarray) -> None:
    with pytest.raises(LackError) as e:
        FrameReader(words, np.empty((1, 3, SIZE, SIZE), np.float32))
    assert says in str(e.value)


def test_a_library_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(frame: Frame, how: Preprocessing) -> None:
        raise UserError("no libbve.so", "one built for this machine")

    monkeypatch.setattr("bigvit_edge.runtime.frames.read_frame", read)
    with pytest.raises(LackError, match=r"no libbve.so, expected one built for this machine"):
        FrameReader(json.dumps(HOW.spell()), np.empty(HOW.shape, np.float32))
    monkeypatch.setitem(sys.modules, "bigvit_edge.runtime.frames", None)
    with pytest.raises(LackError, match=r"no bigvit-edge for .* that reads frames .*pip install bigvit-edge"):
        FrameReader(json.dumps(HOW.spell()), np.empty(HOW.shape, np.float32))
