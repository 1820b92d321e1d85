"""Energy of an image: one sampler over the window of a run, and what a sensor's numbers mean.

A sensor is read every so often by one process on the device, in a pass of its own, since reading slows what is
measured (mlcommons/power-dev#236). What is integrated is the run's own window, of a second or more, never a driver's
trailing mean of what went before.
"""

import re
import shlex
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from bigvit_edge.bench.runners import Runner
from bigvit_edge.bench.watches import Sample, watching
from bigvit_edge.devices.contract import Device
from bigvit_edge.errors import list_few
from bigvit_edge.machine import Machine, Sensor
from bigvit_edge.results import Energy

EVERY_MS = 100.0
RUN_S = 3.0
SETTLE_S = 0.3  # before a run, left out of what is called idle; and after it, read for the window's end
ORDER = ("odpm", "hwmon", "pmic", "powercap", "battery")  # which kind is taken, where there are several
LEAST_SAMPLES = 5  # within a window
LEAST_STEP = 3.0  # standard deviations that a known load must stand above idle
LEAST_RISE = 1.01  # of the idle machine's power, below which nothing says that a sensor sees the load
# What a phone's or board's cores take at most and at least when one of them, or all, are busy, in watts: wide enough
# for any, narrow enough that a factor of a thousand shows.
STEP_W = (0.05, 40.0)
ODPM_LINE = re.compile(r"CH(\d+)\(T=(\d+)\)\[([^\]]+)\], (\d+)")
PMIC_LINE = re.compile(r"(\w+?)_([AV])\b[^=\n]*=\s*(\d+(?:\.\d+)?)\s*\2")
SCALES = {"uW": 1e-6, "mW": 1e-3, "W": 1.0, "uV": 1e-6, "mV": 1e-3, "uA": 1e-6, "mA": 1e-3, "uJ": 1e-6}
Texts = tuple[str | None, ...]  # of a sample
INT_MIN = -(2**31)  # what some drivers say for 'unsupported', in any unit


class NoEnergyError(Exception):
    """Why there is no figure: the message."""


@dataclass(frozen=True)
class Meter:
    """How a device's power is read.

    paths: what is sampled. power: a sample's texts -> watts, or None; counter: texts -> joules since some time, with
    the seconds of its own clock, where the sensor counts energy itself. scale: how unit and sign are known; unscaled:
    they must first be found by a load step.
    """

    source: str
    paths: tuple[str, ...]
    scale: str
    power: Callable[[Texts], float | None] | None = None
    counter: Callable[[Texts], tuple[float, float | None] | None] | None = None
    wraps_j: float | None = None
    unscaled: bool = False


def find_meter(machine: Machine) -> Meter:
    """Find the best power sensor that can be read.

    Totals before rails. NoEnergyError saying what is there and why it is not taken.
    """
    readable = [sensor for sensor in machine.sensors if sensor.readable]
    ranked = sorted(readable, key=lambda sensor: (ORDER.index(sensor.kind), not sensor.total))
    for sensor in ranked:
        if meter := _make_meter(sensor, readable):
            return meter
    if not machine.sensors:
        raise NoEnergyError("this device tells of no power sensor")
    why = (f"{sensor.kind} {sensor.label}".strip() + f": {_explain_refusal(sensor)}" for sensor in machine.sensors)
    raise NoEnergyError(list_few(dict.fromkeys(why), 3, "; "))


def integrate(meter: Meter, samples: Sequence[Sample], start_ns: int, end_ns: int) -> tuple[float, int]:
    """Integrate power over a window of the device's clock.

    Returns joules, and how many samples lay in it. By trapezoids, cut at the window's ends where power is interpolated;
    of an energy counter the difference of its values, interpolated likewise. NoEnergyError where too few samples lie in
    the window, or any says nothing.
    """
    if meter.counter:
        points = _unwrap([(s.t_ns, meter.counter(s.texts)) for s in samples], meter.wraps_j)
        inside = _count_inside(points, start_ns, end_ns)
        _check_count(inside, meter)
        return _interpolate(points, end_ns) - _interpolate(points, start_ns), inside
    assert meter.power
    watts = [(s.t_ns, meter.power(s.texts)) for s in samples]
    if any(value is None for _, value in watts):
        raise NoEnergyError(f"{meter.source} did not answer in the middle of a run")
    points = [(t, float(value or 0)) for t, value in watts]
    inside = _count_inside(points, start_ns, end_ns)
    _check_count(inside, meter)
    times = [start_ns, *(t for t, _ in points if start_ns < t < end_ns), end_ns]
    # a power stays as it was beyond the last sample
    cut = np.interp(times, [t for t, _ in points], [value for _, value in points]).tolist()
    areas = ((t1 - t0) / 1e9 * (p0 + p1) / 2 for (t0, p0), (t1, p1) in pairwise(zip(times, cut, strict=True)))
    return sum(areas), inside


