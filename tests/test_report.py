"""Latency is measured in turn, and tables say what was measured."""

import signal
from pathlib import Path

import numpy as np
import pytest

from bigvit_edge.artifact import Tensor
from bigvit_edge.export.check import Checked
from bigvit_edge.interruption import Interrupted, catching, shielded
from bigvit_edge.measures import Parity
from bigvit_edge.report import (
    draw_image,
    finish_export,
    measure_latency,
    print_checks,
)  # fmt: skip


def test_a_signal_that_came_while_the_bundle_was_put_in_its_place_says_that_it_is_there() -> None:
    with catching():
        with shielded():
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted) as caught:
            finish_export(None, None, Path("/x"), Path("out"))
    assert caught.value.__notes__ == ["the bundle is written whole, in out"]


def test_runners_take_turns_after_one_warm_up_each() -> None:
    calls: list[str] = []

    def runner(name: str) -> object:
        return lambda: calls.append(name)

    latency = measure_latency({"a": runner("a"), "b": runner("b")}, rounds=3)
    assert calls == ["a", "b"] * 4
    assert latency["a"].images == 3
    assert 0 <= latency["a"].p50 <= latency["a"].p90


def test_timing_images_are_equal_from_run_to_run() -> None:
    for tensor in (Tensor("image", (1, 3, 4, 4)), Tensor("image", (1, 4, 4, 3), "uint8")):
        assert draw_image(tensor).dtype == tensor.dtype
        np.testing.assert_array_equal(draw_image(tensor), draw_image(tensor))


def test_a_file_that_was_not_run_shows_no_figures(capsys: pytest.CaptureFixture[str]) -> None:
    print_checks([Checked("m.pte", None, ("missing",))])
    out = capsys.readouterr().out
    assert "missing" in out
    assert "100" not in out


def test_a_share_is_printed_with_its_interval_and_coverage_in_percent(capsys: pytest.CaptureFixture[str]) -> None:
    parity = Parity(0.1, 0.98, 0.99, 0.5, 4, (0.15, 0.85), 0.97654, 0.5, 1.0)
    print_checks([Checked("m.pte", 0.5, (), parity, None, ("one image",))])
    out = capsys.readouterr().out
    assert "50.0% (15.0–85.0)" in out
    assert "0.97654" in out
    assert "note: one image" in out
