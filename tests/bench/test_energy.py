import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from bigvit_edge.bench.energy import Meter, NoEnergyError, calibrate, find_meter, integrate
from bigvit_edge.bench.watches import Sample
from bigvit_edge.machine import Machine, Sensor
from bigvit_edge.runtime import probe
from tests.bench.made import make_sensor
from tests.saved_machines import unpack_machine

S = 10**9
WATTS = Meter("watts", ("w",), "W", power=lambda texts: float(texts[0]) if texts[0] else None)
JOULES = Meter("joules", ("j",), "J", counter=lambda texts: (float(texts[0]), None) if texts[0] else None)

# As printed by a Raspberry Pi 5 (leukipp/touchkio#35); the firmware numbers currents first, some print them in pairs.
PMIC = """\
 3V7_WL_SW_A current(0)=0.12199130A
   3V3_SYS_A current(1)=0.15224510A
  VDD_CORE_A current(7)=1.54489000A
      HDMI_A current(22)=0.01709400A
 3V7_WL_SW_V volt(8)=3.60605200V
   3V3_SYS_V volt(9)=3.31931300V
  VDD_CORE_V volt(15)=0.88725180V
      HDMI_V volt(23)=4.90440000V
     EXT5V_V volt(24)=4.87894000V
      BATT_V volt(25)=2.50512600V
"""
PMIC_W = 0.1219913 * 3.606052 + 0.1522451 * 3.319313 + 1.54489 * 0.8872518 + 0.017094 * 4.9044


def sample(at: Callable[[float], float], times_s: object) -> list[Sample]:
    return [Sample(round(t * S), (f"{at(t):.9f}",)) for t in times_s]  # type: ignore[attr-defined]


def find(*sensors: Sensor) -> Meter:
    return find_meter(Machine("", "", sensors=sensors))


def refuse(*sensors: Sensor) -> str:
    with pytest.raises(NoEnergyError) as e:
        find(*sensors)
    return str(e.value)


def read_power(meter: Meter, *texts: str | None) -> float | None:
    assert meter.power
    return meter.power(texts)


@cache
def read_machine(name: str) -> Machine:
    with TemporaryDirectory() as folder:
        return probe(unpack_machine(name, Path(folder)))


# ---- integration, against closed forms


@pytest.mark.parametrize("offset", [0.0, 0.03, 0.099])
def test_a_constant_power_is_its_product_with_time(offset: float) -> None:
    joules, count = integrate(WATTS, sample(lambda t: 3.5, np.arange(offset, 5, 0.1)), S, 3 * S)
    assert joules == pytest.approx(7.0)
    assert count == pytest.approx(20, abs=1)


def test_a_ramp_is_integrated_exactly_between_samples_too() -> None:
    joules, _ = integrate(WATTS, sample(lambda t: 2 * t, np.arange(0.037, 5, 0.13)), round(1.21 * S), round(3.33 * S))
    assert joules == pytest.approx(3.33**2 - 1.21**2)


def test_what_stands_before_and_after_a_window_is_not_in_it() -> None:
    def power(t: float) -> float:
        return 1000.0 if t < 0.95 or t > 2.05 else 2.0

    assert integrate(WATTS, sample(power, np.arange(0, 3, 0.01)), S, 2 * S)[0] == pytest.approx(2.0)


def test_uneven_samples_do_not_weigh_by_their_number() -> None:
    times = np.concatenate([np.arange(0, 1, 0.001), np.arange(1, 3, 0.1)])
    joules, _ = integrate(WATTS, sample(lambda t: 1 if t < 1 else 3, times), 0, 2 * S)
    assert joules == pytest.approx(4.0, rel=0.06)  # the step lies between two samples


def test_a_power_stays_as_it_was_beyond_the_last_sample() -> None:
    samples = sample(lambda t: 5 + 100 * (t > 1.85), np.arange(0, 1.95, 0.1))  # a glitch at the end
    assert integrate(WATTS, samples, S, 2 * S)[0] < 5 + 105 * 0.2


@pytest.mark.parametrize("refresh_s", [0.001, 0.05, 0.37])
def test_a_counter_is_taken_where_it_changes(refresh_s: float) -> None:
    def count(t: float) -> float:
        return 100 + 2.5 * math.floor(t / refresh_s) * refresh_s

    joules, _ = integrate(JOULES, sample(count, np.arange(0.02, 7, 0.1)), 2 * S, 5 * S)
    assert joules == pytest.approx(7.5, rel=0.02)


