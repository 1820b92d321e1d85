"""Latency is measured in turn, and tables say what was measured."""

import numpy as np
import pytest

from bigvit_edge.artifact import Array
from bigvit_edge.export.check import Checked
from bigvit_edge.report import draw_image, measure_latency, print_checks, print_step


def test_runners_take_turns_after_one_warm_up_each() -> None:
    calls: list[str] = []

    def runner(name: str) -> object:
        def run(image: Array) -> Array:
            calls.append(name)
            return image

        return run

    latency = measure_latency({"a": runner("a"), "b": runner("b")}, draw_image((1, 3, 4, 4)), rounds=3)
    assert calls == ["a", "b"] * 4
    assert latency["a"].runs == 3
    assert 0 <= latency["a"].p50_ms <= latency["a"].p90_ms


def test_timing_images_are_equal_from_run_to_run() -> None:
    np.testing.assert_array_equal(draw_image((1, 3, 4, 4)), draw_image((1, 3, 4, 4)))


def test_a_step_is_named_with_its_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    with print_step("lower litert int8"):
        pass
    assert capsys.readouterr().err.split() == ["lower", "litert", "int8", "0.0", "s"]


def test_a_file_that_was_not_run_shows_no_figures(capsys: pytest.CaptureFixture[str]) -> None:
    print_checks([Checked("m.pte", None, ("missing",))])
    out = capsys.readouterr().out
    assert "missing" in out
    assert "100" not in out
