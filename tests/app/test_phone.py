"""bench --app, to a real adbd by the real adb. Scripts stand in for Android's pm, am and their kind, and for the app:
they take the words that Android's take and answer as they do, as far as is known without a phone.
"""

import _thread
import json
import shutil
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bigvit_edge.app import phone as module
from bigvit_edge.app.phone import bench_by_app
from bigvit_edge.bench.cases import list_cases
from bigvit_edge.bench.command import make_plan
from bigvit_edge.cli import app
from bigvit_edge.devices import open_device
from bigvit_edge.devices.binaries import OVERRIDE
from bigvit_edge.devices.contract import DeviceError
from bigvit_edge.devices.process import run_words
from bigvit_edge.errors import UserError
from bigvit_edge.results import Surroundings, read_result, write_result
from tests.app.apks import SMALL, make_bundle
from tests.bench.made import make_result, make_row
from tests.devices.machines import Machine

SHOWN = "/data/shown"  # in a root without /sdcard
SCRIPTS = {
    "getprop": "case $1 in *sdk) cat /mnt/state/sdk;; *abilist) cat /mnt/state/abi;; esac",
    "input": "exit 0",
    "wm": "exit 0",
    "pidof": "[ -e /mnt/state/running ] && echo 4242",
    "pm": f"""echo "pm $*" >>/mnt/state/log
case $1 in
path) [ -e /mnt/state/installed ] && echo package:/data/app/base.apk;;
install) if [ -e /mnt/state/refuses ]; then echo "Failure [INSTALL_FAILED_USER_RESTRICTED: by user]"; exit 1; fi
  head -c 2 "$2" | grep -q PK && : >/mnt/state/installed && echo Success;;
uninstall) rm -rf /mnt/state/installed {SHOWN}; echo Success;;
esac""",
    "am": f"""echo "am $1 $2" >>/mnt/state/log
case $1 in
force-stop) rm -f /mnt/state/running;;
start) [ -e /mnt/state/installed ] || {{ echo "Error: Activity class does not exist."; exit 1; }}
  for last; do :; done
  echo "$last" >/mnt/state/task; : >/mnt/state/running
  token=$(echo "$last" | sed 's/.*"token": "\\([0-9a-f]*\\)".*/\\1/')
  model=$(echo "$last" | sed 's/.*"path": "\\([^"]*\\)".*/\\1/')
  stat -c %a "$model" "${{model%/*}}" >/mnt/state/modes; cp "$model" /mnt/state/model
  [ -e /mnt/state/dies ] && rm /mnt/state/running
  [ -e /mnt/end ] || exit 0
  mkdir -p {SHOWN}/tasks {SHOWN}/results; cp /mnt/result.json "{SHOWN}/results/bench-$token.json"
  sed "s/TOKEN/$token/" /mnt/end >{SHOWN}/tasks/part; mv {SHOWN}/tasks/part "{SHOWN}/tasks/$token.json";;
esac""",
}


class Phone:
    """The adbd machine, with Android's programs; state: what they know of each other."""

    def __init__(self, machine: Machine) -> None:
        self.name, self.folder, self.state = machine.name, machine.folder, machine.folder / "state"
        self.state.mkdir()
        (self.folder / "phone").mkdir()
        for name, script in SCRIPTS.items():
            path = self.folder / "phone" / name
            path.write_text(f"#!/bin/sh\n{script}\n")
            path.chmod(0o755)
        self.write(sdk="34", abi="arm64-v8a,armeabi-v7a")
        row = make_row(launch="app", surroundings=Surroundings(foreground=True, cpuset="/top-app"))
        write_result(make_result(row, device="app:A Phone"), self.folder / "result.json")
        (self.folder / "end").write_text('{"result": "bench-TOKEN.json", "error": null}')

    def write(self, **files: str) -> None:
        for name, text in files.items():
            (self.state / name).write_text(f"{text}\n")

    def list_calls(self) -> list[str]:
        return [line.split(" /")[0] for line in (self.state / "log").read_text().splitlines()]

    def run(self, script: str) -> str:
        device = open_device(self.name)
        try:
            return run_words(device, ("sh", "-c", script)).out
        finally:
            device.close()

    def list_left(self) -> str:
        return self.run(f"ls -A /data/local/tmp/bigvit-edge {SHOWN} /mnt/state/installed 2>/dev/null; :")

    def remove(self) -> None:
        self.run(f"rm -rf {SHOWN}")
        for name in ("phone", "state"):
            shutil.rmtree(self.folder / name)
        for name in ("result.json", "end"):
            (self.folder / name).unlink(missing_ok=True)


@pytest.fixture
def phone(adb_machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Phone]:
    monkeypatch.setattr(module, "SHOWN", SHOWN)
    monkeypatch.setattr(module, "POLL_S", 0.05)
    monkeypatch.setattr(module, "build_bare_apk", lambda path, step: path.write_text("PK, as an app begins"))
    monkeypatch.delenv(OVERRIDE, raising=False)  # an ARM one, and this machine is none
    made = Phone(adb_machine)
    yield made
    made.remove()


