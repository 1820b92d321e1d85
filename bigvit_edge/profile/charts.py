"""Charts as inline SVG and HTML: colours and sizes are the page's style sheet's, every text is escaped."""

import base64
import math
from collections.abc import Sequence
from html import escape

from bigvit_edge.profile.records import KINDS, Routing
from bigvit_edge.profile.summary import Bar, Role, Share, find_peak
from bigvit_edge.results import describe_times
from bigvit_edge.runtime.limits import Roof

WIDTH, HEIGHT = 340, 210  # of a chart's own coordinates: a narrow phone shows them as they are
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 44, 34
BINS = 36
FAR = 2  # times the median: what lies beyond is counted and not drawn
DOT, NEAR = 3.5, 11  # radius of a part's dot; how close the middles of two numbers may come
AROUND = [(math.cos(i * math.pi / 4) * r, -math.sin(i * math.pi / 4) * r) for r in (10, 19, 28) for i in range(8)]
MULTIPLYING = ("linear", "mlp", "attention", "convolution", "matrix product")
MOVING = ("copying", "routing", "quantisation")


def draw_histogram(times_ms: Sequence[float]) -> str:
    """Draw how long runs took, with their percentiles."""
    times = describe_times(times_ms)
    low, far = times.min, times.p50 * FAR
    high = max(min(max(times_ms), far), low * 1.001)
    inside = [ms for ms in times_ms if ms <= high]
    counts = [0] * BINS
    for ms in inside:
        counts[min(BINS - 1, int((ms - low) / (high - low) * BINS))] += 1
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    base, most = TOP + height, max(counts)

    def place(ms: float) -> float:
        return LEFT + (ms - low) / (high - low) * width

    parts = [
        f'<rect class="multiplying" x="{LEFT + i * width / BINS:.1f}" y="{base - count / most * height:.1f}" '
        f'width="{width / BINS - 1:.1f}" height="{count / most * height:.1f}"/>'
        for i, count in enumerate(counts)
        if count
    ]
    for row, (word, ms) in enumerate((("p50", times.p50), ("p90", times.p90), ("p99", times.p99))):
        at = place(min(ms, high))
        y, end = 12 + 13 * row, at > WIDTH / 2
        name = f"{word} {write_ms(ms)}{' →' if ms > high else ''}"
        if ms <= high:
            parts.append(f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{y - 8}" y2="{base}"/>')
        parts.append(_text(at - 4 if end else at + 4, y, name, "end" if end else "start"))
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>')
    parts.append(_text(LEFT, base + 14, f"{low:.3g}", "start") + _text(WIDTH - RIGHT, base + 14, f"{high:.3g}", "end"))
    parts.append(_text(LEFT + width / 2, base + 27, "milliseconds a run", "middle", "muted"))
    parts.append(_text(LEFT - 5, TOP + 9, f"{most}", "end") + _text(LEFT - 5, TOP + 22, "runs", "end", "muted"))
    beyond = len(times_ms) - len(inside)
    note = f"; {beyond} are beyond the right edge, up to {write_ms(max(times_ms))}" if beyond else ""
    said = f"How long {len(times_ms)} runs took, without tracing{note}"
    return _figure(_draw(parts, f"{said}: p50 {write_ms(times.p50)}"), said)


def draw_roofline(roles: Sequence[Role], roof: Roof) -> str:
    """Draw roles, numbered, beneath the machine's roof on one thread."""
    types = sorted({role.type for role in roles})
    rates = [role.rate for role in roles] + [find_peak(roof, type_) for type_ in types]
    left, right = _decades([role.intensity for role in roles])
    low, high = _decades(rates)
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - 12 - BOTTOM

    def across(intensity: float) -> float:
        return LEFT + (math.log10(intensity) - left) / (right - left) * width

    def down(rate: float) -> float:
        return 12 + (high - math.log10(rate)) / (high - low) * height

    parts = []
    for power in range(left, right + 1):
        x = across(10.0**power)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="12" y2="{12 + height}"/>')
        anchor = "end" if power == right else "middle"
        parts.append(_text(x, HEIGHT - BOTTOM + 14, f"{10.0**power:g}", anchor))
    for power in range(low, high + 1):
        y = down(10.0**power)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(LEFT - 5, y + 4, f"{10.0**power:g}", "end"))
    parts.append(_text(LEFT + width / 2, HEIGHT - 6, "multiply-accumulates a byte", "middle", "muted"))
    parts.append(_text(LEFT + 4, 22, "10⁹ multiply-accumulates a second", "start", "muted"))
    highest = max(find_peak(roof, type_) for type_ in types)
    for type_ in types:
        peak = find_peak(roof, type_)
        start = max(peak / roof.cache_gb_per_s, 10.0**left)
        parts.append(_line("roof", across(start), down(peak), across(10.0**right), down(peak)))
        parts.append(_text(WIDTH - RIGHT, down(peak) - 4, f"{type_} {peak:.0f}", "end"))
    for rate, name in ((roof.cache_gb_per_s, "cache"), (roof.memory_gb_per_s, "memory")):
        start, end = max(10.0**left, 10.0**low / rate), min(10.0**right, highest / rate)
        if start < end:
            parts.append(_line(f"roof {name}", across(start), down(rate * start), across(end), down(rate * end)))
    dots = [(across(role.intensity), down(role.rate)) for role in roles]
    for number, (role, (x, y), at) in enumerate(zip(roles, dots, _place_numbers(dots), strict=True), 1):
        kind = "multiplying" if role.type == "qd8" else "moving"
        parts.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{DOT}"/>')
        parts.append(_text(at[0], at[1] + 4, str(number), "middle", "number"))
    said = (
        f"Parts of the model beneath this machine's roof, measured on one thread: {roof.cache_gb_per_s:.0f} GB/s from "
        f"{roof.cache_bytes // 1024} KiB again and again (solid slope), {roof.memory_gb_per_s:.0f} GB/s from "
        f"{roof.memory_bytes // 2**20} MiB (dashed). Blue: qd8; orange: float"
    )
    return _figure(_draw(parts, said), said)


