"""Lines of JSON, in which programs on a device answer."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

from bigvit_edge.devices.contract import Device, DeviceError
from bigvit_edge.errors import describe_error

Told = TypeVar("Told")


def parse_line(line: str, device: Device, read: Callable[[dict[str, Any]], Told]) -> Told:
    """Parse a line, and read of it what was asked.

    DeviceError where it is no object, or `read` misses something in it.
    """
    try:
        told = json.loads(line)
        if not isinstance(told, dict):
            raise ValueError("no object")
        return read(told)
    except (ValueError, TypeError, KeyError) as e:
        met = f"{line.strip()[:80]!r} from {device.name} ({describe_error(e)})"
        raise DeviceError(met, "a line of JSON from a program of this version", "see docs/devices.md") from e
