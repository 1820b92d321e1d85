"""The page: what is on it, that nothing on it is anybody's markup, and how a browser shows it."""

import re
from pathlib import Path

import pytest

from bigvit_edge.sweep.page import write_page
from bigvit_edge.sweep.rows import Point
from tests.browser import MEASURE, Opened
from tests.sweep.made import make_bench, make_point, make_sweep

EVIL = "<script>alert('x')</script>"


def make_points() -> list[Point]:
    models = ("blvit_demo", "vit_demo", "timm:mobilenetv4_hybrid_medium.e500_r224_in1k")
    return [
        make_point(
            model=model, format=name, precision=precision, p50_ms=ms, p50_low_ms=ms * 0.97, p50_high_ms=ms * 1.05,
            accuracy=0.8 + 0.03 * i, accuracy_low=0.78 + 0.03 * i, accuracy_high=0.82 + 0.03 * i,
            verdict="noisy" if (name, precision) == ("onnx", "fp32") else "valid",
        )
        for i, model in enumerate(models)
        for name, factor in (("bve", 1.0), ("litert", 1.4), ("onnx", 1.8))
        for precision, slower in (("int8", 1.0), ("fp32", 2.0))
        if (ms := 1.5 * (2 + i) ** 1.5 * factor * slower)
    ]  # fmt: skip


def test_a_page_has_a_front_for_each_device_and_what_failed() -> None:
    points = [make_point(device="local"), make_point(device="null", verdict="failed", p50_ms=None, reason="made up")]
    page = write_page(make_sweep(), points, [(make_bench(), "it broke")])
    assert re.findall(r"<h2>(.*?)</h2>", page)[:3] == ["local", "null", "Jobs that failed"]
    assert page.count("<svg") == 2  # one for narrow windows, one for wide ones
    assert "m bve int8 on null: it broke" in page
    assert "No row has both a latency and an accuracy yet." in page


def test_dots_are_joined_filled_and_hollow_by_what_they_are() -> None:
    points = [
        make_point(model="fast", p50_ms=1.0, accuracy=0.8), make_point(model="good", p50_ms=9.0, accuracy=0.9),
        make_point(model="beaten", p50_ms=10.0, accuracy=0.7), make_point(model="loud", verdict="noisy"),
    ]  # fmt: skip
    page = write_page(make_sweep(), points, [])
    wide = re.search(r'<svg class="wide".*?</svg>', page)
    assert wide
    kinds = re.findall(r'<circle class="(\w+)"', wide[0])
    assert kinds == ["best", "best", "other", "hollow"]
    texts = set(re.findall(r'<text class="(?:best|other|hollow)"[^>]*>([^<]*)</text>', wide[0]))
    assert texts == {"1 fast", "2 good", "3 beaten", "4 loud (noisy)"}
    assert "p50 latency, ms, logarithmic" in wide[0]
    assert wide[0].count('class="front"') == 1


def test_nothing_is_markup_but_ours() -> None:
    fields = dict.fromkeys(("model", "format", "precision", "device", "cores", "verdict", "reason", "machine"), EVIL)
    points = [make_point(**fields), make_point(device=EVIL)]
    page = write_page(make_sweep(text=EVIL), points, [(make_bench(device=EVIL), EVIL)])
    assert "<script" not in page
    assert page.count("&lt;script&gt;") > 8


@pytest.mark.parametrize(("width", "dark"), [(500, True), (1280, False)])  # a headless window is no narrower
def test_a_browser_shows_it_whole(width: int, dark: bool, tmp_path: Path) -> None:
    page = write_page(make_sweep(), make_points(), [])
    free = re.sub(r"<meta http-equiv[^>]*>", "", page).replace("</body>", f"{MEASURE}</body>")
    opened = Opened(free, tmp_path, width, dark)
    assert float(opened.measure("beyond")) <= 0
    assert opened.measure("paper") == ("rgb(21, 23, 26)" if dark else "rgb(255, 255, 255)")


def test_a_browser_asks_for_nothing_and_complains_of_nothing(tmp_path: Path) -> None:
    opened = Opened(write_page(make_sweep(), make_points(), []), tmp_path)
    assert "<h2>local</h2>" in opened.dom
    assert (opened.asked, opened.console) == ([], [])
