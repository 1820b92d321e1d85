"""A sweep as one HTML file that asks the network for nothing."""

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

from bigvit_edge import pages
from bigvit_edge.results import FAILED
from bigvit_edge.sweep.cells import COLUMNS, spell_cells
from bigvit_edge.sweep.charts import draw_front
from bigvit_edge.sweep.front import find_front
from bigvit_edge.sweep.jobs import Job
from bigvit_edge.sweep.rows import PENDING, Point
from bigvit_edge.sweep.settings import Sweep

TITLES = ("", *COLUMNS)
NUMBERS = 11


def write_page(sweep: Sweep, points: Sequence[Point], failures: Sequence[tuple[Job, str]]) -> str:
    """Write a sweep's table and fronts as a self-contained HTML page."""
    devices = list(dict.fromkeys(point.device for point in points))
    pending = sum(point.verdict == PENDING for point in points)
    measured = sum(point.p50_ms is not None for point in points)
    said = f"{measured} rows measured on {len(devices)} device{'s' if len(devices) > 1 else ''}"
    said += f", {pending} jobs still to run" if pending else ""
    said += f", {len(failures)} jobs failed" if failures else ""
    parts = [f"<h1>Latency and accuracy</h1><p class='quiet'>{escape(said)}</p>"]
    parts += [_write_device(device, [point for point in points if point.device == device]) for device in devices]
    if failures:
        lines = (f"{job.shown}: {reason}" for job, reason in failures)
        parts.append(pages.write_section("Jobs that failed", pages.write_list(lines)))
    how = f"<p>Made by <code>bigvit-edge sweep</code> with</p><pre>{escape(sweep.text)}</pre>"
    parts.append(pages.write_section("What the figures mean", pages.write_list(list_meanings()) + how))
    style = (files("bigvit_edge.sweep") / "page.css").read_text(encoding="utf-8")
    return pages.write_page("Latency and accuracy", parts, style)


def list_meanings() -> Iterable[str]:
    """List what the figures of a table mean."""
    return (
        "p50, p90, p99: milliseconds an image, of the device's own clock. The 95 % interval of p50 is a bootstrap of "
        "whole turns.",
        "frame: from a camera's frame in memory to its label, the median; docs/devices.md says what is in it.",
        "accuracy: share of the images that the file itself has right, where the export compared it with PyTorch; "
        "else of those that it answered on the device. The CSV says which, and on how many.",
        "agrees: share of the images on which its top-1 is PyTorch's.",
        "Rows of one file are measured in turn; different files one after the other. `bigvit-edge compare` says of two "
        "results whether they differ.",
    )


def _write_device(device: str, points: Sequence[Point]) -> str:
    numbers = range(1, len(points) + 1)
    chart = draw_front(points, numbers)
    if not chart:
        chart = "<p class='quiet'>No row has both a latency and an accuracy yet.</p>"
    front = find_front(points)
    rows = [(str(n), *spell_cells(point, point in front)) for n, point in zip(numbers, points, strict=True)]
    reasons = [
        f"{number}: {point.verdict}: {point.reason}"
        for number, point in zip(numbers, points, strict=True)
        if point.reason and point.verdict != FAILED
    ]
    table = pages.write_table(TITLES, rows, numbers=NUMBERS, after=1)
    machines = dict.fromkeys(point.machine for point in points if point.machine)
    chart = "".join(f"<p class='quiet'>{escape(machine)}</p>" for machine in machines) + chart
    return pages.write_section(device, chart + table + (pages.write_list(reasons) if reasons else ""))
