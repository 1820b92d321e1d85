"""A device that runs nothing and answers each line with an empty JSON object: the whole path runs anywhere."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bigvit_edge.devices.contract import PIPE, DeviceError, find_cache

ANSWERS = "import sys\nprint('{}', flush=True)\nfor line in sys.stdin: print('{}', flush=True)"


class Null:
    """No machine at all."""

    launch, in_place = "none", True

    def __init__(self, name: str, address: str = "") -> None:
        if name != "null":
            raise DeviceError(f"device {name!r}", "null alone, which is no machine", "leave out what follows it")
        self.name, self.home = name, str(find_cache() / "device")

    def push(self, source: Path, target: str) -> None:
        """Do nothing."""

    def shell(self, words: Sequence[str], environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start what answers each line with '{}'.

        It says so once before any, and ends with 0 at their end.
        """
        return subprocess.Popen(
            (sys.executable, "-c", ANSWERS), stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True
        )

    def pull(self, source: str, target: Path) -> None:
        """Write an empty file."""
        target.write_bytes(b"")

    def check(self) -> None:
        """Do nothing: it is there."""

    def close(self) -> None:
        """Do nothing: nothing is open."""
