"""The page in a real browser: what it shows, what it asks for, what it complains of."""

import re
from pathlib import Path

import pytest

from bigvit_edge.profile.page import write_page
from tests.browser import MEASURE, Opened
from tests.profile.made import make_profile


def test_a_page_shows_its_content_asks_for_nothing_and_complains_of_nothing(tmp_path: Path) -> None:
    opened = Opened(write_page(make_profile()), tmp_path)
    for title in ("Latency", "Layers", "Roof", "What the big path sees", "Fallbacks", "Device and command"):
        assert f"<h2>{title}</h2>" in opened.dom
    assert opened.asked == []
    assert opened.console == []


def test_what_is_asked_for_and_complained_of_would_be_seen(tmp_path: Path) -> None:
    bad = "<!doctype html><img src='http://page.invalid/x.png'><script>console.error('alas')</script>"
    opened = Opened(bad, tmp_path)
    assert opened.asked == ["http://page.invalid/x.png"]
    assert any("alas" in line for line in opened.console)


@pytest.mark.parametrize("width", [500, 1280])  # a headless window is no narrower than the first
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_stands_out_at_the_right(width: int, dark: bool, tmp_path: Path) -> None:
    page = write_page(make_profile())
    free = re.sub(r"<meta http-equiv[^>]*>", "", page).replace("</body>", f"{MEASURE}</body>")
    opened = Opened(free, tmp_path, width, dark)
    assert float(opened.measure("beyond")) <= 0
    assert opened.measure("paper") == ("rgb(21, 23, 26)" if dark else "rgb(255, 255, 255)")
