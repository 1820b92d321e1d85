"""bigvit-edge bench and compare from the command line, on the device that runs nothing."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner
from typer.testing import Result as Called

from bigvit_edge.bench import command
from bigvit_edge.bench.command import make_plan, run_bench
from bigvit_edge.bench.measurement import Plan
from bigvit_edge.cli import app
from bigvit_edge.errors import UserError
from bigvit_edge.results import Frames, Protocol, Result, describe_times, read_result, write_result
from tests.bench.made import make_machine, make_result, make_row, make_turn
from tests.native import ROOT, skip

FILE = ROOT / "tests/runtime/corpus/valid_tiny.bve"
PLAN = Plan(Protocol(0.001, 2, 2, 0, 0, None, "none"), energy=False)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*words: object) -> Called:
    return CliRunner().invoke(app, [str(word) for word in words])


def bench(*words: object) -> Called:
    return call("bench", FILE, "--device", "null", "--rounds", 1, *words)


def run(
    output: Path | None = None, resume: bool = False, plan: Plan = PLAN, device: str = "null"
) -> tuple[Result, Path]:
    return run_bench([FILE], device, plan, output, resume)


def cut(path: Path, **fields: object) -> Result:
    """Make a result a part that lacks its last turn."""
    whole = read_result(path)
    rows = tuple(replace(row, turns=row.turns[:-1]) for row in whole.rows)
    part = replace(whole, rows=rows, complete=False, **fields)  # type: ignore[arg-type]
    write_result(part, path)
    return part


# ---- where a result goes


def test_a_result_is_named_after_model_device_and_date() -> None:
    _, path = run()
    assert re.fullmatch(r"results/valid-tiny-null-\d{8}-\d{6}\.json", str(path))


def test_results_of_one_second_are_two_files(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped(datetime):
        @classmethod
        def now(cls, tz: object = None) -> "Stopped":
            return cls(2026, 1, 2, 3, 4, 5)

    monkeypatch.setattr(command, "datetime", Stopped)
    assert [run()[1].name for _ in range(3)] == [
        f"valid-tiny-null-20260102-030405{more}.json" for more in ("", "-1", "-2")
    ]


def test_a_devices_name_never_leads_out_of_the_folder() -> None:
    cases = command.list_cases([FILE])
    for device in ("ssh:a@[fe80::1%eth0]:22", "adb:../../etc", "adb:a b;c'd", "adb:" + "x" * 500):
        path = command.choose_path(cases, device, None)
        assert path.parent == Path("results")
        assert re.fullmatch(r"[A-Za-z0-9.-]+", path.name)
        assert len(path.name) < 150


def test_what_is_there_already_is_never_written_over() -> None:
    Path("file.json").write_text("mine")
    Path("folder").mkdir()
    Path("dangling").symlink_to("nowhere")
    for name in ("file.json", "folder", "dangling"):
        with pytest.raises(UserError, match=f"{name} is there already; expected a new file"):
            run(Path(name))
    assert Path("file.json").read_text() == "mine"
    assert not Path("nowhere").exists()


def test_a_place_that_cannot_be_written_is_refused_before_anything_runs(here: Path) -> None:
    Path("file").write_text("")
    for output in (Path("file/one.json"), Path("/proc/one.json"), Path("y" * 300) / "c", Path("x" * 300)):
        with pytest.raises(UserError, match="cannot be written"):
            run(output)
    with pytest.raises(UserError, match="device 'nil'"):
        run(Path("deep/er/one.json"), device="nil")
    assert [path.name for path in here.iterdir()] == ["file"]


def test_a_full_disk_is_told_before_anything_runs(here: Path) -> None:
    if os.geteuid():
        skip("not root, who alone mounts a small disk", "run the tests as root")
    (here / "small").mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "t", "small"], capture_output=True, check=False)
    if mounted.returncode:
        skip("no right to mount", "run the tests where root may")
    try:
        (here / "small/filling").write_bytes(bytes(4096))
        called = bench("-o", "small/one.json")
        assert (called.exit_code, called.stdout) == (2, "")
        assert "small/one.json cannot be written (No space left on device)" in called.stderr
        assert [path.name for path in Path("small").iterdir()] == ["filling"]
    finally:
        subprocess.run(["umount", "-l", "small"], check=True)


# ---- resume


def test_resume_finds_its_part_among_what_else_lies_there() -> None:
    _, path = run()
    cut(path)
    other = replace(PLAN, protocol=replace(PLAN.protocol, fps=30))
    _, theirs = run(plan=other)
    cut(theirs)
    _, done = run(Path("results/complete.json"))
    results = Path("results")
    (results / "broken.json").write_text("{")
    (results / "newer.json").write_text('{"version": 2}')
    (results / "folder.json").mkdir()
    (results / "dangling.json").symlink_to("nowhere")
    os.mkfifo(results / "pipe.json")
    before = {item: item.read_bytes() for item in (theirs, done)}
    result, found = run(resume=True)
    assert found == path
    assert result.complete
    assert [turn.part for turn in result.rows[0].turns] == [0, 1]
    assert {item: item.read_bytes() for item in before} == before
    with pytest.raises(UserError, match="--resume, and no part of this bench in results/"):
        run(resume=True)


@pytest.mark.parametrize(
    "other",
    [
        replace(PLAN, protocol=replace(PLAN.protocol, rounds=3)),
        replace(PLAN, protocol=replace(PLAN.protocol, cool_c=40.0)),
        replace(PLAN, clusters=("auto",)),
        replace(PLAN, threads=1),
        replace(PLAN, energy=True),
    ],
)
def test_resume_refuses_the_part_of_another_bench(other: Plan) -> None:
    _, path = run(Path("one.json"))
    cut(path)
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"no part of this bench in one\.json"):
        run(path, True, other)
    assert path.read_bytes() == before


def test_resume_refuses_a_part_of_another_version_or_machine_or_one_that_was_edited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, path = run(Path("one.json"))
    cut(path, machine=make_machine())
    with pytest.raises(UserError, match=r"--resume on .*; expected a board \(a CPU.*, as in the first part"):
        run(path, True)
    path.write_text(path.read_text().replace('"complete": false', '"complete":false'))
    path.write_text(path.read_text().replace('"a CPU"', '"another"'))
    with pytest.raises(UserError, match="was edited after the measurement"):
        run(path, True)
    _, path = run(Path("two.json"))
    cut(path)
    monkeypatch.setattr("bigvit_edge.bench.measurement.list_versions", lambda names: {"bigvit-edge": "99"})
    with pytest.raises(UserError, match="no part of this bench"):
        run(path, True)
    with pytest.raises(UserError, match=r"no file none\.json"):
        run(Path("none.json"), True)


# ---- words


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--minutes", "nan"), "--minutes nan; expected 0.001 to 240"),
        (("--minutes", "inf"), "--minutes inf"),
        (("--minutes", "-1"), "--minutes -1"),
        (("--minutes", "1e-9"), "--minutes 1e-09"),
        (("--fps", "nan"), "--fps nan; expected 0.01 to 1000"),
        (("--fps", "-30"), "--fps -30"),
        (("--fps", "1e9"), "--fps 1e+09"),
        (("--fps", "1e-9"), "--fps 1e-09"),
        (("--cool", "inf"), "--cool inf; expected -40 to 150"),
        (("--cool", "-300"), "--cool -300"),
        (("--threads", "0"), "--threads 0; expected 1 to 1024"),
        (("--threads", "-2"), "--threads -2"),
        (("--threads", "99999999999999999999"), "--threads 1e+20"),
        (("--rounds", "0"), "--rounds 0; expected 1 to 100000"),
        (("--keep", "nan"), "--keep nan; expected none: no model has a ratio"),
        (("--clusters", "big;reboot"), "--clusters 'big;reboot'"),
        (("--device", "ssh:pi@a'b;touch x"), "expected ssh:USER@HOST"),
        (("--device", "null;touch x"), "did you mean null?"),
        (("--device", "$(touch x)"), "expected local, null, adb:SERIAL or ssh:USER@HOST[:PORT]"),
        (("--device", "local\n"), "device 'local\\n'"),
        (("--device", ""), "device ''"),
        (("--images", "nowhere"), "no folder nowhere"),
        (("none.bve",), "no none.bve; expected a bundle or a model file"),
    ],
)
def test_words_that_cannot_work_are_refused(words: tuple[str, ...], says: str, here: Path) -> None:
    called = bench(*words)
    assert called.exit_code == 2
    assert says in called.stderr
    assert not list(here.iterdir())


def test_a_plan_is_what_was_said() -> None:
    plan = make_plan(minutes=2, fps=30, cool_c=0.0, clusters=["big"], threads=2)
    assert plan.protocol == Protocol(1.0, 3, 0, 2, 30, 0.0, "the demo's held-out images")
    assert (plan.clusters, plan.threads, plan.notes) == (("big",), 2, ())


def test_notes_of_pictures_are_in_the_result(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bigvit_edge.bench.answers.MOST", 1)
    for name in "ab":
        (here / "pictures" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(here / "pictures" / name / "1.png")
    told = "pictures holds 2 pictures: every 2th is answered"
    assert make_plan(images=Path("pictures")).notes == (told,)
    called = bench("--images", "pictures", "-o", "one.json")
    assert called.stderr.count(told) + called.stdout.count(told) == 1
    assert read_result(Path("one.json")).notes == (told,)


# ---- the command line


def test_a_table_names_file_verdict_and_result() -> None:
    called = bench("-o", "one.json")
    assert called.exit_code == 0
    assert "valid_tiny.bve" in called.stdout
    assert "the null device runs nothing: its times are made up" in called.stdout
    assert called.stdout.splitlines()[-1] == "all of it, raw times too: one.json"


def test_json_is_all_that_stdout_holds() -> None:
    odd = os.fsdecode(b"caf\xe9.bve")
    Path(odd).write_bytes(FILE.read_bytes())
    words = [Path(sys.executable).with_name("bigvit-edge"), "bench", odd, "--device", "null", "--rounds", "2"]
    done = subprocess.run([*words, "--json", "-o", "one.json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert len(told["rows"][0]["turns"]) == 2
    assert told["command"][1:3] == ["bench", "'caf\\xe9.bve'"]
    assert list(read_result(Path("one.json")).command) == told["command"]
    assert "turns" in done.stderr


@pytest.mark.parametrize(
    "name", ["it's 100% odd;$(touch x).bve", "two\nlines.bve", "-o.bve", "[red]x.bve", "\udce9.bve"]
)
def test_odd_names_of_files_are_names(name: str, here: Path) -> None:
    (here / name).write_bytes(FILE.read_bytes())
    called = call("bench", f"./{name}", "--device", "null", "--rounds", 1, "-o", "one.json", "--json")
    assert called.exit_code == 0, called.stderr
    (row,) = read_result(Path("one.json")).rows
    assert row.file == os.fsencode(name).decode(errors="backslashreplace")
    assert call("compare", "one.json", "one.json").exit_code == 1
    assert sorted(path.name for path in here.iterdir()) == sorted([name, "one.json"])


def write(path: str, scale: float = 1.0, **fields: object) -> Path:
    turns = [make_turn([scale * (1 + 0.001 * (n % 3))] * 3, n) for n in range(20)]
    frame = Frames("a frame", "somebody", (0,), (2 * scale,), (scale,), describe_times([2 * scale]))
    row = make_row(turns, verdicts=("valid",), frame=frame)
    write_result(replace(make_result(row), **fields), Path(path))  # type: ignore[arg-type]
    return Path(path)


def test_compare_tells_a_difference_and_none() -> None:
    write("a.json"), write("b.json"), write("slower.json", 1.2)
    same, slower = call("compare", "a.json", "b.json"), call("compare", "a.json", "slower.json", "--json")
    assert same.exit_code == slower.exit_code == 0
    assert "no difference found" in same.stdout
    assert "2.00 ms, 2.00 ms" in same.stdout
    (pair,) = json.loads(slower.stdout)
    assert pair["ratio"] == pytest.approx(1.2)
    assert pair["differs"]
    assert (pair["before_frame_ms"], pair["after_frame_ms"]) == (2, 2.4)
    assert pair["interval"][0] <= 1.2 <= pair["interval"][1]


def test_compare_exits_with_1_where_nothing_is_comparable_and_with_2_on_other_files() -> None:
    write("a.json"), write("elsewhere.json", device="ssh:pi@board")
    other = make_result(make_row(file="b.bve"), make_row(file="c.bve"))
    write_result(other, Path("other.json"))
    assert call("compare", "a.json", "elsewhere.json").exit_code == 1
    alone = call("compare", "a.json", "other.json")
    assert alone.exit_code == 1
    assert "in one file only: before: a.bve" in alone.stdout
    assert json.loads(call("compare", "a.json", "other.json", "--json").stdout) == []
    edited, newer = write("edited.json"), write("newer.json")
    edited.write_text(edited.read_text().replace("1.001", "0.5", 1))
    newer.write_text(newer.read_text().replace('"version": 1', '"version": 2'))
    for name, says in (
        ("edited.json", "was edited after the measurement"), ("newer.json", "has version 2; expected version 1"),
        ("none.json", "no file none.json"), (".", "is no plain file"),
    ):  # fmt: skip
        for words in (("a.json", name), (name, "a.json")):
            called = call("compare", *words)
            assert (called.exit_code, called.stdout) == (2, "")
            assert says in called.stderr


def test_what_json_prints_is_the_result(here: Path) -> None:
    called = bench("-o", "one.json", "--json")
    Path("printed.json").write_text(called.stdout)
    assert read_result(Path("printed.json")) == read_result(Path("one.json"))


def test_rounds_and_minutes_contradict_each_other() -> None:
    called = bench("-o", "one.json", "--minutes", "0.01")
    assert called.exit_code == 2
    assert "--rounds and --minutes; expected one of them" in called.stderr


def test_no_line_is_obeyed_by_a_terminal(here: Path) -> None:
    name = "esc\x1b[31mred\n.bve"
    Path(name).write_bytes(FILE.read_bytes())
    words = ["bench", name, "--device", "null", "--rounds", "2", "-o", "one.json"]
    called = CliRunner().invoke(app, words)
    assert called.exit_code == 0
    assert "\x1b[31m" not in called.stdout
    assert "esc\\x1b[31mred\\n.bve" in called.stdout
