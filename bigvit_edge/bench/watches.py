"""Files of a device, read there while it is measured: power sensors, above all."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

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
        samples = [_parse(process.ask(f"every {every_ms:g}", SAMPLE_S))]
        yield samples
        line = process.ask("stop", SAMPLE_S)
        while "stopped" not in json.loads(line):
            samples.append(_parse(line))
            line = process.read_line(SAMPLE_S)


def _parse(line: str) -> Sample:
    told = json.loads(line)
    return Sample(int(told["t_ns"]), tuple(told["texts"]))
