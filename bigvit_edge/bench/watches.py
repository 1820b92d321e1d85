"""Files of a device, read there while it is measured: power sensors, above all."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from bigvit_edge.bench.lines import parse_line
from bigvit_edge.devices.contract import Device
from bigvit_edge.devices.process import Process

SAMPLE_S = 30.0


class Sample(NamedTuple):
    """What files held at a time of the device's monotonic clock.

    None of one that could not be read.
    """

    t_ns: int
    texts: tuple[str | None, ...]


@contextmanager
def watching(device: Device, bve_run: str, paths: Sequence[str], every_ms: float) -> Iterator[list[Sample]]:
    """Read files on a device over and over, by one process there.

    paths: '|command' is what a program prints. The list is filled when the block ends. DeviceError if it cannot be.
    """
    with Process(device, (bve_run, "watch", *paths)) as process:
        samples = parse_line(process.ask(f"every {every_ms:g}", SAMPLE_S), device, _read_samples)
        yield samples
        line = process.ask("stop", SAMPLE_S)
        while sample := parse_line(line, device, _read_samples):
            samples += sample
            line = process.read_line(SAMPLE_S)


def _read_samples(told: dict[str, Any]) -> list[Sample]:
    """One; none of the line that says that there are no more."""
    return [] if "stopped" in told else [Sample(int(told["t_ns"]), tuple(told["texts"]))]
