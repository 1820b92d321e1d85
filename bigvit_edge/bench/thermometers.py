"""The CPU's temperature between turns, read by one process there: nothing is started while a device is measured."""

from typing import Any, Self

from bigvit_edge.bench.lines import parse_line
from bigvit_edge.devices.contract import Device
from bigvit_edge.devices.process import Process
from bigvit_edge.machine import Machine, Zone

SAMPLE_S = 30.0


class Thermometer:
    """The CPU's thermal zones of a device, if it tells any."""

    def __init__(self, device: Device, bve_run: str, machine: Machine) -> None:
        self._device = device
        self._scales = {zone.path: scale for zone in machine.zones if zone.cpu and (scale := _find_scale(zone))}
        self._process = Process(device, (bve_run, "watch", *self._scales)) if self._scales else None

    def read(self) -> float | None:
        """Read the hottest, in °C; None if none can be read."""
        if self._process is None:
            return None
        texts = parse_line(self._process.ask("sample", SAMPLE_S), self._device, _read_texts)
        told = [_read_c(text, scale) for text, scale in zip(texts, self._scales.values(), strict=True)]
        return max((temp_c for temp_c in told if temp_c is not None), default=None)

    def close(self) -> None:
        """End the process."""
        if self._process:
            self._process.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def find_hottest(machine: Machine) -> float | None:
    """Find the CPU's highest temperature, in °C.

    None if no zone of it can be read.
    """
    return max((zone.temp_c for zone in machine.zones if zone.cpu and zone.temp_c is not None), default=None)


def _find_scale(zone: Zone) -> float | None:
    """°C of one of its units, which the probe found out."""
    try:
        return zone.temp_c / float(zone.raw) if zone.temp_c else None
    except (ValueError, ZeroDivisionError):
        return None


def _read_c(text: str | None, scale: float) -> float | None:
    try:
        return float(text or "") * scale
    except ValueError:
        return None


def _read_texts(told: dict[str, Any]) -> list[str | None]:
    return list(told["texts"])
