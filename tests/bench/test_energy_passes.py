"""Energy of a tiny program, beside a sensor that says what it is to say at the time at which it is read."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from bigvit_edge.bench import energy
from bigvit_edge.bench.cases import list_cases
from bigvit_edge.bench.energy import Meter, NoEnergyError, find_meter, measure_energy
from bigvit_edge.bench.measurement import Plan, measure
from bigvit_edge.bench.policies import list_policies
from bigvit_edge.bench.runners import Runner, Tools
from bigvit_edge.bench.watches import Sample, watching
from bigvit_edge.devices.contract import Device
from bigvit_edge.devices.local import Local
from bigvit_edge.devices.store import Store
from bigvit_edge.machine import Machine, Sensor
from bigvit_edge.results import Protocol
from bigvit_edge.runtime import probe
from tests.bench.made import make_sensor
from tests.native import ROOT, run_program

FILE = ROOT / "tests/runtime/corpus/valid_tiny.bve"
BVE_RUN = ROOT / "build/host/bve-run"


def find(sensor: Sensor, folder: Path) -> Meter:
    """Its files in a folder, by their quantities."""
    readings = tuple(replace(reading, path=str(folder / reading.quantity)) for reading in sensor.readings)
    return find_meter(Machine("", "", sensors=(replace(sensor, readings=readings),)))


@contextmanager
def playing(file: Path, tell: Callable[[float], str]) -> Iterator[None]:
    """Let a file have said, at each time at which it was read, what it is to say then, in seconds."""

    @contextmanager
    def watch(device: Device, bve_run: str, paths: Sequence[str], every_ms: float) -> Iterator[list[Sample]]:
        place = paths.index(str(file))
        with watching(device, bve_run, paths, every_ms) as samples:
            yield samples
        for i, (t_ns, texts) in enumerate(samples):
            samples[i] = Sample(t_ns, (*texts[:place], tell(t_ns / 1e9), *texts[place + 1 :]))

    file.write_text("0\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(energy, "watching", watch)
        yield


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "RUN_S", 0.6)
    monkeypatch.setattr(energy, "EVERY_MS", 20.0)
    monkeypatch.setattr(energy, "SETTLE_S", 0.1)


class Watched(Runner):
    """A runner whose run the fake sensor sees."""

    busy = (math.inf, math.inf)

    def run(self, *words: float) -> object:  # type: ignore[override]
        turn = super().run(*words)  # type: ignore[arg-type]
        self.busy = (turn.start_ns / 1e9, turn.end_ns / 1e9)
        return turn


@contextmanager
def serving() -> Iterator[tuple[Local, Watched]]:
    run_program("bve-run", "--version")  # or skip
    device = Local("local")
    machine = probe()
    (case,), (policy,) = list_cases([FILE]), list_policies(machine, [], None)
    with (
        Store(device) as store,
        Watched(device, Tools(str(BVE_RUN), "", "", machine), store, case, policy, False) as runner,
    ):
        yield device, runner


def count_joules(runner: Watched, t: float, origin: float) -> float:
    """Of a machine that takes 2 W, and 5 W while it is busy."""
    begin, end = runner.busy
    return 2 * (t - origin) + 3 * max(0.0, min(t, end) - begin)


@pytest.mark.usefixtures("quick")
def test_energy_of_a_known_power_is_found_by_a_counter_that_wraps(tmp_path: Path) -> None:
    file, origin = tmp_path / "energy", time.monotonic() - 1
    wraps = 3_000_000
    sensor = make_sensor("powercap", ("energy", "uJ", "0"), label="package-0", wraps_at=wraps)
    meter = find(sensor, tmp_path)
    with (
        serving() as (device, runner),
        playing(file, lambda t: f"{round(count_joules(runner, t, origin) * 1e6) % wraps}\n"),
    ):
        found = measure_energy(device, str(BVE_RUN), meter, runner)
    assert found.power_w == pytest.approx(5.0, rel=0.15)  # samples cut the step's edges
    assert found.idle_w == pytest.approx(2.0, rel=0.01)
    assert found.above_idle_mj == pytest.approx(found.image_mj * (1 - found.idle_w / found.power_w))
    assert found.seconds >= 0.6
    assert found.samples >= energy.LEAST_SAMPLES


@pytest.mark.usefixtures("quick")
def test_energy_of_a_battery_that_says_milliamperes_the_wrong_way_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "voltage").write_text("4000000\n")
    sensor = make_sensor("battery", ("current", "uA", "1"), ("voltage", "uV", "1"))
    meter = find(sensor, tmp_path)
    with serving() as (device, runner):

        def tell(t: float) -> str:
            watts = 5 if runner.busy[0] <= t <= runner.busy[1] else 2
            return f"{-round(watts / 4 * 1e3)}\n"

        monkeypatch.setattr(energy, "RUN_S", 0.1)  # of which a battery takes ten
        with playing(tmp_path / "current", tell):
            found = measure_energy(device, str(BVE_RUN), meter, runner)
    assert found.power_w == pytest.approx(5.0, rel=0.15)  # samples cut the step's edges
    assert found.idle_w == pytest.approx(2.0, rel=0.01)
    assert "1000 times" in found.scale
    assert "negative" in found.scale


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("idle", "busy"), [(0, 0), (3e6, 3e6), (-2e6, 1e6), (3e6, 2e6), (-2e6, -5e6)])
def test_a_sensor_that_sees_no_load_gives_no_figure(idle: float, busy: float, tmp_path: Path) -> None:
    sensor = make_sensor("hwmon", ("power", "uW", "1"), label="VDD")
    meter = find(sensor, tmp_path)
    with (
        serving() as (device, runner),
        playing(tmp_path / "power", lambda t: f"{busy if runner.busy[0] <= t <= runner.busy[1] else idle:.0f}"),
        pytest.raises(NoEnergyError, match=r"hwmon a_chip VDD says .* W of a machine that is busy, .* W of it idle"),
    ):
        measure_energy(device, str(BVE_RUN), meter, runner)


@pytest.mark.usefixtures("quick")
def test_a_sensor_that_goes_away_gives_no_figure(tmp_path: Path) -> None:
    sensor = make_sensor("hwmon", ("power", "uW", "1"), label="VDD")
    meter = find(sensor, tmp_path / "none")
    with serving() as (device, runner), pytest.raises(NoEnergyError, match="did not answer in the middle of a run"):
        measure_energy(device, str(BVE_RUN), meter, runner)


def test_a_row_says_why_it_has_no_energy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_program("bve-run", "--version")
    closed = make_sensor("powercap", ("energy", "uJ", ""), label="psys", readable=False, why="Permission denied")
    found = probe()
    monkeypatch.setattr("bigvit_edge.bench.runners.parse_machine", lambda text: replace(found, sensors=(closed,)))
    plan = Plan(Protocol(0.001, 2, 1, 0, 0, None, "none"))
    result = measure(list_cases([FILE]), Local("local"), lambda store: str(BVE_RUN), plan, tmp_path / "one.json")
    assert result.rows[0].energy == "not available: powercap psys: Permission denied"
    plan = replace(plan, energy=False)
    result = measure(list_cases([FILE]), Local("local"), lambda store: str(BVE_RUN), plan, tmp_path / "two.json")
    assert result.rows[0].energy == "not available: not asked for"
