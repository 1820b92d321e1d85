"""Folders that a command makes: where they may be, and how they get there whole or not at all."""

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bigvit_edge.errors import UserError, describe_error
from bigvit_edge.interruption import shielded

PREFIX, SUFFIX = ".bigvit-edge.", ".part"  # of a folder in which another is made
LOCK, NEW, OLD = "lock", "new", "old"  # in it: held by the process that fills it; what it fills; what that replaces
MARK = b"bigvit-edge makes a folder here, which goes to "  # in the lock, before the path
MOST_PATH = 4096 - 512  # bytes of a folder's path: the system's limit, less what is made inside
OPTION = "-o"  # of most verbs: what names the folder


def resolve_folder(path: Path, option: str = OPTION) -> Path:
    """Make a folder's path absolute, if this user can write to it.

    option: by which it was named, for messages. The folder is there or can be made. The path holds whatever becomes of
    the working directory. A link stays one.
    UserError with the reason if this user cannot write to it.
    """
    other = f"choose another {option}"
    try:
        folder = path.resolve()
    except (OSError, RuntimeError, ValueError) as e:  # RuntimeError: links in a circle
        raise UserError(f"{path} leads nowhere ({e})", "a folder to make", other) from e
    above = next(parent for parent in (folder, *folder.parents) if os.path.lexists(parent))
    if not above.is_dir():
        kind = "a link to itself" if above.is_symlink() else "a file" if above == folder else "no folder"
        raise UserError(f"{above} is {kind}", "a folder to make", other)
    longest = max((len(os.fsencode(name)) for name in folder.relative_to(above).parts), default=0)
    if longest > (most := os.pathconf(above, "PC_NAME_MAX")):
        raise UserError(f"a name of {longest} bytes in {folder}", f"at most {most}", other)
    if len(os.fsencode(folder)) > MOST_PATH:
        raise UserError(f"a path of {len(os.fsencode(folder))} bytes", f"at most {MOST_PATH}", other)
    check_rights(above, option)
    return folder


def resolve_output(path: Path, option: str = OPTION) -> Path:
    """Resolve a folder that is to be made or replaced.

    As resolve_folder, and UserError if it could not be renamed.
    """
    folder, here, other = resolve_folder(path, option), Path.cwd(), f"choose another {option}"
    if folder.is_mount() or folder in (here, *here.parents):
        raise UserError(f"{folder} cannot be renamed", "a folder below the working directory", other)
    if folder.exists():
        check_rights(folder.parent, option)
        place = folder.parent.stat()
        if place.st_mode & stat.S_ISVTX and os.geteuid() not in (0, place.st_uid, folder.stat().st_uid):
            raise UserError(f"{folder}, which is another user's", "a folder of the user's own", other)
    return folder


def check_rights(folder: Path, option: str = OPTION, made: str = "a folder") -> None:
    """Check that this user may add to and remove from a folder.

    option: that named what is to be made in it; made: what that is. UserError if not.
    """
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
        met = f"{folder}, where this user may not write"
        raise UserError(met, f"{made} where the user may make one", f"choose another {option}")


@contextmanager
def staging(folder: Path, check: Callable[[], object], option: str = OPTION) -> Iterator[Path]:
    """Give the block a new folder, which then takes `folder`'s place.

    The new one lies beside `folder`, and all parents are made now. check: called first and last, since an hour may lie
    between them. option: by which it was named, for messages.

    If the block fails (Ctrl-C and SIGTERM included) all that was made vanishes, and a note on the error says so; what
    was in `folder` before does not, wherever it is by then. What a process that was killed has left beside `folder` is
    cleared first, since that may put back what check looks for.
    """
    if folder.parent.is_dir():
        clear_leftovers(folder.parent)
    check()
    parents = [parent for parent in folder.parents if not parent.exists()]
    part, lock = None, None
    try:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            part = Path(tempfile.mkdtemp(prefix=PREFIX, suffix=SUFFIX, dir=folder.parent))
        except OSError as e:  # /proc, a full disk
            met = f"{folder} cannot be made ({e.strerror})"
            raise UserError(met, "a place for new folders", f"choose another {option}") from e
        lock = _mark(part, folder)
        (part / NEW).mkdir()
        yield part / NEW
        check()
        with shielded():
            _put(part, folder)
            shutil.rmtree(part, ignore_errors=True)
    except BaseException as e:
        with shielded():
            if part is not None and not (part / OLD).exists():
                shutil.rmtree(part, ignore_errors=True)
            for parent in parents:
                with suppress(OSError):
                    parent.rmdir()
        e.add_note("nothing was written")
        raise
    finally:
        if lock is not None:
            os.close(lock)


def _mark(part: Path, folder: Path) -> int:
    """Lock the folder as long as this process lives, and only then write what it is, so that it is never taken for a
    dead one's. Where the file system has no locks it is not marked, and nobody ever clears it.
    """
    lock = os.open(part / LOCK, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    with suppress(OSError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(lock, MARK + os.fsencode(folder))
    return lock


def _put(part: Path, folder: Path) -> None:
    """Two renames. For the instant between them nothing is there, and what was lies in `part`. UserError that says
    where if somebody makes the folder in that instant.
    """
    if not folder.exists():
        (part / NEW).rename(folder)
        return
    with suppress(OSError):  # some file systems have no modes
        (part / NEW).chmod(stat.S_IMODE(folder.stat().st_mode))
    folder.rename(part / OLD)
    try:
        (part / NEW).rename(folder)
    except BaseException as e:
        try:
            (part / OLD).rename(folder)
        except OSError:
            met = f"{folder}, made by somebody else meanwhile ({describe_error(e)}); what was in it is in {part / OLD}"
            raise UserError(met, "a folder that only one program writes to", "move it back by hand") from e
        raise


def clear_leftovers(above: Path) -> None:
    """Remove what killed processes have left in a folder.

    Never what a living one is filling, nor anything that is not marked as ours. A folder that was about to be replaced
    is put back, or stays if that cannot be.
    """
    for part in above.glob(f"{PREFIX}????????{SUFFIX}"):
        with suppress(OSError):
            ours = not part.is_symlink() and part.stat().st_uid == os.geteuid()
            if ours and {path.name for path in part.iterdir()} <= {LOCK, NEW, OLD}:
                _clear(part)


def _clear(part: Path) -> None:
    """OSError if a living process holds the lock, or there is none."""
    lock = os.open(part / LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        text = os.read(lock, 2 * MOST_PATH) if is_plain(part / LOCK) else b""
        if not text.startswith(MARK):
            return
        folder = part.with_name(Path(os.fsdecode(text.removeprefix(MARK))).name)
        if (part / OLD).exists() and not os.path.lexists(folder):
            (part / OLD).rename(folder)
        elif (part / OLD).exists() and (part / NEW).exists():
            return  # in its place is neither that nor the new one
        shutil.rmtree(part)
    finally:
        os.close(lock)


def is_plain(path: Path) -> bool:
    """Tell whether this is a file itself.

    A link, folder, pipe or device is none: it could be read forever.
    """
    return stat.S_ISREG(path.lstat().st_mode)
