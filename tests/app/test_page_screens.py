"""The page in Chromium on a stand-in phone with the real bve-run: every screen, as a person walks them."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bigvit_edge.bench.comparison import compare
from bigvit_edge.bench.frame_reader import FRAME
from bigvit_edge.export.image import read_image
from bigvit_edge.export.program import from_bytes, to_bytes
from bigvit_edge.preprocessing import Preprocessing
from bigvit_edge.results import Frames, Result, describe_times, read_result
from tests.app.bridge import Phone, serve_page
from tests.app.chromium import WAIT_S, Tab, open_chromium
from tests.runtime.test_session import build, write

HOW = Preprocessing(32, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), resize="bicubic, antialiased")
LABELS = ["ant", "bee", "cat", "<b>dog</b>", "eel"]
KEEPS = (1.0, 0.5)
RESULT = "location.hash.startsWith('#result/') && document.querySelector('dl')"
CHOOSE = "document.querySelector('form button')"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A routed model of two keep ratios, with its preprocessing and labels."""
    path = write(build(little=True), tmp_path_factory.mktemp("model") / "tiny_fp32.bve", KEEPS)
    words = {"preprocessing": json.dumps(HOW.spell()), "labels": json.dumps(LABELS)}
    path.write_bytes(to_bytes(replace(from_bytes(path.read_bytes()), metadata=words)))
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with open_chromium(tmp_path_factory.mktemp("chromium")) as tab:
        yield tab


@pytest.fixture
def phone(model: Path, tmp_path: Path) -> Phone:
    return Phone(tmp_path, Path(sys.executable).with_name("bve-run"), [model])


@pytest.fixture
def tab(phone: Phone, browser: Tab) -> Iterator[Tab]:
    """The page as it opens, 360 pixels wide."""
    browser.console.clear()
    with serve_page(phone) as url:
        browser.open(url, 360)
        browser.wait(CHOOSE)
        yield browser
        browser.ask("Page.navigate", url="about:blank")
    assert browser.console == []


def choose(tab: Tab, **values: object) -> None:
    """Fill in the form."""
    for name, value in values.items():
        place = f"document.querySelector('[name={name}]')"
        tab.evaluate(f"{place}.value = {json.dumps(str(value))}; {place}.dispatchEvent(new Event('input'))")