INSTALLED_FOR_IT = ["pm path", "pm install", "am start -W", "am force-stop", "pm uninstall"]


def call(phone: Phone) -> list[str]:
    return [" ".join(line.split()[: 3 if line.startswith("am start") else 2]) for line in phone.list_calls()]


def test_it_is_installed_started_read_and_removed(phone: Phone, tmp_path: Path) -> None:
    plan = make_plan(rounds=7, fps=30, clusters=["big", "little"], threads=2)
    result, path, notes = bench_by_app([SMALL], phone.name, plan, tmp_path / "one.json", keep=None)
    assert path.read_bytes() == (phone.folder / "result.json").read_bytes()
    assert (result, notes) == (read_result(path), ())
    assert result.rows[0].launch == "app"
    assert call(phone) == INSTALLED_FOR_IT
    asked = json.loads((phone.state / "task").read_text())
    assert asked["plan"] | {"command": 0} == {
        "name": f"bench-{asked['token']}.json", "rounds": 7, "fps": 30, "threads": 2, "clusters": ["big", "little"],
        "energy": True, "command": 0,
    }  # fmt: skip
    alone = {"name": None, "keep": None, "delegated_share": None}
    assert [each | {"path": 0} for each in asked["models"]] == [
        {"path": 0, "name": SMALL.name, "precision": "", "methods": [alone]}
    ]
    assert (phone.state / "model").read_bytes() == SMALL.read_bytes()
    modes = [int(mode, 8) for mode in (phone.state / "modes").read_text().split()]
    assert modes == [stat.S_IRUSR | stat.S_IWUSR | stat.S_IRGRP | stat.S_IROTH, 0o755]  # an app is another user
    assert phone.list_left() == ""


def test_an_app_that_is_there_stays(phone: Phone, tmp_path: Path) -> None:
    phone.write(installed="")
    bench_by_app([SMALL], phone.name, make_plan(minutes=0.001), tmp_path / "one.json")
    assert call(phone) == ["pm path", "am start -W", "am force-stop"]
    left = phone.list_left()
    assert "installed" in left
    assert "bench-" not in left


def test_models_are_called_as_bench_calls_them(phone: Phone, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "größer")
    (alone := tmp_path / "alone").mkdir()
    (alone / "tiny.bve").write_bytes(SMALL.read_bytes())
    files = [bundle, alone / "tiny.bve"]
    _, _, notes = bench_by_app(files, phone.name, make_plan(rounds=2), tmp_path / "one.json")
    assert notes == ("left out, as the app runs .bve files alone: tiny.tflite",)
    models = json.loads((phone.state / "task").read_text())["models"]
    cases = [case for case in list_cases(files) if case.format == "bve"]
    assert [model["name"] for model in models] == ["größer/tiny.bve", "alone/tiny.bve"] == [case.name for case in cases]
    for model, case in zip(models, cases, strict=True):
        assert model["precision"] == (case.entry.precision if case.entry else "")
        assert model["methods"] == [
            {"name": case.method and case.method.name, "keep": case.keep, "delegated_share": case.delegated_share}
        ]
    assert models[0]["methods"][0]["delegated_share"] is not None


def test_a_persons_measurement_goes_on(phone: Phone, tmp_path: Path) -> None:
    phone.write(installed="")
    (phone.folder / "end").write_text('{"result": null, "error": "the app measures something else", "refused": true}')
    (phone.folder / "result.json").unlink()
    with pytest.raises(DeviceError, match="measures something else"):
        bench_by_app([SMALL], phone.name, make_plan(), tmp_path / "one.json")
    assert call(phone) == ["pm path", "am start -W"]
    assert (phone.state / "running").exists()


def test_the_app_goes_on_where_it_was_asked_for_nothing(phone: Phone, tmp_path: Path) -> None:
    phone.write(installed="", running="")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "OPEN", "echo no >&2; exit 1")
        with pytest.raises(DeviceError, match="cannot be opened to apps"):
            bench_by_app([SMALL], phone.name, make_plan(), tmp_path / "one.json")
    assert call(phone) == ["pm path"]
    assert (phone.state / "running").exists()


def test_a_bench_that_was_cancelled_there_is_no_whole_one(phone: Phone, tmp_path: Path) -> None:
    write_result(replace(read_result(phone.folder / "result.json"), complete=False), phone.folder / "result.json")
    path = tmp_path / "one.json"
    with pytest.raises(DeviceError, match="that was cancelled on") as caught:
        bench_by_app([SMALL], phone.name, make_plan(), path)
    assert str(path) in str(caught.value)
    assert not read_result(path).complete
    assert phone.list_left() == ""


def test_the_folder_is_closed_again(phone: Phone, tmp_path: Path) -> None:
    phone.run("umask 077; mkdir -p /data/local/tmp/bigvit-edge; echo x >/data/local/tmp/bigvit-edge/kept")
    try:
        bench_by_app([SMALL], phone.name, make_plan(), tmp_path / "one.json")
        assert (phone.state / "modes").read_text().split() == ["644", "755"]
        assert phone.run("stat -c %a /data/local/tmp/bigvit-edge").strip() == "700"
    finally:
        phone.run("rm -rf /data/local/tmp/bigvit-edge")


