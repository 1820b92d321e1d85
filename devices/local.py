"""This machine as a device: files are used where they lie, programs are children of this process."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from bigvit_edge.devices.contract import PIPE, DeviceError, find_cache

RUN = ("/bin/sh", "-c", 'exec "$@"', "sh")  # so that a program that cannot run ends with 126 or 127, as elsewhere


class Local:
    """This machine."""

    launch, in_place = "local", True

    def __init__(self, name: str, address: str = "") -> None:
        if name != "local":
            raise DeviceError(f"device {name!r}", "local alone, which is this machine", "leave out what follows it")
        self.name, self.home = name, str(find_cache() / "device")

    def push(self, source: Path, target: str) -> None:
        """Copy a file."""
        self._copy(source, Path(target))

    def shell(self, words: Sequence[str], environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a program, away from this terminal's Ctrl-C: whoever called ends it."""
        return subprocess.Popen(
            (*RUN, *words), stdin=PIPE, stdout=PIPE, stderr=PIPE, env={**os.environ, **(environment or {})},
            start_new_session=True,
        )  # fmt: skip

    def pull(self, source: str, target: Path) -> None:
        """Copy a file."""
        self._copy(Path(source), target)

    def check(self) -> None:
        """Do nothing: it is there."""

    def close(self) -> None:
        """Do nothing: nothing is open."""

    def _copy(self, source: Path, target: Path) -> None:
        try:
            shutil.copyfile(source, target)
        except OSError as e:
            met = f"{source} cannot be copied to {target} ({e.strerror or e})"
            raise DeviceError(met, "a file and room for it") from e
