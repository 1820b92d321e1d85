"""The verb itself, in a process of its own."""

import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bigvit_edge.app.offers import list_offers
from bigvit_edge.app.packages import PACKAGES
from bigvit_edge.app.web import PACKAGE, list_page
from bigvit_edge.errors import UserError
from tests.app.made import ask

START_S = 60.0
MODEL = b"\x08\x0a\x3a\x00"  # of ONNX: a version, and a graph of nothing


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command with a file, where npm brought everything before."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for package in PACKAGES:
        folder = tmp_path / "cache/bigvit-edge/npm" / f"{package.name.replace('/', '+')}-{package.version}"
        folder.mkdir(parents=True)
        for name in package.files:
            (folder / name).write_text(name)
    (tmp_path / "a.onnx").write_bytes(MODEL)
    command = [sys.executable, "-c", "from bigvit_edge.cli import main; main()", "app", "web", str(tmp_path / "a.onnx")]
    return [*command, "--results", str(tmp_path / "results")]


@contextmanager
def started(words: list[str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start it; give its first line. Whatever happens, it ends with the block."""
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        assert select.select([process.stdout], [], [], START_S)[0], "it printed nothing"
        yield process, process.stdout.readline()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_a_signal_and_ends_cleanly(words: list[str], tmp_path: Path, number: signal.Signals) -> None:
    with started([*words, "--port", "0"]) as (process, line):
        found = re.fullmatch(r"1 model at http://127\.0\.0\.1:(\d+)/, results to (.+); Ctrl-C ends it\n", line)
        assert found, line
        assert found[2] == str(tmp_path / "results")
        port = int(found[1])
        assert ask(port, "/")[1] == (PACKAGE / "app/page/index.html").read_bytes()
        assert ask(port, "/models/0")[1] == MODEL
        assert ask(port, "/npm/litert.js")[1] == b"litert.js"
        assert b"bigvit-edge" in ask(port, "/about")[1]
        with socket.create_connection(("127.0.0.1", port)):  # who says nothing does not hold it up
            start = time.monotonic()
            process.send_signal(number)
            _, err = process.communicate(timeout=30)
        assert time.monotonic() - start < 20
        assert process.returncode == 128 + number
        assert err == "interrupted\n"
    assert not (tmp_path / "results").exists()


def test_a_host_that_is_given_wants_the_token(words: list[str]) -> None:
    with started([*words, "--port", "0", "--host", "127.0.0.1"]) as (_, line):
        found = re.search(r"http://127\.0\.0\.1:(\d+)(/\?token=[\w-]{40,}),", line)
        assert found, line
        assert ask(int(found[1]), "/")[0] == 401
        assert ask(int(found[1]), found[2])[0] == 200
        assert ask(int(found[1]), found[2])[0] == 401


def test_what_cannot_be_served_is_said(words: list[str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for more, says in (
            (["--port", port], f"127.0.0.1, port {port} (Address already in use)"),
            (["--host", "no.such.invalid"], "--host no.such.invalid"),
            (["--results", str(tmp_path / "a.onnx")], "a folder to make"),
            ([str(tmp_path / "b.onnx")], f"no {tmp_path / 'b.onnx'}"),
        ):
            done = subprocess.run([*words, *more], capture_output=True, text=True, timeout=START_S, check=False)
            assert (done.returncode, done.stdout) == (2, ""), done.stderr
            assert says in done.stderr
            assert len(done.stderr.splitlines()) == 1
    assert not os.path.lexists(tmp_path / "results")


def test_what_is_no_onnx_is_refused_at_the_start(tmp_path: Path) -> None:
    png, cut, empty, good = (tmp_path / f"{name}.onnx" for name in ("png", "cut", "empty", "good"))
    good.write_bytes(MODEL)
    png.write_bytes(b"\x89PNG, and more of a picture" * 40)
    cut.write_bytes(MODEL[:-1])
    empty.touch()
    offers, left_out = list_offers([png, good, cut, empty])
    assert [offer.path for offer in offers.values()] == [good]
    assert left_out == [f"{p.name} is left out: it is no .onnx, or a damaged one" for p in (png, cut, empty)]
    with pytest.raises(UserError, match=r"png\.onnx: it is no \.onnx, or a damaged one; expected an \.onnx or a"):
        list_offers([png])


def test_all_that_the_page_asks_for_is_served() -> None:
    served, page = list_page(), PACKAGE / "app/page"
    assert served[""].name == "index.html"
    text = "".join(path.read_text() for path in page.iterdir()).replace('"LiteRT.js"', "")  # a name in words
    wanted = set(re.findall(r'"(?:\./)?([\w-]+\.(?:js|css))"', text))
    assert {"pages.css", "worker.js", "measure.js"} <= wanted <= set(served)
    assert set(re.findall(r'"\./npm/([^"]+)"', text)) <= {name for package in PACKAGES for name in package.files}
