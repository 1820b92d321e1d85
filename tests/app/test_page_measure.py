"""The page's bench, on a host that a test makes: its passes, what it keeps, and that nothing ends it early."""

from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bigvit_edge.bench.frames import Spent
from bigvit_edge.bench.warmups import warm_up
from bigvit_edge.results import Frames, read_result
from tests.app.page import run_module
from tests.bench.made import make_machine

# host: its clock goes on by what turns and pauses take. case: a plan, and per model what goes wrong.
MEASURE = """async (m, {plan, models, machine, cancelAt, keepFails, surroundings}) => {
  let now = 1e6, turns = 0, live = 0, most = 0;
  Date.now = () => now;
  const log = [], kept = [];
  const makeRunner = async (model, evict) => {
    if (model.refuses) throw new Error(model.refuses);
    live += 1;
    most = Math.max(most, live);
    const runner = {
      ready: {runtime: "bve", version: "0.1.0", build: {isa: "neon"}, session: {isa: "neon", ops: [], cores: []},
        load_ms: evict ? 9 : 3, first_ms: 2, cached_share: evict ? 0 : 1, cores_allowed: [0, 1, 2, 3]},
      run: async (seconds, images, period_ms) => {
        if (!evict) log.push(["run", model.name, seconds, images, period_ms]);
        if (model.dies && seconds && ++turns > model.dies) throw new Error("Android stopped it");
        const start = now * 1e6;
        now += Math.max(seconds * 1e3, images);
        const times = Array.from({length: images}, (_, i) => 1 + i / 100);
        return {start_ns: start, end_ns: now * 1e6, times_ms: model.broken ? [0] : times, cpu_ms: 1, thread_ms: {0: 1},
          clock_mhz: [2000, 2000], cores: {0: images}, throttled_periods: 0};
      },
      frames: async (seconds, images, period_ms) => {
        log.push(["frames", model.name, seconds, images, period_ms, log.length]);
        if (model.lacks) return {lack: model.lacks};
        if (log.filter(([verb]) => verb === "frames").length === model.breaks) throw new Error("a NaN, it seems");
        const start = now * 1e6;
        now += Math.max(seconds * 1e3, images) * (model.slow || 1);
        return {frame: "a frame", prepared_by: "somebody", start_ns: start, end_ns: now * 1e6,
          label_ms: Array.from({length: images}, (_, i) => 2 + i), prepare_ms: Array.from({length: images}, () => 0.5)};
      },
      memory: async () => ({peak_bytes: 2000, anonymous_bytes: model.wants || 1000}),
      close: async () => { live -= 1; },
    };
    return runner;
  };
  const host = {
    name: "app", machine: async () => machine, about: async () => ({device: "app:x", tool: "0", command: ["a"]}),
    open: (model, method, policy, {evict}) => makeRunner(model, evict),
    hold: async (text) => { log.push(["hold", text]); }, release: async () => { log.push(["release"]); },
    pause: async (ms) => { now += ms; },
    keep: async (name, text) => { if (keepFails) throw new Error("no room"); kept.push([name, text, now]); },
    surroundings: async () => surroundings.shift() || {foreground: true, cpuset: "/top-app"},
    energy: async () => { throw new Error("no meter"); },
  };
  const shown = [];
  const show = {
    step: (text) => { shown.push([now, text]); },
    round: (done, of, share) => { shown.push([now, done, of, share]); },
  };
  const cases = models.map((model) => ({
    model: {sha256: model.name, bytes: 500, format: "bve", precision: "int8", ...model},
    method: {name: "keep_1", keep: 1, delegated_share: 1},
  }));
  const told = await m.measure(host, {...plan, cases}, show, () => shown.length > cancelAt).then(
    (result) => ({result}), (error) => ({error: error.message, lost: error.result}));
  return {...told, log, shown, live, most, kept: kept.map(([name, text, at]) => [name, text, at])};
}"""
PLAN = {"clusters": [], "threads": 1, "rounds": 30, "minutes": 0, "fps": 0, "energy": True, "name": "r.json"}
ONE = {"name": "a.bve"}


def measure(folder: Path, *cases: dict[str, Any]) -> list[dict[str, Any]]:
    machine = asdict(make_machine())
    whole = [
        {"machine": machine, "cancelAt": 1e9, "keepFails": False, "surroundings": [], "models": [ONE], **case,
         "plan": {**PLAN, **case.get("plan", {})}}
        for case in cases
    ]  # fmt: skip
    answers = run_module(folder, "measure.js", MEASURE, whole)
    assert all("value" in answer for answer in answers), answers
    told = [answer["value"] for answer in answers]
    for each in told:  # whatever happens, all processes end and the phone is let go
        assert (each["live"], each["log"][0][0], each["log"][-1]) == (0, "hold", ["release"])
    return told


