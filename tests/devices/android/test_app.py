"""The whole app but Android: its shipped Java on a JVM, its shipped bve-run on an ARM CPU that qemu plays, and its page
in Chromium.
"""

import itertools
import json
import queue
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bigvit_edge.app.phone import spell_task
from bigvit_edge.bench.cases import list_cases
from bigvit_edge.bench.command import make_plan
from bigvit_edge.results import FAILED, read_result
from tests.app.apks import SMALL, Built
from tests.app.bridge import Refusal, serve_page
from tests.app.chromium import Tab, open_chromium
from tests.devices.android.java import java, need_root

__all__ = ("java",)

TOKEN = "00ff00ff00ff00ff"
LIMIT_S = 300
ROOM = "400k"
TESTS = tuple(f"bigvit.edge.{path.stem}" for path in sorted(Path(__file__).parent.glob("*Test.java")))
READY = "document.querySelector('form button')"
RESULT = "location.hash.startsWith('#result/') && document.querySelector('dl')"


class JavaPhone:
    """The app's Java as a stand-in phone: each verb goes to it by a line."""

    def __init__(self, java: list[str], folder: Path) -> None:
        self.shown, self.inbox = folder / "shown", folder / "inbox"
        self.inbox.mkdir()
        words = (*java, f"-Dfolder={folder}", "bigvit.edge.Speaker")
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._numbers, self._lock = itertools.count(1), threading.Lock()
        self._answers: dict[str, queue.Queue[tuple[str, str]]] = {}
        threading.Thread(target=self._listen, daemon=True).start()

    def answer(self, verb: str, words: dict[str, Any]) -> Any:
        """Do what a verb says."""
        stdin = self._process.stdin
        assert stdin
        number = str(next(self._numbers))
        self._answers[number] = queue.Queue()
        with self._lock:
            stdin.write(f"{number} {verb} {json.dumps(words)}\n")
            stdin.flush()
        sign, told = self._answers[number].get(timeout=LIMIT_S)
        if sign == "-":
            raise Refusal(json.loads(told))
        return json.loads(told)

    def close(self) -> None:
        """End the app."""
        stdin = self._process.stdin
        assert stdin
        stdin.close()
        self._process.wait(LIMIT_S)

    def _listen(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            number, sign, told = line.rstrip("\n").split(" ", 2)
            self._answers[number].put((sign, told))


@pytest.fixture
def phone(java: list[str], tmp_path: Path) -> JavaPhone:
    return JavaPhone(java, tmp_path)


@pytest.fixture
def tab(phone: JavaPhone, tmp_path: Path) -> Iterator[tuple[Tab, str]]:
    with open_chromium(tmp_path / "browser") as tab, serve_page(phone) as url:  # type: ignore[arg-type]
        yield tab, url
        tab.ask("Page.navigate", url="about:blank")


def test_every_verb_of_the_page(java: list[str], tmp_path: Path) -> None:
    need_root()
    small = tmp_path / "small"
    small.mkdir()
    tests = (*java, f"-Dsmall={small}", "org.junit.runner.JUnitCore", *TESTS)
    mount = f'mount -t tmpfs -o size={ROOM} small "$0" && exec "$@"'
    words = ("unshare", "--mount", "sh", "-c", mount, small, *tests)
    done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stdout
    assert "OK (" in done.stdout, done.stdout


def test_a_person_measures_the_bundles_model(phone: JavaPhone, tab: tuple[Tab, str]) -> None:
    page, url = tab
    page.open(url, 360)
    page.wait(READY)
    page.evaluate("document.querySelector('[name=rounds]').value = '2'")
    page.click("Start measuring")
    page.wait(RESULT)
    (path,) = (phone.shown / "results").iterdir()
    result = read_result(path)
    assert (result.device, result.machine.architecture, result.complete) == ("app:A Phone", "aarch64", True)
    for row in result.rows:
        assert (row.launch, row.file, row.error, len(row.turns)) == ("app", "tiny.bve", "", 2)
        assert FAILED not in row.verdicts
        assert row.surroundings
        assert row.surroundings.foreground
        assert row.surroundings.cpuset.startswith("/")
        assert row.energy == "not available: Android 14; expected Android 15"
    assert [row.keep for row in result.rows] == [0.5]  # as the manifest says
    assert page.console == []
    page.evaluate("history.back()")  # as the phone's button does: not to the run, which has ended
    page.wait(READY)


def test_a_task_from_a_computer_is_done(built: Built, phone: JavaPhone, tab: tuple[Tab, str]) -> None:
    place = phone.inbox / "0123456789abcdef-tiny.bve"
    place.write_bytes(SMALL.read_bytes())
    cases = list_cases([built.bundle / "tiny.bve"], 0.5)
    task = spell_task(TOKEN, cases, {cases[0].path: str(place)}, make_plan(rounds=2, threads=1, energy=False))
    plan = task["plan"]
    phone.answer("intent", task)
    page, url = tab
    page.open(url)
    page.wait(RESULT)
    end = phone.shown / "tasks" / f"{TOKEN}.json"
    last = time.monotonic() + LIMIT_S
    while not end.exists() and time.monotonic() < last:  # the page says so once it shows the result
        time.sleep(0.05)
    assert json.loads(end.read_text()) == {"result": plan["name"], "error": None, "refused": False}
    result = read_result(phone.shown / "results" / plan["name"])
    (row,) = result.rows
    assert (row.file, row.method, row.keep) == (cases[0].name, cases[0].method and cases[0].method.name, 0.5)
    assert (row.delegated_share, len(row.turns), result.complete) == (cases[0].delegated_share, 2, True)
    assert result.command == tuple(plan["command"])
