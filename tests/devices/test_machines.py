"""Real machines behind an sshd and an adbd: words and files as they are, bad places, and nothing left behind."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bigvit_edge.devices import open_device
from bigvit_edge.devices.binaries import OVERRIDE, install_bve_run
from bigvit_edge.devices.contract import BusyError, Device, DeviceError
from bigvit_edge.devices.occupancy import check_free, lock
from bigvit_edge.devices.process import run_words
from bigvit_edge.devices.store import Store
from bigvit_edge.errors import UserError
from tests.devices.machines import Machine
from tests.native import ROOT, skip

ODD = "a'b\"c;d $(e) `f` \\g\n-h*"
PROGRAMS = {"ssh": "build/aarch64/bve-run", "adb": "build/host/bve-run"}
# Whether a program runs there that has this in its environment.
FIND = 'grep -l -- "$1" /proc/[0-9]*/environ 2>/dev/null; :'


@pytest.fixture(params=["ssh", "adb"])
def machine(request: pytest.FixtureRequest) -> Machine:
    made: Machine = request.getfixturevalue(f"{request.param}_machine")
    return made


@pytest.fixture
def device(machine: Machine) -> Iterator[Device]:
    opened = open_device(machine.name)
    yield opened
    opened.close()


@pytest.fixture
def bve_run(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Name by $BVE_RUN one that the machine can run."""
    program = ROOT / PROGRAMS[machine.name.partition(":")[0]]
    if not program.is_file():
        skip(f"no {program}", "make native native-arm")
    monkeypatch.setenv(OVERRIDE, str(program))
    return program


def is_quiet(device: Device, mark: str) -> bool:
    """Whether nothing with that mark runs there, within five seconds."""
    end = time.monotonic() + 5
    while run_words(device, ("sh", "-c", FIND, "sh", mark)).out:
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def list_folder(device: Device, folder: str) -> list[str]:
    return run_words(device, ("ls", "-A", folder)).out.split()


def test_words_and_environment_arrive_as_they_are(device: Device) -> None:
    script = 'cat; printf %s "$1" >&2; printf %s "$ODD"; exit 255'
    data = bytes(range(1, 128)) * 1000
    done = run_words(device, ("sh", "-c", script, "sh", ODD), data=data, environment={"ODD": ODD})
    assert done == (255, data.decode() + ODD, ODD)


