"""Under which conditions a bench runs: the machine, its firmware's word on throttling, the build of a runtime."""

import json
import re
from typing import Any

from bigvit_edge.bench.thermometers import find_hottest
from bigvit_edge.devices.contract import Device
from bigvit_edge.devices.process import run_words
from bigvit_edge.errors import UserError
from bigvit_edge.machine import Machine, describe
from bigvit_edge.results import Protocol


def name_build(runtime: str, build: dict[str, Any] | None) -> str:
    """Name a runtime by all that it says of itself.

    But for what a session tried, which differs from time to time.
    """
    told = {key: value for key, value in (build or {}).items() if key != "tried"}
    return f"{runtime} {json.dumps(told, sort_keys=True)}"


def check_same(before: Machine, now: Machine) -> None:
    """Check that a part of a result is of this machine.

    UserError otherwise, whatever answers to its name.
    """
    one, other = ((m.cpu, m.board, [core.midr for core in m.cores], m.memory_bytes) for m in (before, now))
    if one != other:
        raise UserError(f"--resume on {describe(now)}", f"{describe(before)}, as in the first part", "measure anew")


def check_cooling(machine: Machine, protocol: Protocol) -> None:
    """Check that a gate on temperature can be kept; UserError otherwise."""
    if protocol.cool_c is not None and find_hottest(machine) is None:
        met = f"--cool {protocol.cool_c:g} on a device whose CPU temperature cannot be read"
        raise UserError(met, "one that tells it", "leave --cool out")


def read_bits(device: Device, machine: Machine) -> int | None:
    """Read what a Raspberry Pi's firmware says of throttling.

    By its own program where no file tells; None of another machine.
    """
    told = machine.throttled
    if told is None or told.bits is not None or not told.vcgencmd:
        return told.bits if told else None
    done = run_words(device, (told.vcgencmd, "get_throttled"))
    found = re.fullmatch(r"throttled=(0x[0-9a-fA-F]+)\s*", done.out)
    return int(found[1], 16) if found else None
