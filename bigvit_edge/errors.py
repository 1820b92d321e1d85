"""What the command line prints in one piece instead of a traceback."""

import difflib
import errno
import re
from collections.abc import Iterable

SHOWN = 5  # of many things, how many a message names
LONGEST = 200  # letters of others' words in a message
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class UserError(Exception):
    """A mistake of the user's that cannot work (exit code 2).

    met: what was found; expected: what would have been right; do: what to do now.
    """

    def __init__(self, met: str, expected: str, do: str = "") -> None:
        super().__init__(f"{met}; expected {expected}" + (f"; {do}" if do else ""))
        self.met, self.expected, self.do = met, expected, do


class LimitError(Exception):
    """Files worse than the target allows (exit code 1).

    Nothing was written.
    """


class InternalError(Exception):
    """A failure on right input (exit code 3).

    It is a fault of this program's, never of the user's.
    """


def lacks_memory(e: BaseException) -> bool:
    """Tell whether memory ran out, which PyTorch says in a RuntimeError."""
    if isinstance(e, OSError):
        return e.errno == errno.ENOMEM
    return isinstance(e, MemoryError) or (isinstance(e, RuntimeError) and "can't allocate memory" in str(e))


def suggest(name: str, known: Iterable[str]) -> str:
    """Ask 'did you mean …?' with the nearest known names, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else ""


def name_type(value: object) -> str:
    """Name a value's type with its article: 'a list', 'an int', 'None'."""
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0] in 'aeiouAEIO' else 'a'} {name}"


def cut_message(e: BaseException) -> str:
    """Take a message's first line, without colours, cut after a word."""
    try:
        text = str(e.args[0] if isinstance(e, KeyError) and e.args else e)  # a KeyError shows as a repr
    except Exception:
        text = "<exception str() failed>"
    line = " ".join(next(iter(COLOURS.sub("", text).strip().splitlines()), "").split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST].rpartition(' ')[0] or line[:LONGEST]} ..."


def describe_error(e: BaseException) -> str:
    """Name an error's kind and its first words; of InternalError, all words."""
    if isinstance(e, InternalError):
        return " ".join(str(e).split())
    return f"{type(e).__name__}: {words}" if (words := cut_message(e)) else type(e).__name__


def keep_few(items: Iterable[str], shown: int = SHOWN) -> list[str]:
    """Keep the first items, and say how many more there are."""
    items = list(items)
    return items[:shown] + ([f"and {len(items) - shown} more"] if len(items) > shown else [])


def list_few(items: Iterable[str], shown: int = SHOWN, by: str = ", ") -> str:
    """List the first items in one line, as keep_few does."""
    kept = keep_few(items, shown)
    return " ".join((by.join(kept[:shown]), *kept[shown:]))
