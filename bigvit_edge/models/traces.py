"""Where in a user's own source an error arose."""

import linecache
import re
import sysconfig
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten

import torch

import bigvit_edge

SELF = str(Path(bigvit_edge.__file__).parent)
TORCH = str(Path(torch.__file__).parent)
PACKAGES = (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
LONGEST = 160  # letters of a line's text that are shown
PYTHON = sysconfig.get_path("stdlib")


@dataclass(frozen=True)
class Line:
    """A line of source: the file, its number, its text."""

    file: str
    number: int
    text: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.number}"
        for folder in PACKAGES:
            if self.file.startswith(folder):
                inside = Path(self.file).relative_to(folder)
                place = f"{inside}:{self.number} (a line of {inside.parts[0].removesuffix('.py')}'s)"
        return f"{place}: {shorten(self.text, LONGEST, placeholder=' ...')}" if self.text else place


def find_line(error: BaseException) -> Line | None:
    """Find the innermost line of the user's that an error passed.

    It is neither Python's own, nor an installed package's, nor this one's. Where there is none, it is the innermost one
    of an installed package other than torch (timm, say).
    """
    return _choose([line for link in list_causes(error) for line in _lines(link)])


def find_line_in(stack: str) -> Line | None:
    """Find that line in a stack printed by Python, outermost first."""
    found = re.findall(r'File "(.+?)", line (\d+)', stack)
    return _choose([_read_line(file, int(number)) for file, number in reversed(found)])


def _choose(lines: list[Line]) -> Line | None:
    for belongs in (_is_users, _is_a_packages):
        for line in lines:
            if belongs(line.file):
                return line
    return None


def is_source(file: str) -> bool:
    """Tell whether a user may be shown a line of that file.

    He may if it is his own, or an installed package's.
    """
    return _is_users(file) or _is_a_packages(file)


def list_causes(error: BaseException) -> Iterator[BaseException]:
    """List the error, and those it was raised from."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _lines(error: BaseException) -> Iterator[Line]:
    """Innermost first."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        yield Line(error.filename, error.lineno, (error.text or "").strip())
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        yield _read_line(frame.filename, frame.lineno or 0)


def _read_line(file: str, number: int) -> Line:
    return Line(file, number, linecache.getline(file, number).strip())


def _is_users(file: str) -> bool:
    return not file.startswith(("<", SELF, TORCH, *PACKAGES, PYTHON))


def _is_a_packages(file: str) -> bool:
    return file.startswith(PACKAGES) and not file.startswith((SELF, TORCH))
