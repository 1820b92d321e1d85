"""What goes wrong in the middle of a bench on this machine: what is told, what is kept, and that nothing runs on."""

import json
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from bigvit_edge.bench import measurement
from bigvit_edge.bench.answers import Pictures
from bigvit_edge.bench.cases import list_cases
from bigvit_edge.bench.energy import Meter
from bigvit_edge.bench.measurement import Plan, Progress, measure
from bigvit_edge.bench.runners import Runner
from bigvit_edge.devices.contract import DeviceError
from bigvit_edge.devices.local import Local
from bigvit_edge.exits import report_error
from bigvit_edge.results import Answers, Protocol, Result, read_result
from tests.bench.made import Watched
from tests.native import ROOT, run_program

FILE = ROOT / "tests/runtime/corpus/valid_tiny.bve"
BVE_RUN = ROOT / "build/host/bve-run"
VERB = (Path(sys.executable).with_name("bigvit-edge"), "bench")
PLAN = Plan(Protocol(0.001, 2, 3, 0, 0, None, "none"), energy=False)
PHASES = ["cold loads and memory", "warm-up", "turns", "answers", "energy"]


@pytest.fixture
def device() -> Watched:
    run_program("bve-run", "--version")  # or skip
    return Watched()


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    """The same program twice."""
    (tmp_path / "in").mkdir()
    for name in ("a.bve", "b.bve"):
        shutil.copy(FILE, tmp_path / "in" / name)
    return [tmp_path / "in/a.bve", tmp_path / "in/b.bve"]


def bench(
    device: Local, files: list[Path], path: Path, plan: Plan = PLAN, program: Path = BVE_RUN, **more: object
) -> Result:
    return measure(list_cases(files), device, lambda store: str(program), plan, path, **more)  # type: ignore[arg-type]


