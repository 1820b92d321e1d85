"""Results that pages send: checked, and kept in one folder under names that only this side makes."""

import itertools
import re
import secrets
import threading
from datetime import UTC, datetime
from pathlib import Path

from bigvit_edge.errors import UserError
from bigvit_edge.folders import resolve_folder
from bigvit_edge.results import Result, read_result

MOST_BYTES = 2**26  # of a result: two hours of an image each millisecond
MOST_RESULTS = 1000  # of one run of the server
LAUNCH = "browser"
NAME = re.compile(r"web-\d{8}-\d{6}(-\d+)?\.json")
SENT = "what was sent"


class Inbox:
    """A folder of results, of which pages see only what pages sent.

    It is never left: no name from outside becomes a path. Any thread may call.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = resolve_folder(folder, "--results")
        self._kept: dict[str, Path] = {}  # by the handle that only who sent it has
        self._lock = threading.Lock()

    def add(self, data: bytes) -> tuple[str, str]:
        """Keep a result in a new file; return its handle and name.

        UserError if it is none that a browser measured, or there were too many.
        """
        if len(self._kept) >= MOST_RESULTS:
            raise UserError(f"{MOST_RESULTS} results since the server started", "fewer", "start it again")
        part = self._write(data)
        try:
            path = self._link(part)
        finally:
            part.unlink(missing_ok=True)
        handle = secrets.token_urlsafe(16)
        with self._lock:
            self._kept[handle] = path
        return handle, path.name

    def replace(self, handle: str, data: bytes) -> str:
        """Replace what was kept under a handle; return its name.

        KeyError if there is no such handle; UserError as of add.
        """
        part = self._write(data)
        try:
            with self._lock:
                path = self._kept[handle]
                part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return path.name

    def remove(self, handle: str) -> None:
        """Remove what was kept under a handle; KeyError if it is none."""
        with self._lock:
            path = self._kept.pop(handle)
        path.unlink(missing_ok=True)

    def list_names(self) -> list[str]:
        """List what pages sent, also before this run; newest first."""
        found = self.folder.iterdir() if self.folder.is_dir() else ()
        ours = (path.name for path in found if NAME.fullmatch(path.name) and path.is_file() and not path.is_symlink())
        return sorted(ours, reverse=True)

    def read(self, name: str) -> bytes:
        """Read one of those that are listed; KeyError if it is none."""
        if name not in self.list_names():
            raise KeyError(name)
        return (self.folder / name).read_bytes()

    def _write(self, data: bytes) -> Path:
        """A part that holds a result; UserError and no part if it is none."""
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f".{secrets.token_hex(8)}.part"
        try:
            part.write_bytes(data)
            _check(read_result(part))
        except UserError as e:
            part.unlink(missing_ok=True)
            raise UserError(e.met.replace(str(part), SENT), e.expected, e.do) from e
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        return part

    def _link(self, part: Path) -> Path:
        """Give a finished file a new name of its own, which two at once never have."""
        stem = f"web-{datetime.now(UTC):%Y%m%d-%H%M%S}"
        for n in itertools.count():
            path = self.folder / f"{stem}{f'-{n}' if n else ''}.json"
            try:
                path.hardlink_to(part)
            except FileExistsError:
                continue
            return path
        raise AssertionError


def _check(result: Result) -> None:
    """Nothing from a page may pass for a device's own measurement."""
    if not result.device.startswith(f"{LAUNCH}:") or any(row.launch != LAUNCH for row in result.rows):
        raise UserError(f"{SENT} says that no browser measured it", "a browser's result", "measure again")
