"""Names beside dots: in nobody's way."""

import random
from itertools import combinations

import pytest

from bigvit_edge.sweep.labels import CLEAR, LETTER, Box, place_labels

AREA = Box(0, 0, 340, 300)


@pytest.mark.parametrize("seed", range(20))
def test_no_name_meets_another_or_a_dot_or_the_edge(seed: int) -> None:
    draw = random.Random(seed)
    dots = [(draw.uniform(10, 330), draw.uniform(10, 290)) for _ in range(30)]
    labels = place_labels(dots, [("a rather long name", str(i)) for i in range(30)], AREA)
    boxes = [label.box for label in labels if label]
    assert len(boxes) > 15
    assert not any(one.meets(other) for one, other in combinations(boxes, 2))
    assert not any(
        box.left < x + CLEAR and x - CLEAR < box.right and box.top < y + CLEAR and y - CLEAR < box.bottom
        for box in boxes
        for x, y in dots
    )
    assert all(box.left >= 0 and box.right <= 340 and box.top >= 0 and box.bottom <= 300 for box in boxes)


def test_the_first_name_that_fits_is_taken_and_none_if_none_does() -> None:
    narrow = Box(0, 0, 20 + 3 * LETTER, 40)
    (label,) = place_labels([(10, 20)], [("too long a name", "abc")], narrow)
    assert label
    assert label.text == "abc"
    assert place_labels([(10, 20)], [("too long a name",)], narrow) == [None]


def test_lines_are_kept_clear_of_where_that_can_be() -> None:
    line = Box(0, 19, 340, 21)
    (free,) = place_labels([(100, 20)], [("name",)], AREA, [line])
    assert free
    assert not free.box.meets(line)
    (crossed,) = place_labels([(100, 20)], [("name",)], Box(0, 10, 340, 30), [Box(0, 0, 340, 300)])
    assert crossed
