"""The order of jobs, what becomes of those that fail, and what is told: with jobs that only pretend to work."""

import json
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from bigvit_edge.errors import UserError
from bigvit_edge.results import write_result
from bigvit_edge.sweep import command
from bigvit_edge.sweep.command import Progress, run_sweep
from bigvit_edge.sweep.folder import LOCK, Folder
from bigvit_edge.sweep.jobs import Export, Identity, Job
from bigvit_edge.sweep.lanes import Lanes, is_here, name_lane
from bigvit_edge.sweep.tasks import perform
from tests.bench.made import make_result, make_row
from tests.sweep.made import make_bench, make_export

SWEEP = """
models = ["a", "b"]
formats = ["bve"]
precisions = ["fp32", "int8"]
devices = ["local", "null", "ssh:pi@board"]
"""


class Pretender(Lanes):
    """Does jobs in an instant each, in the order in which they were begun; `fails` are those that fail."""

    fails: ClassVar[dict[str, str]] = {}
    log: ClassVar[list[str]] = []
    beside: ClassVar[list[set[str]]] = []

    def __init__(self, folder: Folder) -> None:
        super().__init__(folder)
        self.folder, self.begun = folder, deque[Job]()

    def start(self, job: Job) -> None:
        self.log.append(job.name)
        self.begun.append(job)
        self.beside.append({name_lane(other) for other in self.begun})
        assert len({name_lane(other) for other in self.begun}) == len(self.begun)

    def wait(self, timeout_s: float) -> tuple[Job, str]:
        job = self.begun.popleft()
        reason = next((why for shown, why in self.fails.items() if shown == job.shown), "")
        if not reason and isinstance(job, Export):
            self.folder.find_bundle(job).mkdir(parents=True)
        elif not reason:
            write_result(make_result(make_row(), device=job.device), self.folder.find_result(job))
        return job, reason


@pytest.fixture
def pretender(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[Pretender]:
    def is_done(folder: Folder, job: Job, known: object = Folder.is_done) -> bool:
        return folder.find_bundle(job).exists() if isinstance(job, Export) else known(folder, job)  # type: ignore[operator]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "Lanes", Pretender)
    monkeypatch.setattr(command, "identify_model", lambda model: Identity(model.model, "file", "0", True, ("assumed",)))
    monkeypatch.setattr(Folder, "is_done", is_done)
    monkeypatch.setattr("bigvit_edge.sweep.rows.read_manifest", lambda folder: None)
    monkeypatch.setattr("bigvit_edge.bench.comparison.RESAMPLES", 20)
    (tmp_path / "sweep.toml").write_text(SWEEP)
    for name, value in (("fails", {}), ("log", []), ("beside", [])):
        monkeypatch.setattr(Pretender, name, value)
    return Pretender


def run(retry: bool = False) -> tuple[command.Swept, list[str]]:
    told: list[str] = []
    progress = Progress(
        told.append, lambda jobs, done: told.append(f"{done} of {jobs}"), lambda job: None,
        lambda job, reason: told.append(f"{job.shown}: {reason}"),
    )  # fmt: skip
    return run_sweep(Path("sweep.toml"), retry=retry, progress=progress), told


def test_every_job_is_done_once_and_never_again(pretender: type[Pretender]) -> None:
    swept, told = run()
    assert told[:3] == ["a: assumed", "b: assumed", "0 of 16"]
    assert len(pretender.log) == len(set(pretender.log)) == 4 + 12
    assert len(swept.points) == 12
    assert swept.failures == []
    assert (swept.folder / "sweep.csv").read_text().count("\n") == 13
    assert run()[1][2:] == ["16 of 16"]
    assert len(pretender.log) == 16


def test_an_export_is_beside_other_devices_and_never_beside_this_machines_bench(pretender: type[Pretender]) -> None:
    run()
    assert {"exports", "null", "ssh:pi@board"} in pretender.beside
    assert any("here" in lanes for lanes in pretender.beside)
    assert not any({"exports", "here"} <= lanes for lanes in pretender.beside)


def test_what_fails_stops_nothing_and_is_tried_again_when_asked(pretender: type[Pretender]) -> None:
    pretender.fails |= {"a bve fp32": "past its limits", "b bve int8 on null": "no\x1b room"}
    swept, _ = run()
    assert {(job.shown, reason) for job, reason in swept.failures} == set(pretender.fails.items())
    assert len(pretender.log) == 16 - 3  # no bench of what was not exported
    told = {(point.model, point.precision, point.device): point.reason for point in swept.points if point.reason}
    assert told == {
        ("a", "fp32", "local"): "its export failed: past its limits",
        ("a", "fp32", "null"): "its export failed: past its limits",
        ("a", "fp32", "ssh:pi@board"): "its export failed: past its limits",
        ("b", "int8", "null"): "no\x1b room",
    }
    failures = [json.loads(path.read_text()) for path in (swept.folder / "failures").iterdir()]
    assert {failure["job"] for failure in failures} == set(pretender.fails)
    assert len(run()[0].failures) == 2
    assert len(pretender.log) == 13
    pretender.fails.clear()
    swept, _ = run(retry=True)
    assert swept.failures == []
    assert len(pretender.log) == 13 + 5
    assert list((swept.folder / "failures").iterdir()) == []


def test_a_longer_list_keeps_what_is_done(pretender: type[Pretender]) -> None:
    run()
    Path("sweep.toml").write_text(SWEEP.replace('"int8"]', '"int8", "fp16"]').replace('"local", ', ""))
    assert run()[1][2] == "12 of 18"
    assert len(pretender.log) == 16 + 6


def test_a_damaged_result_is_not_done_and_not_overwritten(pretender: type[Pretender]) -> None:
    swept, _ = run()
    path = swept.folder / swept.points[0].file
    path.write_text(path.read_text().replace('"local"', '"remote"', 1))
    bundle = swept.folder / "exports" / "any"
    assert "move it away" in perform(make_bench(), bundle, path)
    assert '"remote"' in path.read_text()
    assert run()[1][2] == "15 of 16"


def test_another_folder_is_left_alone(pretender: type[Pretender], tmp_path: Path) -> None:
    folder = tmp_path / "sweeps" / "sweep"
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("")
    with pytest.raises(UserError, match=r"holds thesis\.tex"):
        run()
    assert [path.name for path in folder.iterdir()] == ["thesis.tex"]
    (folder / LOCK).touch()
    run()


@pytest.mark.parametrize(
    ("device", "here"),
    [
        ("local", True), ("ssh:localhost", True), ("ssh:me@127.0.0.1:2222", True), ("ssh:[::1]:22", True),
        ("null", False), ("ssh:localhost.example", False), ("ssh:pi@board", False), ("adb:local", False),
    ],
)  # fmt: skip
def test_this_machine_is_known_by_its_names(device: str, here: bool) -> None:
    assert is_here(device) is here


def test_exports_come_before_a_bench_of_this_machine(tmp_path: Path) -> None:
    lanes = Lanes(Folder(tmp_path / "sweep"))
    bench, export, other = make_bench(device="local"), make_export("e"), make_bench(device="null")
    assert not lanes.may_start(bench, [], [bench, export])
    assert lanes.may_start(bench, [other], [bench, other])
    assert not lanes.may_start(export, [bench], [export])
    assert not lanes.may_start(bench, [export], [bench])
    assert lanes.may_start(export, [other], [export, bench])
    assert not lanes.may_start(replace(bench, device="ssh:localhost"), [bench], [])
