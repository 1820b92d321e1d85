"""Latency against accuracy as inline SVG: dots with their names, intervals, and the Pareto front."""

import math
from collections.abc import Sequence
from html import escape
from itertools import pairwise

from bigvit_edge.sweep.front import choose_measure, find_front, read_measure
from bigvit_edge.sweep.labels import Box, place_labels
from bigvit_edge.sweep.rows import Point

SIZES = (("narrow", 340, 300), ("wide", 1040, 460))  # class, width, height: one is shown, by the window's width
LEFT, RIGHT, TOP, BOTTOM = 48, 14, 26, 40
DOT = 4.5
FAR = 4.0  # times the smallest latency, from which on a logarithmic axis helps
MARGIN = 0.08  # about what is drawn, of the axis
STEPS = (1, 2, 5)
MEASURES = {"accuracy": "top-1 accuracy, %", "agreement": "top-1 agreement with PyTorch, %"}


def draw_front(points: Sequence[Point], numbers: Sequence[int]) -> str:
    """Draw the rows of one device.

    numbers: of each, as the table has them. '' where no row has both figures.
    """
    measure = choose_measure(points)
    drawn = [(p, n) for p, n in zip(points, numbers, strict=True) if p.p50_ms and read_measure(p, measure) is not None]
    if not drawn:
        return ""
    shown, at = [point for point, _ in drawn], [number for _, number in drawn]
    front = find_front(points)
    svgs = "".join(_Chart(shown, at, front, measure, *size).draw() for size in SIZES)
    said = (
        "Filled: valid rows; those on the front are joined: no valid row is as fast and more accurate. Hollow: rows "
        "that are not valid, and why. Thin lines: 95 % intervals. Numbers are the table's."
    )
    return f"<figure>{svgs}<figcaption>{said}</figcaption></figure>"


def list_names(points: Sequence[Point]) -> list[str]:
    """List names that tell the rows of a device apart.

    What all have in common is left out.
    """
    parts = [
        (
            point.model, point.precision, point.format, "" if point.keep is None else f"keep {point.keep:g}",
            point.cores, "" if point.threads is None else f"×{point.threads}",
        )
        for point in points
    ]  # fmt: skip
    varied = [len(set(column)) > 1 for column in zip(*parts, strict=True)]
    varied = varied if any(varied) else [True, *varied[1:]]
    return [" ".join(word for word, varies in zip(row, varied, strict=True) if varies and word) for row in parts]


