"""One bench at a time on a device: a lock there that dies with the process that holds it."""

import getpass
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from bigvit_edge.devices.contract import BusyError, Device, DeviceError
from bigvit_edge.devices.process import Process, run_words

# the first folder that every user and every way to the device shares, unless $TMPDIR says otherwise there
CHOOSE = """
for d in "${TMPDIR:-/tmp}" /data/local/tmp; do [ -w "$d" ] && echo "$d" && exit; done
mkdir -p -- "$1" && echo "$1"
"""
NAME = "bigvit-edge.lock"
ANSWER_S = 30


@contextmanager
def lock(device: Device, bve_run: str) -> Iterator[None]:
    """Hold a device while the block runs.

    bve_run: the program's path there. BusyError, naming who holds it and since when, if another does.
    """
    if device.launch == "none":
        yield
        return
    folder = run_words(device, ("sh", "-c", CHOOSE, "sh", device.home)).out.strip()
    if not folder.startswith("/"):
        raise DeviceError(f"{device.name} has no folder to write to", "/tmp, or one of this user's own", "make one")
    by = f"{_find_user()} on {socket.gethostname()}, process {os.getpid()}"
    with Process(device, (bve_run, "hold", f"{folder}/{NAME}", f"--by={by}")) as holder:
        word, _, rest = holder.read_line(ANSWER_S).partition(" ")
        if word == "busy":
            seconds, _, who = rest.partition(" ")
            raise BusyError(
                f"{device.name} has been measured for {_describe(int(seconds))} by {who or 'someone'}",
                "a device for this bench alone",
                "wait until that one ends",
            )
        yield


def _find_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no such user, as in some containers
        return f"user {os.getuid()}"


def _describe(seconds: int) -> str:
    return f"{max(seconds, 0)} s" if seconds < 120 else f"{seconds // 60} minutes"
