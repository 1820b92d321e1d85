"""The Pareto front: rows to which no other is preferable in both latency and accuracy."""

from collections.abc import Sequence

from bigvit_edge.sweep.rows import Point


def choose_measure(points: Sequence[Point]) -> str:
    """Choose what the rows are judged by beside latency.

    'accuracy' where any has one, else 'agreement'.
    """
    return "accuracy" if any(point.accuracy is not None for point in points) else "agreement"


def read_measure(point: Point, measure: str) -> float | None:
    """Read a row's accuracy or agreement, in 0..1."""
    return point.accuracy if measure == "accuracy" else point.agreement


def find_front(points: Sequence[Point]) -> list[Point]:
    """Find the valid rows that no valid row beats, by rising latency.

    One beats another if it is not slower and not less accurate, and one of the two by more than nothing. Rows that are
    equal in both are on the front together.
    """
    measure = choose_measure(points)
    known = [
        (point.p50_ms, -share, point)
        for point in points
        if point.is_valid and point.p50_ms is not None and (share := read_measure(point, measure)) is not None
    ]
    front: list[tuple[float, float, Point]] = []
    for latency, loss, point in sorted(known, key=lambda item: item[:2]):
        if not front or loss < front[-1][1] or (latency, loss) == front[-1][:2]:
            front.append((latency, loss, point))
    return [point for _, _, point in front]
