"""The whole path, on the device that runs nothing and with a tiny program on this machine."""

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest

from bigvit_edge.bench.cases import Case, list_cases
from bigvit_edge.bench.frame_reader import FRAME
from bigvit_edge.bench.measurement import Plan, Progress, measure
from bigvit_edge.bench.runners import Tools, find_tools
from bigvit_edge.devices import open_device
from bigvit_edge.devices.contract import Device, DeviceError
from bigvit_edge.devices.local import Local
from bigvit_edge.errors import UserError
from bigvit_edge.export.convert import capture
from bigvit_edge.export.emitter import emit_program
from bigvit_edge.export.program import to_bytes
from bigvit_edge.preprocessing import Preprocessing
from bigvit_edge.results import Frames, Protocol, Result, describe_times, read_result
from tests.bench.made import Watched
from tests.native import ROOT, run_program
from tests.runtime.test_session import build

FILE = ROOT / "tests/runtime/corpus/valid_tiny.bve"
PROTOCOL = Protocol(0.001, 2, 4, 0, 0, None, "none")
PLAN = Plan(PROTOCOL, energy=False)
BVE_RUN = ROOT / "build/host/bve-run"


def bench(device: Device, path: Path, plan: Plan = PLAN, cases: Sequence[Case] | None = None, **more: object) -> Result:
    if device.launch != "none":
        run_program("bve-run", "--version")  # or skip
    return measure(cases or list_cases([FILE]), device, lambda store: str(BVE_RUN), plan, path, **more)  # type: ignore[arg-type]


def test_the_path_runs_without_a_machine(tmp_path: Path) -> None:
    result = bench(open_device("null"), tmp_path / "one.json")
    (row,) = result.rows
    assert (len(row.turns), row.verdicts) == (4, ("failed",))
    assert "made up" in row.reasons[0]
    assert read_result(tmp_path / "one.json") == result


def test_a_program_is_measured_here(tmp_path: Path) -> None:
    core = min(os.sched_getaffinity(0))
    result = bench(Local("local"), tmp_path / "one.json")
    (row,) = result.rows
    assert result.complete
    assert len(row.turns) == 4
    assert all(len(turn.times_ms) >= 2 and turn.end_ns - turn.start_ns >= 0.001e9 for turn in row.turns)
    assert [turn.start_ns for turn in row.turns] == sorted(turn.start_ns for turn in row.turns)
    assert row.latency_ms
    assert row.latency_ms.images == sum(len(turn.times_ms) for turn in row.turns)
    assert row.runtime.startswith("bve ")
    assert core in row.cores_allowed
    assert row.load
    assert row.load.cold_ms > 0 < row.load.first_ms
    assert row.memory
    assert row.memory.peak_bytes > row.memory.anonymous_bytes > 0
    assert result.machine.cores


def test_frames_follow_turns_and_why_there_are_none_is_told(tmp_path: Path) -> None:
    framed = make_framed(tmp_path / "framed.bve")
    result = bench(Local("local"), tmp_path / "one.json", cases=list_cases([framed, FILE]))
    assert read_result(tmp_path / "one.json") == result
    row, other = result.rows
    frames = row.frame
    assert isinstance(frames, Frames)
    assert (frames.frame, frames.prepared_by, frames.turns[0]) == (FRAME, "bve_set_frame", 0)
    assert frames.label_ms == describe_times(frames.label_times_ms)
    assert frames.prepare_ms == describe_times(frames.prepare_times_ms)
    times = [ms for n in frames.turns for ms in row.turns[n].times_ms]
    assert (frames.model_ms, frames.ratio) == (median(times), frames.label_ms.p50 / median(times))
    assert (len(row.turns), len(other.turns)) == (4, 4)
    assert isinstance(other.frame, str)
    assert other.frame.startswith("not available: a program that says nothing of pictures")


def make_framed(path: Path) -> Path:
    words = {"preprocessing": json.dumps(Preprocessing(32, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)).spell())}
    graph = replace(capture(build(little=True), 32, None), keep=0.5)
    path.write_bytes(to_bytes(emit_program([graph], 4, words)))
    return path


