"""What the command line prints in one piece instead of a traceback."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """What a user did that cannot work (exit code 2). met: what was found; expected: what would have been right; do:
    what to do now.
    """

    def __init__(self, met: str, expected: str, do: str = "") -> None:
        super().__init__(f"{met}; expected {expected}" + (f"; {do}" if do else ""))
        self.met, self.expected, self.do = met, expected, do


class LimitError(Exception):
    """Files that came out worse than the target allows (exit code 1); nothing was written."""


class InternalError(Exception):
    """What went wrong though the input was right (exit code 3): a fault of this program's, never of the user's."""


def suggest(name: str, known: Iterable[str]) -> str:
    """'did you mean …?' with the nearest known names, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else ""


def name_type(value: object) -> str:
    """What a value is, with its article: 'a list', 'an int', 'None'."""
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0] in 'aeiouAEIO' else 'a'} {name}"
