"""adb's own faults: no adb, no such phone, one that is not ready, one that goes away."""

import subprocess
from pathlib import Path

import pytest

from bigvit_edge.devices import adb, open_device
from bigvit_edge.devices.contract import DeviceError
from bigvit_edge.devices.process import Process
from tests.devices.machines import Machine, start_adbd


def test_a_missing_adb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match=r"no adb.*apt-get install adb"):
        open_device("adb:R5CT")


@pytest.mark.parametrize(
    ("serial", "told"),
    [
        ("127.0.0.1:1", "adb connect 127.0.0.1:1|did you mean"),
        ("x'y;reboot", "expected one that adb lists"),
        ("", "expected adb:SERIAL"),
    ],
)
def test_unknown_serials(adb_machine: Machine, serial: str, told: str) -> None:
    with pytest.raises(DeviceError, match=told):
        open_device(f"adb:{serial}")


@pytest.mark.parametrize(
    ("state", "do"),
    [("unauthorized", "allow USB debugging"), ("offline", "plug it in again"), ("recovery", "start it into Android")],
)
def test_a_phone_that_is_not_ready(state: str, do: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # no phone here can be in these states: what adb prints of one stands in
    program = tmp_path / "adb"
    program.write_text(f"#!/bin/sh\nprintf '* daemon started\\nList of devices attached\\nR5CT\\t{state} usb:1\\n'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert adb.list_states(5) == {"R5CT": state}
    with pytest.raises(DeviceError, match=f"adb:R5CT is {state}; .*{do}"):
        open_device("adb:R5CT")


def test_a_phone_that_goes_away(tmp_path: Path) -> None:
    with start_adbd(tmp_path) as machine:
        device = open_device(machine.name)
        with Process(device, ("cat",)) as started:
            assert started.ask("one", 20) == "one"
            subprocess.run(["adb", "disconnect", machine.name.removeprefix("adb:")], check=True, capture_output=True)
            for _ in range(2):
                with pytest.raises(DeviceError, match=f"{machine.name} is gone") as caught:
                    started.ask("two", 20)
                assert caught.value.lost