def test_rows_take_turns(tmp_path: Path) -> None:
    plan = replace(PLAN, clusters=("big", "all", "auto"), threads=1)
    result = bench(Local("local"), tmp_path / "one.json", plan)
    assert [row.policy for row in result.rows] == ["big", "all", "auto"]
    rounds = [[row.turns[n] for row in result.rows] for n in range(4)]
    ends = [max(turn.end_ns for turn in turns) for turns in rounds]
    starts = [min(turn.start_ns for turn in turns) for turns in rounds]
    assert all(end < start for end, start in zip(ends, starts[1:], strict=False))


def test_what_cannot_run_is_a_row_that_says_why(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.bve"
    damaged.write_bytes(FILE.read_bytes()[:-100])
    result = bench(Local("local"), tmp_path / "one.json", cases=list_cases([damaged, FILE]))
    bad, good = result.rows
    assert bad.verdicts == ("failed",)
    assert "damaged.bve" in bad.reasons[0]
    assert good.turns


def test_nothing_that_can_run_is_an_error(tmp_path: Path) -> None:
    case = replace(list_cases([FILE])[0], runs_nowhere="it runs on the moon")
    with pytest.raises(UserError, match="nothing of this runs on local: it runs on the moon"):
        bench(Local("local"), tmp_path / "one.json", cases=[case])
    assert not list(tmp_path.iterdir())


class Vanishing(Watched):
    """This machine, which is lost after so many lines were asked of it."""

    gone = False

    def check(self) -> None:
        if self.gone:
            raise DeviceError("local does not answer any more", "a device", lost=True)

    def lose(self, done: int, of: int, share: float) -> None:
        if done == 2:
            self.gone = True
            for process in self.started:
                process.kill()


def test_a_device_that_vanishes_leaves_what_was_measured_and_is_gone_on_with(tmp_path: Path) -> None:
    path, device = tmp_path / "one.json", Vanishing()
    with pytest.raises(DeviceError) as e:
        bench(device, path, progress=Progress(round=device.lose))
    assert e.value.lost
    assert "--resume" in e.value.__notes__[0]
    part = read_result(path)
    assert not part.complete
    assert len(part.rows[0].turns) == 2
    whole = bench(Local("local"), path, earlier=part)
    assert whole.complete
    assert [turn.part for turn in whole.rows[0].turns] == [0, 0, 1, 1]
    assert whole.rows[0].turns[:2] == part.rows[0].turns


def test_an_interruption_leaves_what_was_measured_and_nothing_running(tmp_path: Path) -> None:
    device = Vanishing()

    def interrupt(done: int, of: int, share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench(device, tmp_path / "one.json", progress=Progress(round=interrupt))
    assert len(read_result(tmp_path / "one.json").rows[0].turns) == 1
    assert device.started
    assert all(process.poll() is not None for process in device.started)


def test_a_gate_on_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    plan = replace(PLAN, protocol=replace(PROTOCOL, cool_c=40.0))
    with pytest.raises(UserError, match="whose CPU temperature cannot be read"):
        bench(open_device("null"), tmp_path / "one.json", plan)


def test_a_bench_by_the_clock_ends_by_it(tmp_path: Path) -> None:
    plan = replace(PLAN, protocol=replace(PROTOCOL, rounds=0, minutes=0.005))
    shares: list[float] = []
    bench(
        Local("local"), tmp_path / "one.json", plan, progress=Progress(round=lambda a, b, share: shares.append(share))
    )
    assert shares[-1] >= 1
    assert all(share < 1 for share in shares[:-1])


def test_rows_beyond_the_memory_that_is_free_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_tools

    def find(*words: object) -> Tools:
        tools = found(*words)  # type: ignore[arg-type]
        return replace(tools, machine=replace(tools.machine, available_bytes=FILE.stat().st_size + 10))

    monkeypatch.setattr("bigvit_edge.bench.measurement.find_tools", find)
    with pytest.raises(UserError, match="more than the 0 MB that the rows before it leave free on local"):
        bench(Local("local"), tmp_path / "one.json")


def test_another_build_does_not_go_on_with_a_row(tmp_path: Path) -> None:
    path, device = tmp_path / "one.json", Vanishing()
    with pytest.raises(DeviceError):
        bench(device, path, progress=Progress(round=device.lose))
    part = read_result(path)
    other = replace(part, rows=(replace(part.rows[0], build={"version": "0.0"}),))
    with pytest.raises(UserError, match="ran in another build"):
        bench(Local("local"), path, earlier=other)
