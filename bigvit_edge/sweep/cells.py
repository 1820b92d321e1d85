"""A row of the table as cells for people, with units."""

from bigvit_edge.sweep.rows import Point

NOTHING = "–"
COLUMNS = (
    "model", "precision", "format", "keep", "cores", "p50", "95 %", "p90", "p99", "frame", "accuracy", "95 %",
    "agrees", "memory", "size", "energy", "verdict",
)  # fmt: skip


def spell_cells(point: Point, on_front: bool) -> tuple[str, ...]:
    """Spell a row's COLUMNS.

    on_front: told beside the verdict.
    """
    verdict = point.verdict + (", on the front" if on_front else "")
    return (
        point.model, point.precision, point.format, _spell(point.keep, "{:g}"), spell_cores(point),
        _spell_ms(point.p50_ms), _spell_interval(point.p50_low_ms, point.p50_high_ms, 1, _count_digits(point.p50_ms)),
        _spell_ms(point.p90_ms), _spell_ms(point.p99_ms), _spell_ms(point.frame_ms), _spell(point.accuracy, "{:.1%}"),
        _spell_interval(point.accuracy_low, point.accuracy_high, 100, 1), _spell(point.agreement, "{:.1%}"),
        _spell_bytes(point.peak_memory_bytes, 1), _spell_bytes(point.file_bytes, 2),
        _spell(point.energy_mj, "{:.1f} mJ"), verdict,
    )  # fmt: skip


def spell_cores(point: Point) -> str:
    """Spell where a row ran, and on how many threads."""
    return point.cores if point.threads is None else f"{point.cores} ×{point.threads}"


def _spell(value: float | None, form: str) -> str:
    return NOTHING if value is None else form.format(value)


def _spell_ms(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.{_count_digits(value)}f} ms"


def _count_digits(ms: float | None) -> int:
    """Digits after the point: to the microsecond where milliseconds are few."""
    return 1 if ms and ms >= 100 else 2 if ms and ms >= 10 else 3


def _spell_bytes(value: int | None, digits: int) -> str:
    return NOTHING if value is None else f"{value / 1e6:.{digits}f} MB"


def _spell_interval(low: float | None, high: float | None, scale: float, digits: int) -> str:
    return NOTHING if low is None or high is None else f"{scale * low:.{digits}f}–{scale * high:.{digits}f}"