def after(count: int, act: Callable[[], None]) -> Progress:
    """Do something after so many rounds."""

    def look(done: int, of: int, share: float) -> None:
        if done == count:
            act()

    return Progress(round=look)


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sensor and pictures for any file, so that every phase runs."""
    meter = Meter("a clock", ("/proc/uptime",), "s", power=lambda texts: float((texts[0] or "0").split()[0]))
    monkeypatch.setattr(measurement, "find_meter", lambda machine: meter)

    def judge(case: object, runner: Runner, pictures: Pictures) -> Answers:
        runner.read_memory()
        return Answers(1.0, 1, pictures.name)

    monkeypatch.setattr(measurement, "judge_answers", judge)
    monkeypatch.setattr("bigvit_edge.bench.energy.RUN_S", 0.05)


# ---- Ctrl-C


@pytest.mark.usefixtures("played")
@pytest.mark.parametrize("phase", PHASES)
def test_ctrl_c_ends_every_phase(phase: str, device: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [""]

    @contextmanager
    def step(name: str) -> Iterator[None]:
        now[0] = name
        yield

    for name in ("run", "read_memory"):
        ask = getattr(Runner, name)

        def ask_once(self: Runner, *words: object, ask: Callable[..., object] = ask) -> object:
            told = ask(self, *words)
            if now[0] == phase:
                signal.raise_signal(signal.SIGINT)
            return told

        monkeypatch.setattr(Runner, name, ask_once)
    plan = replace(PLAN, energy=True, pictures=Pictures("any"))
    path = tmp_path / "one.json"
    with pytest.raises(KeyboardInterrupt) as e:
        bench(device, [FILE], path, plan, progress=Progress(step=step))
    assert device.runs_nothing()
    told = phase in PHASES[3:]  # of the turn that was cut off there is nothing
    assert [item.name for item in tmp_path.iterdir()] == (["one.json"] if told else [])
    if told:
        assert "the same command with --resume goes on" in e.value.__notes__[0]
        part = read_result(path)
        assert (len(part.rows[0].turns), part.complete) == (3, False)
        monkeypatch.undo()
        whole = bench(Local("local"), [FILE], path, replace(plan, pictures=None), earlier=part)
        assert whole.complete
        assert whole.rows[0].turns == part.rows[0].turns


# ---- runners


def test_a_runner_that_is_killed_is_a_row_that_says_so_and_the_others_go_on(
    device: Watched, two: list[Path], tmp_path: Path
) -> None:
    result = bench(device, two, tmp_path / "r.json", progress=after(1, lambda: device.list_runners()[0].kill()))
    dead, other = result.rows
    assert dead.verdicts == ("failed",)
    assert dead.error == "bve-run on local was killed by SIGKILL, as the system does where memory runs out"
    assert (len(dead.turns), len(other.turns), other.error) == (1, 3, "")
    assert result.complete
    assert device.runs_nothing()


def test_the_last_runner_that_is_killed_ends_the_bench_and_keeps_its_turns(device: Watched, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    with pytest.raises(DeviceError, match=r"was killed by SIGKILL.*; expected at least one row") as e:
        bench(device, [FILE], path, progress=after(2, lambda: device.list_runners()[0].kill()))
    assert len(read_result(path).rows[0].turns) == 2
    assert f"is in {path}" in e.value.__notes__[0]
    assert report_error(e.value).exit_code == 2


@pytest.mark.usefixtures("played")
def test_times_hold_where_a_runner_is_killed_after_them(device: Watched, two: list[Path], tmp_path: Path) -> None:
    plan = replace(PLAN, energy=True, pictures=Pictures("any"))
    result = bench(device, two, tmp_path / "r.json", plan, progress=after(3, lambda: device.list_runners()[0].kill()))
    (row, _) = result.rows
    assert row.error == ""
    assert row.latency_ms
    assert (
        row.answers
        == row.energy
        == ("not available: bve-run on local was killed by SIGKILL, as the system does where memory runs out")
    )


def test_a_file_that_fails_when_it_first_runs_says_so(device: Watched, two: list[Path], tmp_path: Path) -> None:
    image, logits = (helper.make_tensor_value_info(n, TensorProto.FLOAT, (1, 3)) for n in ("image", "logits"))
    index = helper.make_tensor("index", TensorProto.INT64, (1,), [9])
    node = helper.make_node("Gather", ["image", "index"], ["logits"])
    graph = helper.make_graph([node], "late", [image], [logits], [index])
    path = tmp_path / "in/late.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    good, late = bench(device, [two[0], path], tmp_path / "r.json").rows
    assert (good.error, late.verdicts) == ("", ("failed",))
    assert "ended with status 1" in late.error
    assert "out of data bounds" in late.error
    assert "Traceback" not in late.error


def play(folder: Path, turn: str, ready: str = "{}") -> Path:
    """A bve-run of which serve answers every line so."""
    answer = f"printf '%s\\n' {shlex.quote(turn)}"
    program = folder / "bve-run"
    real = shlex.quote(str(BVE_RUN))
    program.write_text(
        f'#!/bin/sh\n[ "$1" = serve ] || exec {real} "$@"\n'
        f"{real} serve {shlex.quote(str(FILE))} </dev/null | head -n 1\nwhile read -r line; do {answer}; done\n"
    )
    program.chmod(0o755)
    return program


def spell_turn(start: int = 5, end: int = 9, *times_ms: float) -> str:
    told = {"start_ns": start, "end_ns": end, "times_ms": times_ms, "cpu_ms": 1, "clock_mhz": [1, 1], "cores": {}}
    return json.dumps({**told, "thread_ms": {}, "throttled_periods": 0})


@pytest.mark.parametrize(
    ("turn", "says"),
    [
        ("no JSON", "JSONDecodeError"),
        ("[]", "ValueError: no object"),
        ("{}", "KeyError: start_ns"),
        (spell_turn(9, 5, 1.0), "times that no clock tells"),  # it went backwards
        (spell_turn(5, 5, 1.0), "times that no clock tells"),
        (spell_turn(5, 9, -1.0), "times that no clock tells"),
        (spell_turn(5, 9, math.nan), "times that no clock tells"),
        (spell_turn(5, 9, math.inf), "times that no clock tells"),
        (spell_turn(5, 9), "times that no clock tells"),
    ],
)
def test_a_turn_that_no_clock_tells_is_no_turn(turn: str, says: str, device: Watched, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="from local") as e:
        bench(device, [FILE], tmp_path / "r.json", program=play(tmp_path, turn))
    assert says in e.value.met
    assert device.runs_nothing()
    assert not (tmp_path / "r.json").exists()


# ---- places


def test_what_was_measured_is_kept_elsewhere_where_its_folder_is_lost(device: Watched, tmp_path: Path) -> None:
    folder = tmp_path / "results"

    def lose() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.write_text("another's")

    with pytest.raises(OSError, match="results") as e:
        bench(device, [FILE], folder / "r.json", progress=after(3, lose))
    (note,) = e.value.__notes__
    spare = Path(note.removeprefix("what was measured until then is in ").partition(";")[0])
    assert f"--resume -o {spare} goes on" in note
    assert len(read_result(spare).rows[0].turns) == 3
    assert folder.read_text() == "another's"
    assert device.runs_nothing()
    spare.unlink()


def test_a_disk_that_fills_up_is_no_fault_of_ours(tmp_path: Path) -> None:
    words = (*VERB, FILE, "--device=null", "--rounds=250", "-o", "r.json")
    script = f"ulimit -f 20; exec {shlex.join(map(str, words))}"  # kB: room for some turns, not for all
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert (
        "File too large; expected room on the disk; a part of what was measured is in r.json; the rest" in done.stderr
    )
    assert [item.name for item in tmp_path.iterdir()] == ["r.json"]
    assert not read_result(tmp_path / "r.json").complete


def test_a_bench_that_is_terminated_leaves_no_program_and_its_turns(tmp_path: Path) -> None:
    run_program("bve-run", "--version")
    words = (*VERB, FILE, "--minutes=5", "-o", "r.json", "--no-energy")
    marked = os.environ | {"X_BENCH": str(tmp_path)}
    with subprocess.Popen(words, stderr=subprocess.PIPE, cwd=tmp_path, text=True, env=marked) as started:
        assert started.stderr
        while "warm-up" not in started.stderr.readline():
            pass
        started.send_signal(signal.SIGTERM)
        said = started.stderr.read()
    assert started.returncode == 128 + signal.SIGTERM
    assert said.splitlines()[-1].startswith("interrupted")
    mark = f"X_BENCH={tmp_path}".encode()
    left = [path for path in Path("/proc").glob("[0-9]*/environ") if mark in read(path)]
    assert not left


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
