"""What `bigvit-edge devices` finds: machines that answer, and why others do not."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bigvit_edge.cli import app
from bigvit_edge.devices import listing
from bigvit_edge.devices.binaries import OVERRIDE
from bigvit_edge.devices.listing import READY, Found, explain, list_devices, tabulate
from bigvit_edge.machine import Cluster, Core, Machine, Zone
from tests.devices.machines import Machine as Address
from tests.native import ROOT, skip


def test_real_machines_tell_what_they_are(
    ssh_machine: Address, adb_machine: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = ROOT / "build/aarch64/bve-run"
    if not program.is_file():
        skip(f"no {program}", "make native-arm")
    monkeypatch.setenv(OVERRIDE, str(program))
    rows = {row.name: row for row in list_devices((ssh_machine.name,))}
    assert {name: row.state for name, row in rows.items()} == dict.fromkeys(
        ("local", ssh_machine.name, adb_machine.name), READY
    )
    board = rows[ssh_machine.name]
    assert board.machine
    assert board.machine.architecture == "aarch64"
    assert board.runs == ("bve",)
    assert rows[adb_machine.name].machine is None  # $BVE_RUN is one for ARM
    assert f"{OVERRIDE}={program}, which is none" in rows[adb_machine.name].do


def test_what_does_not_answer_is_named_and_exits_with_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(listing, "list_states", lambda timeout_s: {"R5CT": "unauthorized"})
    run = CliRunner().invoke(app, ["devices", "a;b", "null", "--json"])
    rows = {row["name"]: row for row in json.loads(run.stdout)}
    assert run.exit_code == 2
    assert set(rows) == {"local", "a;b", "null", "adb:R5CT"}
    assert "expected local, null, adb:SERIAL" in rows["a;b"]["do"]
    assert "allow USB debugging" in rows["adb:R5CT"]["do"]
    assert "bve" in rows["local"]["runs"]
    run = CliRunner().invoke(app, ["devices", "null"])
    assert run.exit_code == 0
    assert "note: adb:R5CT: unauthorized; unlock its screen" in run.stderr


def test_a_row_has_the_facts_that_decide() -> None:
    cores = tuple(Core(i, True, "", "", None, None, None, khz, "", None) for i, khz in enumerate((1_800_000, 600_000)))
    clusters = (
        Cluster("big", "Cortex-A76", (0,), 1024, 2_400_000),
        Cluster("little", "Cortex-A55", (1,), 400, 1_800_000),
    )
    zones = (Zone("soc", "/z0", 45.2, "45200", True, ""), Zone("battery", "/z1", 80.0, "80000", False, ""))
    machine = Machine(
        "RK3588", "Orange Pi 5", cores=cores, clusters=clusters, memory_bytes=8 * 2**30, available_bytes=2**30,
        zones=zones,
    )  # fmt: skip
    rows = tabulate([Found("ssh:board", READY, "", machine, ("bve", "tflite")), Found("adb:x", "offline", "do this")])
    assert rows == [
        ("ssh:board", "ready", "Orange Pi 5", "1 Cortex-A76 2.40 GHz + 1 Cortex-A55 1.80 GHz", "1.80 + 0.60", "45",
         "1.0 of 8.0 GiB", "bve, tflite"),
        ("adb:x", "-", "-", "-", "-", "-", "-", ""),
    ]  # fmt: skip
    assert explain([Found("adb:x", "offline", "do this"), Found("local", READY)]) == ["adb:x: offline; do this"]