class _Chart:
    def __init__(
        self, points: Sequence[Point], numbers: Sequence[int], front: Sequence[Point], measure: str, name: str,
        width: int, height: int,
    ) -> None:  # fmt: skip
        self.points, self.numbers, self.front, self.measure = points, numbers, front, measure
        self.name, self.width, self.height = name, width, height
        self.shares = [100 * (read_measure(point, measure) or 0) for point in points]
        times = [ms for p in points for ms in (p.p50_ms, p.p50_low_ms, p.p50_high_ms) if ms]
        self.log = max(times) > FAR * min(times)
        self.x_range = _widen([math.log10(ms) for ms in times] if self.log else times)
        bars = [100 * s for p in points for s in (p.accuracy_low, p.accuracy_high) if s is not None]
        self.y_range = _widen([*self.shares, *(bars if measure == "accuracy" else [])])
        times_ms = [point.p50_ms or 0 for point in points]
        self.dots = [(self.across(ms), self.down(share)) for ms, share in zip(times_ms, self.shares, strict=True)]

    def across(self, ms: float) -> float:
        low, high = self.x_range
        value = math.log10(ms) if self.log else ms
        return LEFT + (value - low) / (high - low) * (self.width - LEFT - RIGHT)

    def down(self, share: float) -> float:
        low, high = self.y_range
        return TOP + (high - share) / (high - low) * (self.height - TOP - BOTTOM)

    def draw(self) -> str:
        rows = f"{len(self.points)} rows, {len(self.front)} on the front"
        said = f"p50 latency against {MEASURES[self.measure]} of {rows}"
        parts = [*self._draw_axes(), self._draw_line(), *self._draw_bars(), *self._draw_dots()]
        return (
            f'<svg class="{self.name}" viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{escape(said)}">'
            f"{''.join(parts)}</svg>"
        )

    def _draw_axes(self) -> list[str]:
        bottom, right = self.height - BOTTOM, self.width - RIGHT
        parts = []
        for ms in _list_ticks(*self.x_range, self.log, most=4 if self.name == "narrow" else 9):
            x = self.across(ms)
            parts.append(_line("grid", x, TOP, x, bottom) + _text(x, bottom + 14, f"{ms:g}", "middle"))
        for share in _list_ticks(*self.y_range, False, most=7):
            y = self.down(share)
            parts.append(_line("grid", LEFT, y, right, y) + _text(LEFT - 6, y + 4, f"{share:g}", "end"))
        parts.append(_line("axis", LEFT, bottom, right, bottom) + _line("axis", LEFT, TOP, LEFT, bottom))
        scale = ", logarithmic" if self.log else ""
        parts.append(_text((LEFT + right) / 2, self.height - 8, f"p50 latency, ms{scale}", "middle", "muted"))
        parts.append(_text(4, 14, MEASURES[self.measure], "start", "muted"))
        return parts

    def _draw_line(self) -> str:
        """Steps: up to the next dot nothing more accurate is to be had."""
        at = self._list_front()
        path = "".join(f"M{x:.1f} {y:.1f}" if i == 0 else f"H{x:.1f}V{y:.1f}" for i, (x, y) in enumerate(at))
        return f'<path class="front" d="{path}"/>' if len(at) > 1 else ""

    def _list_front(self) -> list[tuple[float, float]]:
        return [(self.across(p.p50_ms or 0), self.down(100 * (read_measure(p, self.measure) or 0))) for p in self.front]

    def _list_steps(self) -> list[Box]:
        """The front's line, as names keep clear of it."""
        boxes = []
        for (x, y), (next_x, next_y) in pairwise(self._list_front()):
            boxes += [Box(x, y - 1, next_x, y + 1), Box(next_x - 1, next_y, next_x + 1, y)]
        return boxes

    def _draw_bars(self) -> list[str]:
        parts = []
        for point, (x, y) in zip(self.points, self.dots, strict=True):
            if point.p50_low_ms and point.p50_high_ms:
                parts.append(_line("bar", self.across(point.p50_low_ms), y, self.across(point.p50_high_ms), y))
            low, high = point.accuracy_low, point.accuracy_high
            if self.measure == "accuracy" and low is not None and high is not None:
                parts.append(_line("bar", x, self.down(100 * low), x, self.down(100 * high)))
        return parts

    def _draw_dots(self) -> list[str]:
        area = Box(LEFT + 2, TOP + 1, self.width - 2, self.height - BOTTOM - 2)
        names = []
        for point, number, name in zip(self.points, self.numbers, list_names(self.points), strict=True):
            verdict = "" if point.is_valid else f" ({point.verdict})"
            names.append((f"{number} {name}{verdict}", f"{number}{verdict}", str(number)))
        labels, circles, texts = place_labels(self.dots, names, area, self._list_steps()), [], []
        for point, dot, label in zip(self.points, self.dots, labels, strict=True):
            kind = "best" if point in self.front else "other" if point.is_valid else "hollow"
            circles.append(f'<circle class="{kind}" cx="{dot[0]:.1f}" cy="{dot[1]:.1f}" r="{DOT}"/>')
            if label is None:
                continue
            left, top, right, bottom = label.box
            if label.leads:
                end = left if left > dot[0] else right if right < dot[0] else (left + right) / 2
                texts.append(_line("lead", *dot, end, (top + bottom) / 2))
            texts.append(_text(left, bottom - 3, label.text, "start", kind))
        return texts + circles


def _widen(values: Sequence[float]) -> tuple[float, float]:
    """Both ends with a margin; of a single value a range about it."""
    low, high = min(values), max(values)
    span = (high - low) or abs(high) * 0.2 or 1.0
    return low - MARGIN * span, high + MARGIN * span


def _list_ticks(low: float, high: float, log: bool, most: int) -> list[float]:
    """Round figures within an axis, at most so many; of a logarithmic one, whose ends are powers of ten."""
    if not log:
        sizes = (step * 10.0**power for power in range(-9, 10) for step in STEPS)
        size = next((s for s in sizes if (high - low) / s <= most), 10.0**10)
        return [round(i * size, 9) for i in range(math.ceil(low / size), math.floor(high / size) + 1)]
    ticks: list[float] = []
    for steps in (STEPS, (1, 3), (1,)):
        ticks = [step * 10.0**power for power in range(math.floor(low), math.ceil(high) + 1) for step in steps]
        ticks = [tick for tick in ticks if low <= math.log10(tick) <= high]
        if len(ticks) <= most:
            break
    return ticks[:: -(-len(ticks) // most) or 1]


def _line(name: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{name}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str, name: str = "") -> str:
    return f'<text class="{name}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