@pytest.mark.parametrize(
    ("files", "met"),
    [
        ({"sdk": "22"}, "which has API 22"),
        ({"abi": "armeabi-v7a"}, "runs armeabi-v7a"),
        ({"sdk": ""}, "is no phone with Android"),
        ({"refuses": ""}, "INSTALL_FAILED_USER_RESTRICTED"),
        ({"dies": ""}, "has ended without a word"),
    ],
)
def test_what_a_phone_may_refuse(phone: Phone, tmp_path: Path, files: dict[str, str], met: str) -> None:
    phone.write(**files)
    (phone.folder / "end").unlink()
    with pytest.raises(DeviceError, match=met):
        bench_by_app([SMALL], phone.name, make_plan(), tmp_path / "one.json")
    assert list(tmp_path.iterdir()) == []
    assert phone.list_left() == ""


@pytest.mark.parametrize(
    ("end", "result", "met"),
    [
        ('{"result": "bench-TOKEN.json", "error": null}', "{}", "is no result"),
        ('{"result": "other.json", "error": null}', None, "cannot be read"),
    ],
)
def test_what_the_app_may_say(phone: Phone, tmp_path: Path, end: str, result: str | None, met: str) -> None:
    (phone.folder / "end").write_text(end)
    if result is not None:
        (phone.folder / "result.json").write_text(result)
    with pytest.raises(DeviceError, match=met):
        bench_by_app([SMALL], phone.name, make_plan(), tmp_path / "one.json")
    assert list(tmp_path.iterdir()) == []
    assert call(phone) == INSTALLED_FOR_IT
    assert phone.list_left() == ""


@pytest.mark.parametrize("dies", [False, True])
def test_what_was_measured_until_a_failure_is_kept(phone: Phone, tmp_path: Path, dies: bool) -> None:
    part = replace(read_result(phone.folder / "result.json"), complete=False)
    write_result(part, phone.folder / "result.json")
    (phone.folder / "end").write_text("" if dies else '{"result": null, "error": "Android ended the page"}')
    if dies:
        phone.write(dies="")
    path = tmp_path / "one.json"
    with pytest.raises(DeviceError, match="ended without a word" if dies else "Android ended the page") as caught:
        bench_by_app([SMALL], phone.name, make_plan(), path)
    assert f"{path} has what was measured until then" in str(caught.value)
    assert not read_result(path).complete
    assert phone.list_left() == ""


def test_a_failure_before_any_figure_writes_nothing(phone: Phone, tmp_path: Path) -> None:
    (phone.folder / "end").write_text('{"result": null, "error": "no room on this phone"}')
    (phone.folder / "result.json").unlink()
    with pytest.raises(DeviceError, match="no room on this phone"):
        bench_by_app([SMALL], phone.name, make_plan(), tmp_path / "one.json")
    assert list(tmp_path.iterdir()) == []
    assert call(phone) == INSTALLED_FOR_IT
    assert phone.list_left() == ""


def test_ctrl_c_ends_it_there(phone: Phone, tmp_path: Path) -> None:
    (phone.folder / "end").unlink()

    def interrupt() -> None:
        end = time.monotonic() + 60
        while not (phone.state / "running").exists() and time.monotonic() < end:
            time.sleep(0.05)
        _thread.interrupt_main()

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        bench_by_app([SMALL], phone.name, make_plan(minutes=5), tmp_path / "one.json")
    assert call(phone) == INSTALLED_FOR_IT
    assert list(tmp_path.iterdir()) == []
    assert phone.list_left() == ""


def test_a_machine_that_is_no_phone(adb_machine: Machine, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="is no phone with Android: it has no pm"):
        bench_by_app([SMALL], adb_machine.name, make_plan(), tmp_path / "one.json")


def test_what_the_app_does_not_do(tmp_path: Path) -> None:
    plan = make_plan()
    (tmp_path / "a.tflite").write_text("x")
    cooled = replace(plan, protocol=replace(plan.protocol, cool_c=40))
    for file, name, asked, resume, met in (
        (SMALL, "local", plan, False, "--app and --device local"), (SMALL, "adb:X", plan, True, "--app and --resume"),
        (SMALL, "adb:X", cooled, False, "--app and --cool"),
        (tmp_path / "a.tflite", "adb:X", plan, False, "no .bve file"),
        (SMALL, "adb:X", replace(plan, keep_files=True), False, "--app and --keep-files"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=met):
            bench_by_app([file], name, asked, tmp_path / "one.json", resume)


def test_the_verb_asks_the_app(phone: Phone, tmp_path: Path) -> None:
    words = ["bench", str(SMALL), "--app", "--rounds", "2", "-o", str(tmp_path / "one.json"), "--device"]
    done = CliRunner().invoke(app, [*words, phone.name])
    assert done.exit_code == 0, done.stderr
    assert "app:A Phone" in done.stdout
    assert read_result(tmp_path / "one.json").rows[0].launch == "app"
    done = CliRunner().invoke(app, [*words, "local"])
    assert done.exit_code == 2
    assert "--app and --device local; expected a phone" in done.stderr