def test_rows_take_turns_in_drawn_orders(tmp_path: Path) -> None:
    models = [{"name": "a.bve"}, {"name": "b.bve"}, {"name": "c.bve"}]
    (told,) = measure(tmp_path, {"models": models})
    assert told["most"] == 3
    order = [entry[1] for entry in told["log"] if entry[0] == "run" and entry[2]]
    rounds = [tuple(order[i : i + 3]) for i in range(0, len(order), 3)]
    assert len(rounds) == 30
    assert all(sorted(names) == ["a.bve", "b.bve", "c.bve"] for names in rounds)
    assert len(set(rounds)) > 2
    rows = told["result"]["rows"]
    assert all(row["verdicts"] == ["valid"] and row["warm"] and row["warmup_images"] == 30 for row in rows)
    assert rows[0]["load"] == {
        "cold_ms": 9, "cold_first_ms": 2, "cached_share": 0, "warm_ms": 3, "first_ms": 2,
    }  # fmt: skip
    assert rows[0]["energy"] == "not available: no meter"
    assert rows[0]["build"] == {"isa": "neon"}
    (tmp_path / "r.json").write_text(told["kept"][-1][1])
    assert read_result(tmp_path / "r.json").complete


def list_due(slow: float, turn_s: float, rounds: int) -> list[int]:
    """After which turns bench lets frames follow, each as long as so many turns."""
    spent, due = Spent(), []
    for number in range(rounds):
        spent.turns_ns += int(turn_s * 1e9)
        if spent.is_due():
            spent.frames_ns += int(slow * turn_s * 1e9)
            due.append(number)
    return due


@pytest.mark.parametrize(("slow", "expected"), [(1, [0, 7, 15, 23]), (5, [0])])
def test_frames_have_no_more_than_their_share(slow: int, expected: list[int], tmp_path: Path) -> None:
    (told,) = measure(tmp_path, {"models": [{**ONE, "slow": slow}]})
    (row,) = told["result"]["rows"]
    frame = row["frame"]
    assert frame["turns"] == list_due(slow, 0.1, 30) == expected
    tries = [entry[2:5] for entry in told["log"] if entry[0] == "frames"]
    assert tries == [[0, 1, 0], *[[0.1, 3, 0]] * len(expected)]  # the first is not counted
    assert frame["label_times_ms"] == [2, 3, 4] * len(expected)
    assert (frame["label_ms"]["p50"], frame["prepare_ms"]["p90"], frame["prepared_by"]) == (3, 0.5, "somebody")
    assert (frame["model_ms"], frame["ratio"]) == (1.01, 3 / 1.01)
    assert len(row["turns"]) == 30
    (tmp_path / "r.json").write_text(told["kept"][-1][1])
    read = read_result(tmp_path / "r.json").rows[0].frame
    assert isinstance(read, Frames)
    assert read.turns == tuple(expected)


def test_who_prepares_no_frames_says_why(tmp_path: Path) -> None:
    lacking, paced = measure(
        tmp_path, {"models": [{**ONE, "lacks": "nobody says how"}]}, {"plan": {"fps": 25, "rounds": 2}}
    )
    (row,) = lacking["result"]["rows"]
    assert row["frame"] == "not available: nobody says how"
    assert (row["verdicts"], sum(entry[0] == "frames" for entry in lacking["log"])) == (["valid"], 1)
    assert [entry[2:5] for entry in paced["log"] if entry[0] == "frames"] == [[0, 1, 0], [1, 3, 40]]


@pytest.mark.parametrize("breaks", [1, 2, 3])  # while it warms up, after the first turn, after a later one
def test_frames_that_fail_leave_the_model_its_turns(breaks: int, tmp_path: Path) -> None:
    (told,) = measure(tmp_path, {"models": [{**ONE, "breaks": breaks}]})
    (row,) = told["result"]["rows"]
    assert (row["frame"], row["error"]) == ("not available: a NaN, it seems", "")
    assert (row["verdicts"], len(row["turns"])) == (["valid"], 30)
    assert sum(entry[0] == "frames" for entry in told["log"]) == breaks


def test_turns_are_long_where_minutes_or_a_pace_are_asked_for(tmp_path: Path) -> None:
    short, paced, long = measure(tmp_path, {}, {"plan": {"fps": 25}}, {"plan": {"rounds": 0, "minutes": 2}})
    turns = [[entry[2:] for entry in told["log"] if entry[0] == "run" and entry[2]] for told in (short, paced, long)]
    assert [each[0] for each in turns] == [[0.1, 3, 0], [1, 3, 40], [1, 3, 0]]
    assert [len(turns[0]), len(turns[1])] == [30, 30]
    assert 100 <= len(turns[2]) <= 110  # an eighth of the time is frames'
    assert long["result"]["protocol"] == {
        "turn_s": 1, "turn_images": 3, "rounds": 0, "minutes": 2, "fps": 0, "cool_c": None, "pictures": "none",
    }  # fmt: skip


