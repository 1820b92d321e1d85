"""What a device is to whoever uses one: three verbs, and what a message says when one fails."""

import os
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from bigvit_edge.errors import UserError

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")  # of a variable of the environment
PIPE = subprocess.PIPE
SLOWEST_BYTES_S = 200_000  # at which a file still counts as moving


class DeviceError(UserError):
    """A device that does not do what is asked.

    lost: it answered before, and does not any more; what was measured until then holds.
    """

    def __init__(self, met: str, expected: str, do: str = "", *, lost: bool = False) -> None:
        super().__init__(met, expected, do)
        self.lost = lost


class BusyError(DeviceError):
    """A device that another bench holds."""


class Device(Protocol):
    """A machine on which files are put and programs run.

    Paths there are absolute and as that machine writes them. All verbs end within a time that they choose by the size
    of what they move, and raise DeviceError with what the other side said. A word of the user's reaches a program there
    as that one word, whatever it holds.
    """

    name: str  # as typed: 'ssh:pi@raspberrypi:2222'
    launch: str  # how programs are started there: 'local', 'ssh', 'adb shell'
    home: str  # the folder that a Store may make there
    in_place: bool  # files are used where they lie: nothing is copied

    def push(self, source: Path, target: str) -> None:
        """Copy a file of this machine's to `target` there."""

    def shell(self, words: Sequence[str], environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a program there, with three pipes.

        It gets `environment` besides what it has there, and ends with the program's status: 126 and 127 if it cannot be
        run or is not there. Call it by run_words or Process, which see to its end.
        """

    def pull(self, source: str, target: Path) -> None:
        """Copy a file from there to `target` here."""

    def check(self) -> None:
        """Ask for a sign of life.

        DeviceError with `.lost` if there is none.
        """

    def close(self) -> None:
        """End what this side holds open."""


def spell_command(words: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """Spell words as one line for whatever shell a user has there.

    A backslash stands in double quotes, since fish reads those in single ones. ValueError on a wrong variable's name.
    """
    exports = []
    for name, value in (environment or {}).items():
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a variable")
        exports.append(f"export {name}={shlex.quote(value)};")
    inner = " ".join((*exports, "exec", *map(shlex.quote, words)))
    return f"exec sh -c {shlex.quote(inner)}".replace("\\", "'\"\\\\\"'")


def find_cache() -> Path:
    """Find this user's folder for what can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bigvit-edge"


def measure_timeout(size: int) -> float:
    """Allow so many seconds for moving so many bytes."""
    return 30 + size / SLOWEST_BYTES_S
