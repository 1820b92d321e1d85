"""Sweeps that are ended, in processes of their own: what is done stays, and nothing of it is done again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bigvit_edge.errors import UserError
from bigvit_edge.results import read_result
from bigvit_edge.sweep.folder import Folder
from tests.sweep.made import write_factory

SWEEP = """
models = ["mine:build"]
formats = ["onnx"]
precisions = ["fp32"]
set = ["limits.images=8"]
rounds = 30
fps = 20
"""
PATIENCE_S = 120
PROGRAM = "from bigvit_edge.cli import main; main()"


def start(folder: Path) -> subprocess.Popen[str]:
    words = (sys.executable, "-c", PROGRAM, "sweep", "sweep.toml", "-o", "out", "--json")
    pipe = subprocess.PIPE
    return subprocess.Popen(words, cwd=folder, stdout=pipe, stderr=pipe, text=True)


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def list_running(folder: Path) -> list[int]:
    """Processes that work in a folder."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if (place / "cwd").resolve() == folder and int(place.name) != os.getpid():
                found.append(int(place.name))
        except OSError:
            continue
    return found


def list_staged(folder: Path) -> list[Path]:
    """What an export is being written to."""
    return list((folder / "out" / "exports").glob(".bigvit-edge.*"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_factory(tmp_path)
    (tmp_path / "sweep.toml").write_text(SWEEP)
    return tmp_path


def test_a_sweep_that_is_killed_again_and_again_goes_on(folder: Path) -> None:
    out = folder / "out"
    process = start(folder)
    wait_for(lambda: list_staged(folder), process)
    with pytest.raises(UserError, match=f"is being swept by process {process.pid}"), Folder(out).lock():
        pass
    process.kill()
    process.communicate()

    process = start(folder)
    wait_for(lambda: list((out / "results").glob("*.json")), process)  # a part of the bench
    (bundle,) = (out / "exports").glob("mine*")
    (result,) = (out / "results").glob("*.json")
    made = (bundle / "manifest.json").stat().st_mtime_ns
    process.kill()
    process.communicate()
    deadline = time.monotonic() + PATIENCE_S
    while list_running(folder):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    part = read_result(result)
    assert not part.complete
    assert part.rows[0].turns

    process = start(folder)
    told, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    assert "2 jobs, 1 of them done before" in err
    assert "export" not in err
    assert (bundle / "manifest.json").stat().st_mtime_ns == made
    whole = read_result(result)
    assert whole.complete
    assert whole.rows[0].turns[: len(part.rows[0].turns)] == part.rows[0].turns
    assert len(whole.rows[0].turns) == 30
    assert list_staged(folder) == []
    (row,) = json.loads(told)["rows"]
    assert (row["model"], row["p50_ms"]) == ("mine:build", whole.rows[0].latency_ms and whole.rows[0].latency_ms.p50)
    assert len((out / "sweep.csv").read_text().splitlines()) == 2
    assert "mine:build" in (out / "sweep.html").read_text()


def test_ctrl_c_leaves_nothing_running_and_nothing_half_made(folder: Path) -> None:
    process = start(folder)
    wait_for(lambda: list_staged(folder), process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert list_running(folder) == []
    assert list_staged(folder) == []
    assert not (folder / "out" / "failures").exists()
