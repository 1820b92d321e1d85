"""The Pareto front, against its definition."""

import random

import pytest

from bigvit_edge.sweep.front import choose_measure, find_front
from bigvit_edge.sweep.rows import Point
from tests.sweep.made import make_point


def beats(one: Point, other: Point) -> bool:
    (fast, right), (slow, wrong) = ((point.p50_ms or 0, point.accuracy or 0) for point in (one, other))
    return fast <= slow and right >= wrong and (fast < slow or right > wrong)


@pytest.mark.parametrize("seed", range(50))
def test_the_front_is_what_nothing_beats(seed: int) -> None:
    draw = random.Random(seed)
    verdicts = ("valid", "valid", "valid", "noisy")
    points = [
        make_point(
            model=str(i),
            p50_ms=float(draw.randint(1, 8)),
            accuracy=draw.randint(1, 8) / 10,
            verdict=draw.choice(verdicts),
        )
        for i in range(draw.randint(0, 20))
    ]
    valid = [point for point in points if point.verdict == "valid"]
    expected = [point for point in valid if not any(beats(other, point) for other in valid)]
    found = find_front(points)
    assert {point.model for point in found} == {point.model for point in expected}
    assert len(found) == len(expected)
    assert [point.p50_ms for point in found] == sorted(point.p50_ms or 0 for point in found)


def test_rows_without_either_figure_are_on_no_front() -> None:
    assert find_front([make_point(p50_ms=None), make_point(accuracy=None, agreement=None)]) == []


def test_agreement_counts_where_no_accuracy_is_known() -> None:
    rows = [make_point(accuracy=None, agreement=0.9, p50_ms=1.0), make_point(accuracy=None, agreement=0.8, p50_ms=2.0)]
    assert choose_measure(rows) == "agreement"
    assert find_front(rows) == rows[:1]
    assert choose_measure([*rows, make_point()]) == "accuracy"