def measure_energy(device: Device, bve_run: str, meter: Meter, runner: Runner, fps: float = 0) -> Energy:
    """Measure the energy of an image.

    The idle machine first, then a run of RUN_S at `fps` (0: back to back), both read by one sampler; a battery's unit
    and sign come from the step between the two. NoEnergyError saying why there is no figure.
    """
    long = 10 * RUN_S if meter.unscaled else RUN_S  # a fuel gauge refreshes every second or more slowly
    with watching(device, bve_run, meter.paths, EVERY_MS) as samples:
        time.sleep(long)
        turn = runner.run(long, 3, 1e3 / fps if fps else 0)
        time.sleep(SETTLE_S)
    if meter.unscaled:
        assert meter.power
        watts = [(s.t_ns, meter.power(s.texts)) for s in samples]
        idle = [value for t_ns, value in watts if value is not None and t_ns < turn.start_ns]
        load = [value for t_ns, value in watts if value is not None and turn.start_ns <= t_ns <= turn.end_ns]
        if min(len(idle), len(load)) < LEAST_SAMPLES:
            raise NoEnergyError(f"{meter.source} did not answer")
        meter = calibrate(meter, idle, load)
    rest_ns = turn.start_ns - int(SETTLE_S * 1e9)
    idle_j, _ = integrate(meter, samples, samples[0].t_ns, rest_ns)
    joules, count = integrate(meter, samples, turn.start_ns, turn.end_ns)
    seconds, images = (turn.end_ns - turn.start_ns) / 1e9, len(turn.times_ms)
    idle_w = idle_j / ((rest_ns - samples[0].t_ns) / 1e9)
    power_w = joules / seconds
    if idle_w < 0 or power_w <= LEAST_RISE * idle_w:
        raise NoEnergyError(f"{meter.source} says {power_w:.3g} W of a machine that is busy, {idle_w:.3g} W of it idle")
    above_mj = (joules - idle_w * seconds) * 1e3 / images
    return Energy(joules * 1e3 / images, above_mj, power_w, idle_w, seconds, count, meter.source, meter.scale)


def calibrate(meter: Meter, idle_w: Sequence[float], load_w: Sequence[float]) -> Meter:
    """Find a battery's unit and sign by a load step.

    Given is its power when idle, and under a load that is known to be one. Values are as the driver's documented unit
    (uA, uW) makes them; vendors send mA, and either sign (community-code/amps#1, perfetto#1441, AccA#27). NoEnergyError
    where the step does not stand out of the noise, or no unit makes it what cores can take.
    """
    step = statistics.fmean(load_w) - statistics.fmean(idle_w)
    noise = max(statistics.pstdev(idle_w), statistics.pstdev(load_w), 1e-12)
    if abs(step) < LEAST_STEP * noise:
        raise NoEnergyError(f"{meter.source} does not see a load step ({abs(step) / noise:.1f} of its noise)")
    fits = [factor for factor in (1.0, 1e3) if STEP_W[0] <= abs(step) * factor <= STEP_W[1]]
    if len(fits) != 1:
        raise NoEnergyError(f"{meter.source} changes by {abs(step):.3g} W as documented, which no unit explains")
    factor = fits[0] * (1 if step > 0 else -1)
    times = "1000 times " if fits[0] > 1 else ""
    scale = f"{times}{meter.scale}; {'positive' if step > 0 else 'negative'} when it discharges; by a load step"
    power = meter.power
    assert power

    def read(texts: Texts) -> float | None:
        value = power(texts)
        return None if value is None else value * factor

    return Meter(meter.source, meter.paths, scale, power=read)


# ---- sensors -------------------------------------------------------------------------------------------------------


def _make_meter(sensor: Sensor, readable: Sequence[Sensor]) -> Meter | None:
    source = f"{sensor.kind} {sensor.chip} {sensor.label}".replace("  ", " ").strip()
    by = {reading.quantity: reading for reading in sensor.readings}
    if sensor.kind == "odpm":
        # All rails of a chip are lines of one file; the sum of both chips' is what the SoC and its memory take.
        chips = [s for s in readable if s.kind == "odpm"]
        paths = tuple(dict.fromkeys(reading.path for s in chips for reading in s.readings))
        return Meter("odpm, sum of all rails", paths, "uWs, as the driver documents", counter=_read_odpm)
    if sensor.kind == "pmic":
        return Meter(
            "pmic, sum of the rails that have a current (5 V loads and losses are not in it)",
            (f"|{shlex.quote(by['power'].path)} pmic_read_adc",), "volts and amperes, as the firmware prints",
            power=_read_pmic,
        )  # fmt: skip
    if sensor.kind == "powercap":
        wraps = sensor.wraps_at * 1e-6 if sensor.wraps_at else None
        return Meter(source, (by["energy"].path,), "uJ, as the kernel documents", counter=_read_counter, wraps_j=wraps)
    if sensor.kind == "battery":
        return None if _explain_refusal(sensor) else replace(_find_power(sensor, source), unscaled=True)
    rails = [s for s in readable if s.kind == sensor.kind]
    if sensor.total or len(rails) == 1:
        return _find_power(sensor, source)
    return _add([_find_power(rail, rail.label or rail.chip) for rail in rails])