def test_counters_wrap() -> None:
    wraps = replace(JOULES, wraps_j=10.0)
    samples = sample(lambda t: (7 + 4 * t) % 10, np.arange(0, 10, 0.1))
    assert integrate(wraps, samples, 2 * S, 8 * S)[0] == pytest.approx(24.0)
    with pytest.raises(NoEnergyError, match="went back"):
        integrate(JOULES, samples, 2 * S, 8 * S)


def test_too_few_samples_or_a_silent_sensor_are_no_figure() -> None:
    with pytest.raises(NoEnergyError, match="changed 2 times during the run, too few"):
        integrate(WATTS, sample(lambda t: 1, np.arange(0, 9, 1)), round(2.5 * S), round(4.5 * S))
    with pytest.raises(NoEnergyError, match="changed 0 times"):
        integrate(JOULES, sample(lambda t: 7, np.arange(0, 9, 0.1)), 2 * S, 4 * S)
    for meter in (WATTS, JOULES):
        broken = sample(lambda t: t, np.arange(0, 9, 0.1))
        broken[30] = Sample(3 * S, (None,))
        with pytest.raises(NoEnergyError, match="did not answer in the middle of a run"):
            integrate(meter, broken, 2 * S, 4 * S)


# ---- sensors


def test_a_pixels_rails_are_summed_at_their_own_clock() -> None:
    sensors = [s for s in read_machine("tensor_g3").sensors if s.kind == "odpm" and s.readable]
    meter = find(*sensors)
    assert len(meter.paths) == 1  # all rails of a chip are lines of one file
    assert meter.counter
    text = sensors[0].readings[0].raw
    assert meter.counter((text,)) == (pytest.approx(5.578756 + 29.11094 + 30.203502 + 23.377533 + 46.356942), 349.894)

    def tell(t_s: float) -> Sample:
        """A file that is refreshed every 0.05 s and whose clock began 100 s earlier; 2 W and 3 W."""
        own_s = math.floor((t_s + 100) / 0.05) * 0.05
        lines = (f"CH{n}(T={own_s * 1e3:.0f})[RAIL{n}], {own_s * watts * 1e6:.0f}" for n, watts in ((0, 2), (1, 3)))
        return Sample(round(t_s * S), ("\n".join((f"t={own_s * 1e3:.0f}", *lines)),))

    joules, _ = integrate(meter, [tell(t) for t in np.arange(5, 12, 0.11)], 7 * S, 10 * S)
    assert joules == pytest.approx(15.0, rel=0.002)


def test_both_chips_of_a_pixel_are_read_and_one_that_falls_silent_is_no_figure() -> None:
    one = make_sensor("odpm", ("energy", "uJ", ""))
    other = replace(one, readings=(replace(one.readings[0], path="/sys/other"),))
    meter = find(one, one, other)
    assert meter.paths == ("/sys/energy", "/sys/other")
    assert meter.counter
    line = "t=1000\nCH0(T=1000)[A], 1500000\n"
    assert meter.counter((line, line)) == (3.0, 1.0)
    assert meter.counter((line, None)) is None
    assert meter.counter(("", "")) is None


@pytest.mark.parametrize("pairs", [False, True])
def test_a_raspberry_pi_5_is_the_sum_of_its_rails(pairs: bool) -> None:
    meter = find(*read_machine("bcm2712").sensors)
    assert meter.paths[0].startswith("|")
    assert meter.paths[0].endswith("/vcgencmd pmic_read_adc")
    assert "5 V loads and losses are not in it" in meter.source
    lines = sorted(PMIC.splitlines()) if pairs else PMIC.splitlines()
    assert read_power(meter, "\n".join(lines)) == pytest.approx(PMIC_W)
    for broken in ("", None, 'error=1 error_msg="Command not registered"', "VDD_CORE_A current(7)=..A"):
        assert read_power(meter, broken) is None


def test_a_jetsons_total_is_taken_alone() -> None:
    machine = read_machine("jetson_orin")
    meter = find(*machine.sensors)
    assert "VDD_IN" in meter.source
    assert len(meter.paths) == 2
    assert read_power(meter, "1500", "19000") == pytest.approx(1.5 * 19)


def test_without_a_total_rails_are_summed_and_named() -> None:
    cpu = make_sensor("hwmon", ("current", "mA", "1"), ("voltage", "mV", "1"), label="CPU")
    gpu = make_sensor("hwmon", ("power", "uW", "1"), label="GPU")
    meter = find(cpu, gpu)
    assert meter.source == "sum of CPU, GPU"
    assert meter.scale == "mA and mV, as the kernel documents; uW, as the kernel documents"
    assert read_power(meter, "500", "4000", "250000") == pytest.approx(2.25)
    assert read_power(meter, "500", "4000", None) is None