def _place_numbers(dots: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Where each dot's number stands: as near as no other dot or number is in its way."""
    placed: list[tuple[float, float]] = []
    for dot in dots:
        others = [*placed, *(each for each in dots if each != dot)]
        around = [(dot[0] + x, dot[1] + y) for x, y in AROUND]
        inside = [at for at in around if LEFT < at[0] < WIDTH - RIGHT and 12 < at[1] < HEIGHT - BOTTOM - 4] or [dot]
        placed.append(next((at for at in inside if all(math.dist(at, other) > NEAR for other in others)), inside[0]))
    return placed


def draw_shares(shares: Sequence[Share]) -> str:
    """Draw shares as bars: a name, the bar, ms and percent."""
    most = max(share.ms for share in shares) or 1.0
    rows = [
        f'<div class="row"><span>{escape(share.name)}</span><span class="track"><span class="bar {colour(share.name)}" '
        f'style="width:{share.ms / most * 100:.2f}%"></span></span>'
        f'<span class="value">{escape(write_ms(share.ms))} · {share.share:.1%}</span></div>'
        for share in shares
    ]
    return f'<div class="bars">{"".join(rows)}</div>'


def draw_waterfall(bars: Sequence[Bar], run_ms: float) -> str:
    """Draw when each layer ran, a row each and lane."""
    rows, before = [], ""
    for bar in bars:
        left, width = bar.start_ms / run_ms * 100, (bar.end_ms - bar.start_ms) / run_ms * 100
        name = bar.layer if bar.layer != before else ""
        before = bar.layer
        kind = "moving" if bar.lane == "LITTLE" else "multiplying"
        rows.append(
            f'<div class="row"><span>{escape(name)}</span><span class="track"><span class="bar {kind}" '
            f'style="margin-left:{min(left, 100):.2f}%;width:{max(0.3, min(width, 100 - left)):.2f}%"></span></span>'
            f'<span class="value">{escape(f"{write_ms(bar.busy_ms)} {bar.lane}".strip())}</span></div>'
        )
    scale = (
        f'<div class="row scale"><span></span><span class="ends"><span>0</span><span>{write_ms(run_ms)}</span></span>'
    )
    return f'<div class="bars">{"".join(rows)}{scale}<span></span></div></div>'


def draw_routing(routing: Routing) -> str:
    """Draw each layer's picture, what it left out darkened."""
    side = routing.side
    data = base64.b64encode(routing.picture).decode()
    image = f'<image id="picture" width="{side}" height="{side}" href="data:image/png;base64,{data}"/>'
    figures = [f'<svg width="0" height="0" aria-hidden="true"><defs>{image}</defs></svg>']
    for selection in routing.selections:
        dark = "".join(
            f"M{i % side} {i // side}h1v1h-1z" for i in range(side * side) if i not in set(selection.patches)
        )
        said = f"{len(selection.patches)} of {side * side} patches"
        figures.append(
            f'<figure><svg viewBox="0 0 {side} {side}" role="img" aria-label="{escape(selection.layer)}: {said}">'
            f'<use href="#picture"/><path class="dark" d="{dark}"/></svg>'
            f"<figcaption>{escape(selection.layer)}<br>{said}</figcaption></figure>"
        )
    return f'<div class="pictures">{"".join(figures)}</div>'


def write_ms(ms: float) -> str:
    """Write milliseconds, to the microsecond where they are few."""
    if ms < 0.0005:
        return "<0.001 ms"
    return f"{ms:.1f} ms" if ms >= 100 else f"{ms:.2f} ms" if ms >= 10 else f"{ms:.3f} ms"


def colour(kind: str) -> str:
    """Choose a colour: multiplying, moving data, or the rest."""
    return "multiplying" if kind in MULTIPLYING else "moving" if kind in MOVING or kind not in KINDS else "rest"


def _decades(values: Sequence[float]) -> tuple[int, int]:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _line(name: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{name}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str, name: str = "") -> str:
    return f'<text class="{name}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _draw(parts: Sequence[str], said: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(said)}">{"".join(parts)}</svg>'


def _figure(drawn: str, caption: str) -> str:
    return f"<figure>{drawn}<figcaption>{escape(caption)}.</figcaption></figure>"
