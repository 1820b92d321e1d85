"""A bench of a board by ssh and of a phone by adb, from the command line: real servers on loopback."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bigvit_edge.devices import open_device
from bigvit_edge.devices.process import run_words
from bigvit_edge.results import read_result
from tests.devices.machines import Machine
from tests.native import ROOT

FILE = ROOT / "tests/runtime/corpus/valid_tiny.bve"
VERB = (Path(sys.executable).with_name("bigvit-edge"), "bench")


@pytest.fixture(params=["ssh_machine", "adb_machine"])
def machine(request: pytest.FixtureRequest) -> Machine:
    found: Machine = request.getfixturevalue(request.param)
    return found


def bench(machine: Machine, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    words = (*VERB, FILE, "--device", machine.name, "--rounds", "2", "-o", folder / "one.json", *options)
    return subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)


def list_left(machine: Machine) -> str:
    """Our files and programs that are still there."""
    device = open_device(machine.name)
    try:
        script = 'ls -A "$1" 2>/dev/null; grep -l BIGVIT_EDGE_RUN /proc/[0-9]*/environ 2>/dev/null | grep -v "/$$/"; :'
        words = ("env", "-u", "BIGVIT_EDGE_RUN", "sh", "-c", script, "sh", device.home)
        return run_words(device, words).out.strip()
    finally:
        device.close()


def test_a_file_is_measured_there(machine: Machine, tmp_path: Path) -> None:
    done = bench(machine, tmp_path)
    assert done.returncode == 0, done.stderr
    result = read_result(tmp_path / "one.json")
    (row,) = result.rows
    assert (result.device, row.launch) == (machine.name, {"ssh": "ssh", "adb": "adb shell"}[machine.name[:3]])
    assert len(row.turns) == 2
    assert row.latency_ms
    assert row.load
    assert result.machine.architecture == {"ssh": "aarch64", "adb": os.uname().machine}[machine.name[:3]]
    assert row.file in done.stdout


def test_an_interrupted_bench_leaves_nothing_there(machine: Machine, tmp_path: Path) -> None:
    words = (*VERB, FILE, "--device", machine.name, "--minutes", "5", "-o", tmp_path / "one.json")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as started:
        end = time.monotonic() + 120
        while not (tmp_path / "one.json").exists() and time.monotonic() < end:  # after ten seconds of turns
            time.sleep(0.2)
        started.send_signal(signal.SIGINT)
        _, said = started.communicate(timeout=60)
    assert started.returncode == 130, said
    assert "--resume goes on" in said
    assert not read_result(tmp_path / "one.json").complete
    assert list_left(machine) == ""


def test_a_format_without_its_runtime_there_says_so(ssh_machine: Machine, tmp_path: Path) -> None:
    other = tmp_path / "model.onnx"
    other.write_bytes(b"")
    words = (*VERB, other, FILE, "--device", ssh_machine.name, "--rounds", "1", "-o", tmp_path / "one.json", "--json")
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    absent, there = json.loads(done.stdout)["rows"]
    assert absent["verdicts"] == ["failed"]
    assert "no Python 3 there" in absent["error"]
    assert there["turns"]