def test_progress_is_shown_once_a_second_at_most_and_parts_are_kept_every_ten(tmp_path: Path) -> None:
    (told,) = measure(tmp_path, {"plan": {"rounds": 0, "minutes": 1}})
    at = [entry[0] for entry in told["shown"] if len(entry) == 4]
    assert len(at) > 30
    assert all(later - before >= 1000 for before, later in pairwise(at))
    kept = [entry[2] for entry in told["kept"]]
    assert 6 <= len(kept) <= 8
    assert all(later - before > 10_000 for before, later in pairwise(kept[:-1]))


def test_a_cancelled_run_keeps_its_part(tmp_path: Path) -> None:
    late, early = measure(tmp_path, {"plan": {"minutes": 100}, "cancelAt": 12}, {"cancelAt": 1})
    assert late["result"]["complete"] is False
    assert len(late["result"]["rows"][0]["turns"]) > 3
    (tmp_path / "r.json").write_text(late["kept"][-1][1])
    assert not read_result(tmp_path / "r.json").complete
    assert early["error"] == "cancelled"
    assert early["kept"] == []


def test_a_row_that_fails_says_why_and_the_others_go_on(tmp_path: Path) -> None:
    good, small = {"name": "good.bve"}, {**asdict(make_machine()), "available_bytes": 2**30}
    refused, died, broken, large, alone = measure(
        tmp_path,
        {"models": [{"name": "a.bve", "refuses": "it is damaged"}, good]},
        {"models": [{"name": "a.bve", "dies": 5}, good]},
        {"models": [{"name": "a.bve", "broken": True}, good]},
        {"models": [{"name": "a.bve", "wants": 3e9}, good], "machine": small},
        {"models": [{"name": "a.bve", "refuses": "it is damaged"}]},
    )
    for told, why in ((refused, "it is damaged"), (died, "Android stopped it"), (broken, "no clock tells"),
                      (large, "2,861 MB are more than the 1,024 MB that are free here")):  # fmt: skip
        bad, fine = told["result"]["rows"]
        assert bad["verdicts"] == ["failed"]
        assert why in bad["error"]
        assert (fine["verdicts"], len(fine["turns"])) == (["valid"], 30)
    assert len(died["result"]["rows"][0]["turns"]) == 5
    assert (alone["error"], alone["kept"]) == ("it is damaged", [])


def test_what_cannot_be_kept_is_not_lost(tmp_path: Path) -> None:
    (told,) = measure(tmp_path, {"keepFails": True, "plan": {"rounds": 3}})
    assert told["error"] == "no room"
    assert [len(told["lost"]["rows"][0]["turns"]), told["lost"]["complete"]] == [3, True]


def test_the_surroundings_are_of_the_whole_time(tmp_path: Path) -> None:
    seen = [{"foreground": False, "thermal_status": 0, "thermal_headroom": 0.3}]
    seen += [{"foreground": True, "thermal_status": 2, "thermal_headroom": 0.9, "cpuset": "/x"}] * 100
    away = [{"foreground": True}, {"foreground": True}, {"foreground": False}]
    told, left = measure(
        tmp_path, {"surroundings": seen, "plan": {"minutes": 0.1}}, {"surroundings": away, "plan": {"minutes": 0.1}}
    )
    assert told["result"]["rows"][0]["surroundings"] == {
        "foreground": True, "cpuset": "/x", "thermal_status": [0, 2], "thermal_headroom": [0.3, 0.9], "agent": "",
        "isolated": None,
    }  # fmt: skip
    assert left["result"]["rows"][0]["surroundings"]["foreground"] is False


@pytest.mark.parametrize("first_ms", [1.0, 300.0])
def test_it_warms_up_as_the_command_line_does(first_ms: float, tmp_path: Path) -> None:
    """Until three blocks' medians agree: on times that settle, drift, or never do."""
    series = [
        [5.0, 3.0, 2.0, 1.0, 1.01, 1.0, 1.0], [1.0] * 5, [1.0, 1.04] * 60, [1.0, 1.02, 1.035, 1.036, 1.037],
        [2.0**-n for n in range(120)],
    ]  # fmt: skip
    here = []
    for times in series:
        told = iter(times)
        runner = SimpleNamespace(
            ready=SimpleNamespace(first_ms=first_ms),
            run=lambda seconds, images, told=told: SimpleNamespace(times_ms=[next(told)] * images),
        )
        try:
            here.append(list(warm_up(runner)))  # type: ignore[arg-type]
        except StopIteration:
            here.append(None)  # type: ignore[arg-type]
    ask = """async (m, [first_ms, times]) => {
      const run = async (seconds, images) => {
        if (!times.length) throw new Error("no more");
        return {times_ms: new Array(images).fill(times.shift())};
      };
      const {images, isWarm} = await m.warmUp({ready: {first_ms}, run});
      return [images, isWarm];
    }"""
    answers = run_module(tmp_path, "measure.js", ask, [[first_ms, times] for times in series])
    assert [answer.get("value") for answer in answers] == here
    assert any(each and each[1] for each in here)
    assert any(each and not each[1] for each in here) or first_ms > 200
