"""Tables, notes and progress on the terminal, without what makes or measures them."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Column, Table

from bigvit_edge.interruption import check_interruption

LONG = (": a minute", ": minutes")  # how the name of a step ends that takes so long


@contextmanager
def print_step(name: str) -> Iterator[None]:
    """Time a step and say on stderr how long it took.

    One whose name ends in LONG is named when it begins too. Interrupted if a signal was lost on the way.
    """
    check_interruption()
    if name.endswith(LONG):
        print(f"  {name} ...", file=sys.stderr, flush=True)
    start = time.perf_counter()
    yield
    check_interruption()
    print(f"  {name:32} {time.perf_counter() - start:6.1f} s", file=sys.stderr, flush=True)


def print_notes(notes: Iterable[str]) -> None:
    """Print on stderr what was assumed; JSON on stdout stays whole."""
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def watch(items: Iterable[Any], name: str, count: int) -> Iterable[Any]:
    """Show a progress bar on stderr while items are gone through.

    There is none where stderr is no terminal.
    """
    bar = Console(stderr=True)
    return track(items, f"  {name}", total=count, console=bar, transient=True, disable=not bar.is_terminal)


class PlainConsole(Console):
    """A console whose reader may go away.

    It then raises BrokenPipeError, as print does, and does not exit by itself.
    """

    def on_broken_pipe(self) -> None:
        raise


def spell_line(text: str) -> str:
    """Spell a line so that a terminal obeys nothing in it.

    Whoever named a file may have meant otherwise.
    """
    return text if text.isprintable() else ascii(text)[1:-1]


def print_rows(title: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Print a plain table, never narrower than its cells.

    A figure cut short is no figure.
    """
    table = Table(*(Column(name, no_wrap=True) for name in title), box=SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*(escape(spell_line(cell)) for cell in row))
    console = PlainConsole()
    console.width = max(console.width, Console(width=1000).measure(table).maximum)
    console.print(table)
