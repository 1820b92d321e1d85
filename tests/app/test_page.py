"""The page's files: small, plain, and in words that browsers of years ago know."""

import json
import re
import subprocess
import sys
import zlib
from pathlib import Path

from bigvit_edge.profile.core import read_measured
from bigvit_edge.profile.summary import place_layers
from tests.app.page import PAGE, run_module
from tests.runtime.test_session import build, write

MOST_BYTES = 60_000  # of all files, as an APK packs them; uncompressed the aim is missed: docs/app.md
MOST_LINES, LONGEST = 400, 120
FILES = sorted(path for path in PAGE.iterdir() if path.suffix in (".js", ".css", ".html"))
MODULES = [path for path in FILES if path.suffix == ".js"]
BROWSERS = {"browser.js", "worker.js"}  # of a computer's browser alone
TIMERS = re.compile(r"\b(setTimeout|setInterval|requestAnimationFrame|requestIdleCallback)\b")
HTML = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function")
NEWER = re.compile(r"\?\?=|\|\|=|&&=|\.at\(|replaceAll|replaceChildren|structuredClone|hasOwn|^await |static \{|\d_\d")


def test_it_is_small() -> None:
    packed = {path.name: len(zlib.compress(path.read_bytes(), 9)) for path in FILES}
    assert sum(packed.values()) < MOST_BYTES
    for path in FILES:
        lines = path.read_text(encoding="utf-8").splitlines()
        assert (path.name, len(lines) < MOST_LINES) == (path.name, True)


def test_on_a_phone_nothing_waits_for_a_timer_nor_is_taken_for_html_nor_newer_than_its_browser() -> None:
    """Timers stand still while the screen is off; a WebView is as old as Chrome 80."""
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        assert not HTML.search(text), path.name
        if path.name not in BROWSERS:
            assert not TIMERS.search(text), path.name
            assert not NEWER.search(text), path.name


def test_a_page_of_others_cannot_be_fetched_or_run() -> None:
    text = (PAGE / "index.html").read_text(encoding="utf-8")
    assert "default-src 'none'; script-src 'self' 'wasm-unsafe-eval';" in text
    assert "unsafe-inline" not in text
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|style=|https?:", text)
    assert not any(
        re.search(r"https?://(?!www\.w3\.org/2000/svg)", path.read_text()) for path in FILES if path.suffix == ".css"
    )


def test_a_keep_ratio_of_six_digits_is_found(tmp_path: Path) -> None:
    ask = "(m, [had, keep]) => m.listCases([{methods: had.map((r) => ({keep: r}))}], keep).map((c) => c.method.keep)"
    cases = [[[1, 1 / 3], 0.333333], [[0.333333, 0.5], 1 / 3], [[0.33334], 1 / 3], [[None], 1.0], [[None, 0.5], None]]
    answers = run_module(tmp_path, "form.js", ask, cases)
    assert [answer.get("value") for answer in answers] == [[1 / 3], [0.333333], [], [], [None, 0.5]]


def test_what_is_a_mean_is_called_one(tmp_path: Path) -> None:
    ask = "(m, [times_ms, build, fps]) => m.findMeans({turns: [{times_ms}], build}, {fps})"
    coarse = {"mean_ms": 2}
    cases = [[[5, 0.5], coarse, 0], [[5, 0.5], coarse, 30], [[5, 2.1], coarse, 0], [[0.5], {}, 0], [[0.5], None, 0]]
    answers = run_module(tmp_path, "report.js", ask, cases)
    assert [answer.get("value") for answer in answers] == [2, 0, 0, 0, 0]


def test_layers_are_placed_as_profile_places_them(tmp_path: Path) -> None:
    file = write(build(little=True), tmp_path / "tiny.bve", (0.5,))
    program = Path(sys.executable).with_name("bve-run")
    done = subprocess.run([program, "profile", file, "--runs", "2"], capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    bars, run_ms = place_layers(read_measured(told).traced)
    (folder := tmp_path / "node").mkdir()
    (answer,) = run_module(folder, "report.js", "(m, told) => m.placeLayers(told)", [told])
    placed, length = answer["value"]
    assert length == round(run_ms, 6)
    assert [(bar["layer"], ["big", "LITTLE"][bar["lane"]]) for bar in placed] == [(bar.layer, bar.lane) for bar in bars]
    for bar, here in zip(placed, bars, strict=True):
        for name in ("start_ms", "end_ms", "busy_ms"):
            assert abs(bar[name] - getattr(here, name)) < 1e-9