def wait_for(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not holds() and time.monotonic() < end:
        time.sleep(0.02)


def read_only(phone: Phone) -> Result:
    (path,) = (phone.folder / "results").iterdir()
    return read_result(path)


def test_a_model_is_measured_and_the_figures_are_those_of_the_lines(phone: Phone, tab: Tab) -> None:
    choose(tab, rounds=9, keep=0.5)
    tab.click("Start measuring")
    tab.wait(RESULT)
    result, text = read_only(phone), tab.read()
    (row,) = result.rows
    assert (result.device, row.launch, row.file, row.keep) == ("app:This machine", "app", "tiny_fp32.bve", 0.5)
    assert (result.complete, len(row.turns), row.error) == (True, 9, "")
    timed = [turn for turn in phone.turns if len(turn["times_ms"]) > 10 or turn["end_ns"] - turn["start_ns"] > 1e8][-9:]
    assert [list(turn.times_ms) for turn in row.turns] == [turn["times_ms"] for turn in timed]
    assert row.latency_ms == describe_times([ms for turn in timed for ms in turn["times_ms"]])
    assert isinstance(row.frame, Frames)
    assert (row.frame.frame, row.frame.turns[0]) == (FRAME, 0)
    assert row.surroundings
    assert (row.surroundings.foreground, row.surroundings.thermal_status) == (True, (1, 1))
    assert row.energy == "not available: Android 14; expected Android 15, which first tells apps what they use"
    for shown in (
        f"Verdict: {', '.join(row.verdicts)}", *row.reasons, "p50", "p90", "p99", "In the foreground\nall the time",
        "/top-app", "1 (light) before, 1 (light) after", "expected Android 15", "Layers", "layers.0",
        "big", "LITTLE", "of the time throttled", "frame to label", "preparing by bve_set_frame",
    ):  # fmt: skip
        assert shown in text
    assert "isolated" not in text  # of a browser's rows alone
    serves, (profile,) = ([words for words in phone.started if words[0] == verb] for verb in ("serve", "profile"))
    cores = ",".join(map(str, row.cores_asked or ()))
    assert {words[words.index("--cores") + 1] for words in (*serves, profile)} == {cores}
    assert (phone.held, phone.ended) == ("", [])
    ((compared,), alone) = compare(result, result)
    assert (compared.ratio.value, alone) == (1, [])


def test_rows_take_turns_and_say_which_were_not_seen(phone: Phone, tab: Tab) -> None:
    phone.foreground = False
    choose(tab, rounds=2, clusters="each", threads=1, keep=0.5)
    tab.click("Start measuring")
    tab.wait(RESULT)
    result = read_only(phone)
    assert {(row.policy, len(row.turns)) for row in result.rows} >= {("big", 2), ("auto", 2)}
    assert all(row.surroundings and row.surroundings.foreground is False for row in result.rows)
    assert "not all the time: the system may have slowed it" in tab.read()
    assert tab.evaluate("document.querySelectorAll('thead th').length") == 5


def test_what_was_measured_until_a_cancel_is_kept_as_a_part(phone: Phone, tab: Tab) -> None:
    choose(tab, minutes=200)
    tab.click("Start measuring")
    tab.wait("document.querySelector('#round') && document.querySelector('#round').textContent")
    assert "of 200 minutes" in tab.read()
    tab.click("Measure")
    tab.wait("document.querySelector('form button[disabled]')")  # one run at a time
    assert "A run is going on" in tab.read()
    phone.plan = {"models": []}
    tab.evaluate("window.bve.task()")
    tab.wait("document.querySelector('#message').textContent.includes('another measurement is going on')")
    wait_for(lambda: bool(phone.ended))
    assert phone.ended[0]["refused"]  # so that who asked stops nothing
    tab.evaluate("window.bve.cancel()")  # as the notification's button does
    tab.wait(RESULT)
    result = read_only(phone)
    assert not result.complete
    assert result.protocol.minutes == 200
    assert all(row.turns for row in result.rows)
    assert "This is a part" in tab.read()
    assert phone.held == ""


def test_a_run_that_a_reload_cut_is_told_of(phone: Phone, tab: Tab) -> None:
    choose(tab, minutes=200)
    tab.click("Start measuring")
    tab.wait("document.querySelector('#round') && document.querySelector('#round').textContent")
    tab.look(800)  # turned round: it goes on
    assert "of 200 minutes" in tab.read()
    phone.held = ""
    tab.evaluate("location.hash = ''")
    tab.ask("Page.reload")
    tab.wait("document.querySelector('#message').textContent.includes('was cut')")
    tab.wait("document.querySelector('form button.main:not([disabled])')")
    assert not read_only(phone).complete


@pytest.mark.parametrize("content", [b"", os.urandom(5000), None], ids=["empty", "foreign", "cut"])
def test_a_file_that_is_no_model_is_refused_on_the_screen(
    content: bytes | None, phone: Phone, tab: Tab, model: Path, tmp_path: Path
) -> None:
    phone.picked = tmp_path / "x<i>.bve"
    phone.picked.write_bytes(model.read_bytes()[:3000] if content is None else content)
    tab.click("Open a model file…")
    tab.wait("document.querySelector('#message').textContent")
    assert tab.read().startswith("Measure a model\nx<i>.bve: ")
    assert list(phone.models) == ["bundle/tiny_fp32.bve"]
    assert tab.evaluate("document.querySelectorAll('[name=model]').length") == 1


def test_a_picked_model_is_chosen_and_a_cancelled_picker_changes_nothing(
    phone: Phone, tab: Tab, model: Path, tmp_path: Path
) -> None:
    tab.click("Open a model file…")
    tab.wait("!document.querySelector('form button[disabled]')")
    assert tab.evaluate("document.querySelectorAll('[name=model]').length") == 1
    phone.picked = tmp_path / "mine.bve"
    write(build(little=True), phone.picked, (0.75, 1 / 3))
    choose(tab, keep=0.5)
    tab.click("Open a model file…")
    tab.wait("document.querySelectorAll('[name=model]').length == 2")
    assert tab.evaluate("document.activeElement.value") == "given/mine.bve"
    assert "mine.bve has no keep ratio of 0.5: all that it has are chosen." in tab.read()
    ratios = "[...document.querySelectorAll('[name=keep] option')].map(each => each.value)"
    _, third, more = tab.evaluate(ratios)
    assert (float(third), float(more)) == pytest.approx((1 / 3, 0.75))
    choose(tab, rounds=1, keep=third)
    tab.click("Start measuring")
    tab.wait(RESULT)
    assert [(row.file, row.keep) for row in read_only(phone).rows] == [("mine.bve", float(third))]
    tab.click("Measure")
    tab.wait("document.querySelector('[name=model]:checked').value == 'given/mine.bve'")
    tab.click("Remove mine.bve")
    tab.wait("document.querySelector('#status').textContent.includes('mine.bve is no longer kept here')")
    assert (list(phone.models), tab.evaluate(ratios)) == (["bundle/tiny_fp32.bve"], ["", "0.5", "1"])
    assert "Remove" not in tab.read()


def test_a_result_that_cannot_be_kept_is_shown_all_the_same(phone: Phone, tab: Tab) -> None:
    phone.full = True
    choose(tab, rounds=1, keep=0.5)
    tab.click("Start measuring")
    tab.wait(RESULT)
    tab.wait("document.querySelector('#message').textContent")
    assert "The result could not be kept: there is no space left on this device" in tab.read()
    assert "p50" in tab.read()
    assert "Share" not in tab.read()
    assert list((phone.folder / "results").iterdir()) == []


def test_a_model_too_large_for_memory_is_told_of(phone: Phone, tab: Tab) -> None:
    phone.killed = True
    tab.click("Start measuring")
    tab.wait("document.querySelector('#message').textContent")
    assert "as it does when memory runs out" in tab.read()
    phone.killed, phone.free_bytes = False, 1000
    tab.wait(CHOOSE)
    tab.click("Start measuring")
    tab.wait("document.querySelector('#message').textContent.includes('are free here')")
    assert list((phone.folder / "results").iterdir()) == []


def test_a_picture_is_classified_and_its_routing_shown(phone: Phone, tab: Tab, model: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (47, 80, 3), np.uint8)
    Image.fromarray(noise).save(data := BytesIO(), "PNG")
    phone.pictured = data.getvalue()
    tab.click("Picture")
    tab.wait("document.querySelector('select[name=model]')")
    choose(tab, model="1")
    tab.click("Take a photo…")
    tab.wait("document.querySelector('.pictures')")
    (tmp_path / "p.png").write_bytes(phone.pictured)
    (tmp_path / "p.f32").write_bytes(read_image(tmp_path / "p.png", HOW).tobytes())
    command = [phone.bve_run, "run", model, "--input", tmp_path / "p.f32", "--keep", "0.5"]
    logits = np.array(json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["logits"])
    shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    text = tab.read()
    for index, share in enumerate(shares):
        assert f"{LABELS[index]}: {share:.1%}" in text
    assert text.count("8 of 16 patches") == 2
    assert tab.evaluate("document.activeElement.textContent") == "Answer"
    phone.pictured = b"no picture"
    tab.click("Choose a picture…")
    tab.wait("document.querySelector('#message').textContent.includes('cannot be read as a picture')")
    assert not tab.evaluate("document.querySelector('#found').textContent")


def test_kept_results_are_listed_shared_and_deleted(phone: Phone, tab: Tab) -> None:
    tab.click("Results")
    tab.wait("document.querySelector('#screen').textContent == 'None yet.'")
    tab.click("Measure")
    tab.wait(CHOOSE)
    choose(tab, rounds=1, keep=0.5)
    tab.click("Start measuring")
    tab.wait(RESULT)
    (name,) = (path.name for path in (phone.folder / "results").iterdir())
    (phone.folder / "results/bad.json").write_text("{}")
    tab.click("Share")
    tab.click("Results")
    tab.wait("document.querySelectorAll('#screen li').length == 2")
    wait_for(lambda: bool(phone.shared))
    assert phone.shared == [name]
    tab.click("bad.json")
    tab.wait("document.querySelector('#message').textContent.includes('bad.json cannot be shown')")
    tab.click("Results")
    tab.wait("document.querySelectorAll('#screen li').length == 2")
    tab.evaluate(f"document.querySelector('[aria-label=\"{name}\"] button:last-child').click()")
    tab.click("Delete for good")
    tab.wait("document.querySelectorAll('#screen li').length == 1")
    assert [path.name for path in (phone.folder / "results").iterdir()] == ["bad.json"]


def test_a_plan_from_outside_is_run_and_its_end_told(phone: Phone, tab: Tab) -> None:
    facts = {"name": "as_exported", "keep": 0.5, "delegated_share": 0.75}
    named = {"model": "bundle/tiny_fp32.bve", "name": "größer/m.bve", "precision": "fp32", "methods": [facts]}
    alone = {**named, "name": "m.bve", "precision": "", "methods": [dict.fromkeys(facts)]}  # without a manifest
    plan = {
        "models": [named, alone], "clusters": ["big"], "threads": 1, "rounds": 2, "minutes": 0,
        "fps": 0, "energy": False, "name": "asked.json", "command": ["bigvit-edge", "bench", "--app"],
    }  # fmt: skip
    phone.plan = plan
    tab.ask("Page.reload")
    tab.wait(RESULT)
    result = read_result(phone.folder / "results/asked.json")
    told = [(row.file, row.precision, row.method, row.keep, row.delegated_share) for row in result.rows]
    assert told == [("größer/m.bve", "fp32", "as_exported", 0.5, 0.75), ("m.bve", "", None, None, None)]
    assert {(row.policy, len(row.turns), row.energy) for row in result.rows} == {
        ("big", 2, "not available: not asked for")
    }
    assert (result.command, result.tool) == (("bigvit-edge", "bench", "--app"), "0.1.0")
    wait_for(lambda: bool(phone.ended))
    assert phone.ended == [{"name": "asked.json", "error": None, "refused": False}]
    tab.click("Measure")
    tab.wait("document.querySelector('form')")
    assert "größer" not in tab.read()  # no model of a person's
    phone.plan = {**plan, "name": "open.json"}
    tab.evaluate("window.bve.task()")  # as it is told of an intent that comes while the app is open
    wait_for(lambda: len(phone.ended) == 2)
    assert phone.ended[1]["name"] == "open.json"
    phone.plan = {**plan, "threads": 99}
    tab.ask("Page.reload")
    wait_for(lambda: len(phone.ended) == 3)
    assert "99 threads on big cores" in tab.read()
    assert "99 threads on big cores" in phone.ended[2]["error"]
    assert "profile" not in [words[0] for words in phone.started]  # nobody sees its layers


def test_every_screen_can_be_used_by_all(phone: Phone, tab: Tab) -> None:
    """No objection of axe-core's, nothing beyond the right edge, in light and dark, on a phone and a desk; by keys."""
    Image.new("RGB", (40, 40), "red").save(data := BytesIO(), "PNG")
    phone.pictured = data.getvalue()

    def look(screen: str) -> None:
        for width, dark in ((360, False), (1280, True)):
            tab.look(width, dark)
            assert (screen, tab.find_overflow()) == (screen, 0)
            assert (screen, tab.find_violations()) == (screen, [])

    look("choose")
    for _ in range(20):
        tab.press("Tab")
        if tab.evaluate("document.activeElement.textContent") == "Start measuring":
            break
    choose(tab, rounds=30, clusters="each", threads=1, keep=0.5)
    tab.press("Enter")
    tab.wait("document.querySelector('#round') && document.querySelector('#round').textContent")
    assert tab.evaluate("document.activeElement.tagName") == "H1"
    assert tab.evaluate("document.title").startswith("Measuring")
    look("run")
    tab.click("Cancel")
    tab.wait(RESULT)
    assert tab.evaluate("document.activeElement.textContent") == "Result of tiny_fp32.bve"
    look("result")
    tab.click("Results")
    tab.wait("document.querySelector('#screen li')")
    look("results")
    tab.click("Picture")
    tab.wait("document.querySelector('select[name=model]')")
    choose(tab, model="1")
    tab.click("Choose a picture…")
    tab.wait("document.querySelector('.pictures')")
    look("picture")


def test_all_rows_that_failed_are_told_once(phone: Phone, tab: Tab) -> None:
    """Nothing was measured: no result, a text, and the next run is free."""
    phone.models["bundle/tiny_fp32.bve"] = phone.folder / "gone.bve"
    tab.click("Start measuring")
    tab.wait("document.querySelector('#message').textContent")
    assert "gone.bve: cannot be opened" in tab.read()
    tab.wait("document.querySelector('form button.main:not([disabled])')")


def test_a_browser_too_old_is_told_so(phone: Phone, tab: Tab) -> None:
    """What knows no modules runs old.js alone; what cannot read a module of ours learns it from main.js."""
    hidden = "document.querySelector('#old').hidden"
    assert tab.evaluate(hidden)
    assert tab.evaluate("document.querySelector('script[nomodule]').getAttribute('src')") == "old.js"
    script = "const script = document.createElement('script'); script.src = 'old.js'; document.body.append(script)"
    tab.evaluate(script + "; 0")
    tab.wait(f"!{hidden}")
    assert "as new as Chrome 80" in tab.read()
    with serve_page(phone, spoilt="form.js") as url:
        tab.open(url, 360)
        tab.wait("document.querySelector('#message').textContent.includes('The page cannot begin: ')")
        assert not tab.evaluate(hidden)