def _explain_refusal(sensor: Sensor) -> str:
    """Why a sensor is not taken; "" if it would be."""
    if not sensor.readable:
        return sensor.why or "not readable"
    by = {reading.quantity: reading for reading in sensor.readings}
    status = by["status"].raw.strip() if "status" in by else ""
    if status and status != "Discharging":
        return f"it says {status!r}, and what flows then is not what the device takes"
    return ""


def _find_power(sensor: Sensor, source: str) -> Meter:
    """A sensor's power, or else its current and voltage."""
    by = {reading.quantity: reading for reading in sensor.readings}
    if "power" in by:
        unit = by["power"].unit
        return Meter(source, (by["power"].path,), f"{unit}, as the kernel documents",
                     power=lambda texts: _scale(texts[0], SCALES[unit]))  # fmt: skip
    chosen = by["current"], by["voltage"]
    scales = [SCALES[reading.unit] for reading in chosen]

    def read(texts: Texts) -> float | None:
        current, voltage = (_scale(text, scale) for text, scale in zip(texts, scales, strict=True))
        return None if current is None or voltage is None else current * voltage

    units = " and ".join(reading.unit for reading in chosen)
    return Meter(source, tuple(reading.path for reading in chosen), f"{units}, as the kernel documents", power=read)


def _add(rails: Sequence[Meter]) -> Meter:
    """The sum of rails, where none is the total."""
    source = f"sum of {', '.join(rail.source for rail in rails)}"

    def read(texts: Texts) -> float | None:
        rest, total = list(texts), 0.0
        for rail in rails:
            assert rail.power
            watts = rail.power(tuple(rest[: len(rail.paths)]))
            if watts is None:
                return None
            total, rest = total + watts, rest[len(rail.paths) :]
        return total

    paths = tuple(path for rail in rails for path in rail.paths)
    return Meter(source, paths, "; ".join(dict.fromkeys(rail.scale for rail in rails)), power=read)


def _scale(text: str | None, scale: float) -> float | None:
    try:
        value = int(text or "")
    except ValueError:
        return None
    return None if value == INT_MIN else value * scale


def _read_counter(texts: Texts) -> tuple[float, float | None] | None:
    joules = _scale(texts[0], SCALES["uJ"])
    return None if joules is None else (joules, None)


def _read_odpm(texts: Texts) -> tuple[float, float | None] | None:
    """Joules of all rails, and the seconds of the rails' own clock, which lags behind the host's."""
    rails = [match for text in texts if text for match in ODPM_LINE.finditer(text)]
    if not rails or None in texts:
        return None
    return sum(int(match[4]) for match in rails) * 1e-6, max(int(match[2]) for match in rails) * 1e-3


def _read_pmic(texts: Texts) -> float | None:
    """Watts: both formats in the wild end in `name_A ... =0.123A` and `name_V ... =3.3V`."""
    found = [(match[1], match[2], float(match[3])) for match in PMIC_LINE.finditer(texts[0] or "")]
    amperes = {name: value for name, kind, value in found if kind == "A"}
    volts = {name: value for name, kind, value in found if kind == "V"}
    rails = amperes.keys() & volts.keys()
    return sum(amperes[name] * volts[name] for name in rails) if rails else None


# ---- points of a curve -----------------------------------------------------------------------------------------------

Points = list[tuple[int, float]]  # ns of the device's clock, value


def _unwrap(values: Sequence[tuple[int, tuple[float, float | None] | None]], wraps_j: float | None) -> Points:
    """A counter's points where it changed, rising without end. Its own clock, where it has one, says when it was read:
    the sensor's values are older than the moment at which the file is read."""
    points: Points = []
    added, last = 0.0, None
    origin: float | None = None
    for t_ns, told in values:
        if told is None:
            raise NoEnergyError("the energy counter did not answer in the middle of a run")
        joules, own_s = told
        if last is not None and joules < last:
            if wraps_j is None:
                raise NoEnergyError("the energy counter went back")
            added += wraps_j
        # what is read first may be as old as the counter's refresh, unless it says when it was counted
        changed, last = joules != last and (last is not None or own_s is not None), joules
        if own_s is not None:
            origin = t_ns / 1e9 - own_s if origin is None else min(origin, t_ns / 1e9 - own_s)
        if changed:
            points.append((t_ns if own_s is None else int(own_s * 1e9), joules + added))
    if origin is not None:
        points = [(t_ns + int(origin * 1e9), joules) for t_ns, joules in points]
    return points


def _count_inside(points: Points, start_ns: int, end_ns: int) -> int:
    return sum(start_ns <= t_ns <= end_ns for t_ns, _ in points)


def _check_count(inside: int, meter: Meter) -> None:
    if inside < LEAST_SAMPLES:
        raise NoEnergyError(f"{meter.source} changed {inside} times during the run, too few for a figure")


def _interpolate(points: Points, t_ns: int) -> float:
    """The value at a time, on the line between the points around it; outside, on the line of the nearest two."""
    for (t0, v0), (t1, v1) in pairwise(points):
        if t_ns <= t1 or (t1, v1) == points[-1]:
            return v0 + (v1 - v0) * (t_ns - t0) / (t1 - t0) if t1 > t0 else v0
    raise AssertionError("fewer than two points")
