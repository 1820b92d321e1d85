"""Files on a device: a folder for each use of it, files checked after they arrive, gone at the end."""

import re
import uuid
from pathlib import Path
from typing import Self

from bigvit_edge import artifact
from bigvit_edge.devices.contract import Device, DeviceError, measure_timeout
from bigvit_edge.devices.process import Completed, run_words
from bigvit_edge.interruption import shielded

SPARE_KB = 1024  # left on the device beside a file
LONGEST = 60  # letters of a file's own name that it keeps there
# of `df -k`: size, used, free, share, and where it is mounted; a long device's name stands on a line of its own
FREE = re.compile(r"\d+\s+\d+\s+(-?\d+)\s+(?:\d+%|-)\s+/")
# twice: another's last `rmdir` may fall between the two folders
PREPARE = 'umask 077; mkdir -p -- "$1" 2>/dev/null || mkdir -p -- "$1" && df -k "$1"'
HASH = 'if [ -f "$1" ]; then sha256sum < "$1"; fi'
SETTLE = 'chmod "$3" "$1" && mv -f "$1" "$2"'
REMOVE = 'rm -rf -- "$2"; rmdir "$1" 2>/dev/null || :'
TOKEN = 8  # hexadecimal digits
STALE_MINUTES = 60
CLEAR = """
cd "$1" 2>/dev/null && find . -maxdepth 1 -type d -name "$2" -mmin "+$3" -exec rm -rf {} + 2>/dev/null || :
"""


class Store:
    """Our files on a device, removed when a `with` block ends.

    They lie in a folder of this Store's own in the device's home: no other's end removes them, whoever holds the
    device. keep: put what is brought beside it instead, named by its hash, for all who come; nobody removes that. What
    lies there is used, not sent again. Where a device works in place nothing is copied.
    """

    def __init__(self, device: Device, keep: bool = False) -> None:
        self.device, self.keep = device, keep
        self._token = uuid.uuid4().hex[:TOKEN]
        self._folder = f"{device.home}/{self._token}"
        self._made = False

    def place(self, path: Path, executable: bool = False) -> str:
        """Bring a file to the device, and return its path there.

        UserError if it cannot be read; DeviceError if there is no room, or other bytes arrive than were sent.
        """
        if self.device.in_place:
            return str(path.resolve())
        digest, size = hash_file(path), path.stat().st_size
        name = f"{digest[:16]}-{_simplify(path.name)}"
        kept, ours = f"{self.device.home}/{name}", f"{self._folder}/{name}"
        mode, free_kb = "700" if executable else "600", self._prepare()
        for there in (ours, kept):
            if self._hash(there, size) == digest:
                self._run('chmod "$2" "$1"', there, mode)
                return there
        if free_kb * 1024 < size + SPARE_KB * 1024:
            raise DeviceError(
                f"{free_kb / 1024:,.0f} MB free in {self.device.home} of {self.device.name}",
                f"room for the {size / 2**20:,.0f} MB of {path.name}",
                "make room there",
            )
        part = f"{ours}.part"
        self.device.push(path, part)
        if (arrived := self._hash(part, size)) != digest:
            raise DeviceError(
                f"{path.name} arrived on {self.device.name} with the sha256 {arrived or 'of nothing'}",
                digest,
                "try again; if it happens again, doubt that device's storage, or the way there",
            )
        there = kept if self.keep else ours
        self._run(SETTLE, part, there, mode)
        return there

    def reserve(self, name: str) -> str:
        """Name a file that a program will write there.

        It is removed at the end, kept or not.
        """
        self._prepare()
        return f"{self._folder}/{_simplify(name)}"

    def clear(self) -> None:
        """Remove what killed benches left there.

        For whoever holds the device: all other folders that are so old are nobody's.
        """
        names, age = "[0-9a-f]" * TOKEN, str(STALE_MINUTES)
        run_words(self.device, ("sh", "-c", CLEAR, "sh", self.device.home, names, age))

    def fetch(self, there: str, target: Path) -> None:
        """Bring a file here, to `target`, whole or not at all."""
        part = target.with_name(f"{target.name}.{self._token}.part")
        try:
            self.device.pull(there, part)
            if not self.device.in_place and (sent := self._hash(there, part.stat().st_size)) != hash_file(part):
                raise DeviceError(f"{there} arrived as other bytes", f"those of the sha256 {sent}", "try again")
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove what was brought or reserved.

        And the device's home, if nothing else is in it.
        """
        if self._made:
            with shielded():
                run_words(self.device, ("sh", "-c", REMOVE, "sh", self.device.home, self._folder))
            self._made = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            self.remove()
        except DeviceError as e:
            if error is None:
                raise
            error.add_note(f"files of ours may be left in {self.device.home} of {self.device.name} ({e.met})")

    def _prepare(self) -> int:
        """Make the folder; how many KiB are free there, without limit where that is not told."""
        self._made = True
        out = self._run(PREPARE, self._folder).out
        found = FREE.search(out.partition("\n")[2])
        return int(found[1]) if found else 2**62

    def _hash(self, there: str, size: int) -> str:
        """The sha256 of a file there; "" if there is none."""
        return self._run(HASH, there, timeout_s=measure_timeout(size)).out.partition(" ")[0].strip()

    def _run(self, script: str, *words: str, timeout_s: float = 30) -> Completed:
        done = run_words(self.device, ("sh", "-c", script, "sh", *words), timeout_s)
        if done.status:
            raise DeviceError(
                f"{self.device.home} of {self.device.name} takes no files ({done.err.strip() or done.status})",
                "a folder where this user may write, on a device with sha256sum",
                "see what it says",
            )
        return done


def hash_file(path: Path) -> str:
    """Compute a file's sha256, in hexadecimal; UserError if it cannot be read."""
    try:
        return artifact.hash_file(path)
    except OSError as e:
        raise DeviceError(f"{path} cannot be read ({e.strerror})", "a file", "check the path") from e


def _simplify(name: str) -> str:
    """A file's name in letters that no shell and no file system minds."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)[-LONGEST:]