def test_files_travel_whole_under_odd_names(device: Device, tmp_path: Path) -> None:
    sent, data = tmp_path / "it's; $(sent)", os.urandom(300_000)
    sent.write_bytes(data)
    there = f"/tmp/{ODD}"
    device.push(sent, there)
    device.pull(there, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data
    assert run_words(device, ("rm", there)).status == 0
    with pytest.raises(DeviceError, match=r"(?i)no such file"):
        device.pull("/tmp/gone", tmp_path / "gone")


def test_a_store_is_whole_and_clears_up(device: Device, tmp_path: Path) -> None:
    (tmp_path / "a'b;c.bve").write_bytes(os.urandom(100_000))
    with Store(device) as store:
        there = store.place(tmp_path / "a'b;c.bve")
        assert store.place(tmp_path / "a'b;c.bve") == there
        folder, _, name = there.rpartition("/")
        assert list_folder(device, folder) == [name]
        store.fetch(there, tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == (tmp_path / "a'b;c.bve").read_bytes()
    assert run_words(device, ("ls", device.home)).status != 0


def test_no_room_is_told_before_anything_is_sent(device: Device, tmp_path: Path) -> None:
    (tmp_path / "large.bve").write_bytes(bytes(1_000_000))
    device.home = "/small/ours"
    with (
        pytest.raises(DeviceError, match=r"MB free in /small/ours of .*room for the 1 MB of large\.bve"),
        Store(device) as store,
    ):
        store.place(tmp_path / "large.bve")
    assert list_folder(device, "/small") == []


def test_a_disk_that_fills_meanwhile_is_told(device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "large.bve").write_bytes(os.urandom(1_000_000))
    device.home = "/small/ours"
    prepare = Store._prepare
    monkeypatch.setattr(Store, "_prepare", lambda store: prepare(store) + 10**9)
    with pytest.raises(DeviceError, match="No space left"), Store(device) as store:
        store.place(tmp_path / "large.bve")
    assert list_folder(device, "/small") == []


def test_a_folder_without_programs_is_told(device: Device, bve_run: Path) -> None:
    device.home = "/noexec/ours"
    with (
        pytest.raises(DeviceError, match=r"runs no program .*/noexec/ours .*noexec"),
        Store(device) as store,
    ):
        install_bve_run(device, store)
    assert list_folder(device, "/noexec") == []


def test_a_folder_that_cannot_be_made_is_told(device: Device, tmp_path: Path) -> None:
    (tmp_path / "a.bve").write_bytes(b"1")
    device.home = "/proc/ours"
    with pytest.raises(DeviceError, match=r"/proc/ours of .* takes no files"), Store(device) as store:
        store.place(tmp_path / "a.bve")


def test_bve_run_arrives_and_runs(device: Device, bve_run: Path) -> None:
    with Store(device) as store:
        there = install_bve_run(device, store)
        done = run_words(device, (there, "--version"))
        assert done.status == 0, done
        assert done.out.strip()


def test_a_wrong_architecture_is_told(device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = {"aarch64": 62, "x86_64": 183}[run_words(device, ("uname", "-m")).out.strip()]
    header = bytearray(b"\x7fELF\x02\x01\x01".ljust(64, b"\0"))
    header[16:20] = (2, 0, other, 0)
    (tmp_path / "bve-run").write_bytes(header)
    monkeypatch.setenv(OVERRIDE, str(tmp_path / "bve-run"))
    with pytest.raises(UserError, match="which is none; expected a bve-run for"), Store(device) as store:
        install_bve_run(device, store)
    monkeypatch.setattr("bigvit_edge.devices.binaries._check_named", lambda path, *others: path)
    with pytest.raises(DeviceError, match="does not run"), Store(device) as store:
        install_bve_run(device, store)


def test_one_bench_at_a_time(machine: Machine, device: Device, bve_run: Path) -> None:
    other = open_device(machine.name)
    with Store(device) as store:
        there = install_bve_run(device, store)
        told = rf"has been measured for \d+ s by .*process {os.getpid()}"
        with lock(device, there):
            with pytest.raises(BusyError, match=told):  # before anything is brought
                check_free(other)
            with (
                pytest.raises(BusyError, match=told),
                Store(other) as second,
                lock(other, install_bve_run(other, second)),
            ):
                pass
            assert run_words(device, (there, "--version")).status == 0  # the one refused has not removed it
        with lock(other, there):
            pass
    other.close()
    assert "bigvit-edge.lock" not in list_folder(device, "/tmp")


@pytest.mark.parametrize("end", ["INT", "KILL"])
def test_nothing_runs_on_after_the_host(machine: Machine, device: Device, end: str, tmp_path: Path) -> None:
    # By Ctrl-C even what does not listen is ended; by a kill what reads its stdin is.
    mark = f"mark-{end}-{os.getpid()}"
    words = ("sleep", "1000") if end == "INT" else ("cat",)
    code = f"""
from bigvit_edge.devices import open_device
from bigvit_edge.devices.process import Process
device = open_device({machine.name!r})
with Process(device, {words!r}, {{"MARK": {mark!r}}}) as started:
    print("started", flush=True)
    started.read_line(100)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "OURS": mark}
    ) as host:
        assert host.stdout
        assert host.stdout.readline() == b"started\n"
        time.sleep(0.5)
        assert run_words(device, ("sh", "-c", FIND, "sh", mark)).out
        host.send_signal({"INT": 2, "KILL": 9}[end])
        host.wait(20)
    assert is_quiet(device, mark)
    assert is_quiet(open_device("local"), f"OURS={mark}")


def test_a_time_out_ends_the_program_there(device: Device) -> None:
    with pytest.raises(DeviceError, match="has not ended after 1 s"):
        run_words(device, ("sleep", "1000"), timeout_s=1, environment={"MARK": "mark-late"})
    assert is_quiet(device, "mark-late")
