"""A sweep on the terminal: how it goes, and its table."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from bigvit_edge.results import FAILED
from bigvit_edge.sweep.cells import COLUMNS, spell_cells
from bigvit_edge.sweep.command import CSV, PAGE, Progress, Swept
from bigvit_edge.sweep.front import find_front
from bigvit_edge.sweep.jobs import Export, Job
from bigvit_edge.sweep.rows import Point
from bigvit_edge.tables import print_notes, print_rows


@contextmanager
def watching() -> Iterator[Progress]:
    """Show on stderr how a sweep goes.

    By a line a job, and a bar where that is a terminal.
    """
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    running = TextColumn("{task.description}", markup=False)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("jobs"), TimeElapsedColumn(), running)
    with Bar(*columns, refresh_per_second=1, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        started = dict[str, float]()

        def plan(jobs: int, done: int) -> None:
            bar.update(task, total=jobs, completed=done)
            console.print(f"  {jobs} jobs, {done} of them done before")

        def start(job: Job) -> None:
            started[name_job(job)] = time.monotonic()
            bar.update(task, description="; ".join(started))

        def end(job: Job, reason: str) -> None:
            bar.advance(task)
            seconds = time.monotonic() - started.pop(name_job(job))
            bar.update(task, description="; ".join(started))
            console.print(f"  {name_job(job):58} {seconds:6.1f} s" + (f"  failed: {reason}" if reason else ""))

        yield Progress(lambda note: print_notes([note]), plan, start, end)


def name_job(job: Job) -> str:
    """Name a job by what it does."""
    return f"{'export' if isinstance(job, Export) else 'bench '} {job.shown}"


def print_swept(swept: Swept) -> None:
    """Print a sweep's table, what failed, and where the rest is."""
    front = [point for device in _list_devices(swept) for point in find_front(_take(swept, device))]
    print_rows(("device", *COLUMNS), ((point.device, *spell_cells(point, point in front)) for point in swept.points))
    for point in swept.points:
        if point.reason and point.verdict != FAILED:
            print(f"{point.name()} on {point.device}: {point.verdict}: {point.reason}")
    for job, reason in swept.failures:
        print(f"failed: {name_job(job)}: {reason}")
    if swept.failures:
        print("--retry tries again what failed")
    print(f"results, bundles, {CSV} and {PAGE}: {swept.folder}")


def summarize(swept: Swept) -> dict[str, Any]:
    """Summarize a sweep for JSON."""
    front = [point for device in _list_devices(swept) for point in find_front(_take(swept, device))]
    return {
        "folder": str(swept.folder),
        "rows": [{**asdict(point), "front": point in front} for point in swept.points],
        "failures": [{"job": name_job(job), "reason": reason} for job, reason in swept.failures],
    }


def _list_devices(swept: Swept) -> list[str]:
    return list(dict.fromkeys(point.device for point in swept.points))


def _take(swept: Swept, device: str) -> list[Point]:
    return [point for point in swept.points if point.device == device]