def test_an_ina238_says_its_power_itself() -> None:
    meter = find(make_sensor("hwmon", ("power", "uW", "7250000"), ("current", "mA", "1"), ("voltage", "mV", "1")))
    assert read_power(meter, "7250000") == pytest.approx(7.25)


def test_powercap_counts_microjoules_and_wraps_where_it_says() -> None:
    meter = find(make_sensor("powercap", ("energy", "uJ", "1"), label="package-0", wraps_at=262143328850))
    assert meter.counter
    assert meter.counter(("2500000",)) == (2.5, None)
    assert meter.wraps_j == pytest.approx(262143.32885)
    for broken in (None, "", "Permission denied", str(-(2**31))):
        assert meter.counter((broken,)) is None


def test_int_min_is_unsupported_in_any_unit() -> None:
    meter = find(make_sensor("battery", ("current", "uA", "1"), ("voltage", "uV", "1")))
    assert read_power(meter, str(-(2**31)), "4000000") is None
    assert read_power(meter, "-500000", "4000000") == pytest.approx(-2.0)


def test_the_best_kind_is_taken() -> None:
    battery = make_sensor("battery", ("power", "uW", "1"))
    rapl = make_sensor("powercap", ("energy", "uJ", "1"), label="package-0")
    whole = replace(rapl, label="psys", total=True)
    assert find(battery, rapl).source == "powercap a_chip package-0"
    assert find(rapl, whole).source == "powercap a_chip psys"
    assert find(replace(rapl, readable=False), battery).unscaled


def test_what_is_there_and_not_taken_says_why() -> None:
    assert refuse() == "this device tells of no power sensor"
    closed = make_sensor("powercap", ("energy", "uJ", ""), label="psys", readable=False, why="Permission denied")
    charging = make_sensor("battery", ("current", "uA", "1"), ("voltage", "uV", "1"), ("status", "", "Charging\n"))
    assert refuse(closed, charging) == (
        "powercap psys: Permission denied; "
        "battery: it says 'Charging', and what flows then is not what the device takes"
    )
    assert refuse(make_sensor("pmic", readable=False, why="no vcgencmd")) == "pmic: no vcgencmd"
    many = [replace(closed, label=f"rail {n}") for n in range(9)]
    assert refuse(*many).endswith("and 6 more")


# ---- batteries: unit and sign by a load step


@pytest.mark.parametrize("unit", [1.0, 1e-3])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_load_step_tells_unit_and_sign(unit: float, sign: int) -> None:
    meter = find(make_sensor("battery", ("current", "uA", "1"), ("voltage", "uV", "1"), ("status", "", "Discharging")))
    volts = 4_000_000

    def say(watts: float) -> str:
        return str(round(sign * watts / 4 * 1e6 * unit))

    idle = [read_power(meter, say(0.8 + 0.01 * n), str(volts)) or 0 for n in range(10)]
    load = [read_power(meter, say(3.3 + 0.01 * n), str(volts)) or 0 for n in range(10)]
    found = calibrate(meter, idle, load)
    assert read_power(found, say(2.0), str(volts)) == pytest.approx(2.0, rel=0.01)
    assert read_power(found, None, None) is None
    assert ("1000 times" in found.scale) == (unit < 1)
    assert ("positive" if sign > 0 else "negative") in found.scale


def test_a_battery_of_power_alone_is_read() -> None:
    meter = find(make_sensor("battery", ("power", "uW", "1"), ("status", "", "Discharging")))
    found = calibrate(meter, [2.0] * 9, [5.0] * 9)
    assert read_power(found, "4000000") == pytest.approx(4.0)
    assert read_machine("x86_laptop").sensors[-1].kind == "battery"
    assert find(*read_machine("x86_laptop").sensors[-1:]).paths[0].endswith("power_now")


@pytest.mark.parametrize(
    ("idle", "load", "says"),
    [
        ([1.0, 2.0] * 9, [1.5, 2.5] * 9, "does not see a load step"),
        ([1.0] * 9, [1.0] * 9, "does not see a load step"),
        ([1.0] * 9, [1.0 + 1e-6] * 9, "which no unit explains"),
        ([1.0] * 9, [500.0] * 9, "which no unit explains"),
    ],
)
def test_a_step_that_says_nothing_is_no_figure(idle: list[float], load: list[float], says: str) -> None:
    meter = find(make_sensor("battery", ("power", "uW", "1")))
    with pytest.raises(NoEnergyError, match=says):
        calibrate(meter, idle, load)
