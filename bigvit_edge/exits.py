"""How a verb ends: one message, one exit code, never a traceback on the terminal."""

import errno
import functools
import io
import os
import platform
import re
import shlex
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from bigvit_edge.errors import LimitError, UserError, describe_error, lacks_memory
from bigvit_edge.interruption import Interrupted, catching, find_signal

MISSED, WRONG, OURS, CTRL_C, PIPE = 1, 2, 3, 130, 141
CONTROL = re.compile(r"[^\n\t\x20-\x7e\xa0-\U0010ffff]")  # what a terminal would obey, wherever it came from
FULL = (errno.ENOSPC, errno.EDQUOT)
EXPECTED = {  # of the user's disk and rights; an OSError of another kind is no input's fault
    errno.ENOSPC: (room := "room on the disk"), errno.EDQUOT: room, errno.EFBIG: room,
    errno.EACCES: (rights := "what this user may read and write"), errno.EPERM: rights, errno.EROFS: rights,
    errno.ENAMETOOLONG: "a shorter path", errno.EMFILE: "more open files (ulimit -n)", errno.EIO: "a sound disk",
}  # fmt: skip


def prepare_streams() -> None:
    """Make the standard streams take any text, and closed ones nothing.

    stdout lets through what its encoding lacks, as stderr does: labels and paths can hold anything. What the caller has
    closed leads nowhere, so that no file that is opened takes its number.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w" if number else "r"))  # noqa: SIM115  it takes that number
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def run_program(app: Callable[[], object]) -> None:
    """Run a Typer program until it ends, by signals too."""
    prepare_streams()
    try:
        with catching():
            try:
                app()
            except SystemExit as e:  # Typer's own for an interruption outside of a verb has another code, and no words
                if (number := find_signal()) is None or e.code == 128 + number:
                    raise
                raise Interrupted(number) from e
    except Interrupted as e:
        sys.exit(report_error(e).exit_code)


def explained(verb: Callable[..., None]) -> Callable[..., None]:
    """Wrap a verb so that its errors are printed in one piece.

    There is no traceback, and the exit code is fixed.
    """

    @functools.wraps(verb)
    def wrapped(*args: Any, **options: Any) -> None:
        try:
            verb(*args, **options)
            print(end="", flush=True)  # what cannot be printed shows now
        except typer.Exit:
            raise
        except BaseException as e:
            raise report_error(e) from None

    return wrapped


def explain_system(e: BaseException) -> UserError | None:
    """Explain an OSError of the user's disk or rights.

    None of any other error.
    """
    if not isinstance(e, OSError) or e.errno not in EXPECTED:
        return None
    met = f"{e.filename}: {e.strerror}" if e.filename else str(e.strerror)
    return UserError(met, EXPECTED[e.errno], "free some, or write elsewhere" if e.errno in FULL else "")


def report_error(e: BaseException) -> typer.Exit:
    """Report an error on stderr, and return the exit to raise."""
    match e:
        case UserError():
            return fail(WRONG, "; ".join((f"error: {e}", *list_notes(e))))
        case LimitError():
            return fail(MISSED, "\n".join(("past the target's limits:", str(e), *list_notes(e))))
        case BrokenPipeError():  # who reads our output has seen enough
            sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  the interpreter flushes it at its end
            return typer.Exit(PIPE)
        case OSError() if said := explain_system(e):
            return fail(WRONG, "; ".join((f"error: {said}", *list_notes(e))))
        case Interrupted():
            return fail(128 + e.number, "; ".join(("interrupted", *list_notes(e))))
        case KeyboardInterrupt():
            return fail(CTRL_C, "; ".join(("interrupted", *list_notes(e))))
    if lacks_memory(e):
        said = UserError(
            f"not enough memory ({describe_error(e)})", "a model that fits", "take a smaller one or image size"
        )
        return fail(WRONG, f"error: {said}")
    fault = "the system" if isinstance(e.__cause__, OSError) else "bigvit-edge"
    told = "; ".join((f"this is a fault of {fault}, not of the input", *list_notes(e), f"details: {write_log(e)}"))
    return fail(OURS, f"error: {describe_error(e)}; {told}")


def list_notes(e: BaseException) -> list[str]:
    """List what was added to an error on its way up."""
    return getattr(e, "__notes__", [])


def fail(code: int, message: str) -> typer.Exit:
    """Print a message on stderr, and return the exit to raise."""
    print(CONTROL.sub(lambda found: ascii(found[0])[1:-1], message), file=sys.stderr)
    return typer.Exit(code)


def write_log(e: BaseException) -> str:
    """Write the traceback to a new file, and return its path.

    The file also says what was called, and where. If none can be written, that is said in place of the path.
    """
    lines = (
        f"bigvit-edge, called as {shlex.join(sys.argv)}",
        f"Python {platform.python_version()}, {platform.platform()}",
        "".join(traceback.format_exception(e)),
        "written meanwhile:",
        getattr(e, "heard", ""),
    )
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="bigvit-edge-", suffix=".log", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as log:
            log.write("\n".join(lines))
        return log.name
    except OSError as failure:
        return f"none could be written ({failure})"
