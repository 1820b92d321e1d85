"""The page: what is in it, that nothing of a file's is taken for HTML, and that it asks nobody for anything."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files

import pytest

from bigvit_edge.profile.command import print_profile
from bigvit_edge.profile.page import write_page
from tests.profile.made import NASTY, make_profile

VOID = {"meta", "link", "br"}
FETCHED = ("src", "href", "xlink:href", "srcset", "action", "data", "poster")
TITLES = [
    "Latency", "Time by kind of op", "Layers", "Roof", "The 3 slowest of 3 ops", "What the big path sees", "Fallbacks",
    "Counters", "Device and command", "What to know of these figures",
]  # fmt: skip


class Reader(HTMLParser):
    """Tags in balance, texts, and whatever a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.fetched: list[str] = []
        self.titles: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in FETCHED]
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self.open and self.open[-1] == "h2":
            self.titles.append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


def test_every_section_is_there() -> None:
    reader = read(write_page(make_profile()))
    assert reader.titles == TITLES
    text = " ".join(reader.texts)
    for said in ("p50 0.115 ms", "layers.1", "2 of 4 patches", "no such counter here", "qd8 236", "TOPK_V2"):
        assert said in text
    assert "bigvit-edge profile 'a b.bve'" in text


def test_what_comes_from_files_is_text() -> None:
    page = write_page(make_profile())
    assert "script" not in read(page).tags
    assert NASTY not in page
    assert " ".join(read(page).texts).count(NASTY) >= 4  # the title, an op, a reason, a note


def test_nothing_is_fetched() -> None:
    page = write_page(make_profile())
    for address in read(page).fetched:
        assert address.startswith(("#", "data:"))
    assert not re.search(r"url\(|@import|https?:(?!//www\.w3\.org)", page)
    assert "default-src 'none'" in page


def test_what_is_not_known_is_said() -> None:
    page = write_page(make_profile(traced=None, routing=None, unrouted="the model is dense", leftovers=None, roof=None))
    text = " ".join(read(page).texts)
    assert "Not shown: the model is dense." in text
    assert "Not known: the file is no part of a bundle" in text
    assert "Layers" not in read(page).titles
    assert "the unit that it is meant for" in write_page(make_profile(leftovers=()))


@pytest.mark.parametrize("times", [(1.0, 1.0), (1.0, 50.0), tuple(1 + i / 100 for i in range(300))])
def test_any_times_are_drawn(times: tuple[float, ...]) -> None:
    page = write_page(make_profile(latency_ms=times))
    assert "nan" not in page.lower().replace("nanosecond", "")
    for value in re.findall(r'(?:x|y|width|height)="(-?[\d.e+-]+)"', page):
        assert -1 <= float(value) <= 400


def test_an_op_of_no_time_breaks_nothing() -> None:
    profile = make_profile()
    assert profile.traced is not None
    still = tuple(replace(event, duration_us=0.0) for event in profile.traced.events)
    read(write_page(replace(profile, traced=replace(profile.traced, events=still))))


def measure_contrast(one: str, other: str) -> float:
    """As WCAG 2 has it."""

    def light(colour: str) -> float:
        full = colour * 2 if len(colour) == 3 else colour
        values = [int(full[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((light(one), light(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_text_can_be_read_in_both_schemes() -> None:
    style = (files("bigvit_edge") / "pages.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    schemes = [dict(re.findall(r"--(\w+): #([0-9a-f]+)", block)) for block in blocks]
    assert len(schemes) == 2
    for scheme in schemes:
        for text in ("ink", "quiet"):
            for ground in ("paper", "panel"):
                assert measure_contrast(scheme[text], scheme[ground]) >= 4.5
        for mark in ("multiplying", "moving", "rest"):
            assert measure_contrast(scheme[mark], scheme["panel"]) >= 3


def test_percentiles_are_those_of_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    page = write_page(make_profile())
    print_profile(make_profile(), [])
    assert "p50 0.115 ms, p90 0.500, p99 0.500" in capsys.readouterr().out  # the mean of 0.11 and 0.12
    assert re.findall(r"<b>([^<]*)</b><span>p(50|90|99)<", page) == [
        ("0.115 ms", "50"),
        ("0.500 ms", "90"),
        ("0.500 ms", "99"),
    ]
