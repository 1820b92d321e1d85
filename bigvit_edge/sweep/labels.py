"""Where names stand beside the dots of a chart: near, and in nobody's way."""

import math
from collections.abc import Sequence
from typing import NamedTuple

LETTER, LINE = 6.9, 13.0  # of text at 11 px: a bold letter's usual width, a line's height
CLEAR = 6.0  # radius about a dot in which no name stands
REACH = (8.0, 16.0, 28.0, 44.0, 64.0)  # from a dot's middle to its name
AROUND = [i * math.pi / 8 for i in (0, 8, 2, 6, 14, 10, 1, 15, 7, 9, 4, 12)]
LEADS = 15.0  # a name farther from its dot than that has a line to it


class Box(NamedTuple):
    """A rectangle, y downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "Box") -> bool:
        """Tell whether two overlap."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def lies_in(self, other: "Box") -> bool:
        """Tell whether it lies within another."""
        return (
            other.left <= self.left
            and self.right <= other.right
            and other.top <= self.top
            and self.bottom <= other.bottom
        )


class Label(NamedTuple):
    """A name, its box, and whether a line leads to its dot."""

    text: str
    box: Box
    leads: bool


def place_labels(
    dots: Sequence[tuple[float, float]], names: Sequence[Sequence[str]], area: Box, lines: Sequence[Box] = ()
) -> list[Label | None]:
    """Place a name beside each dot.

    names: of each dot, from the best to the shortest; the first for which there is room is taken, None if there is for
    none. All keep clear of each other and of every dot, and stay within the area; of lines, where they can.
    """
    taken = [Box(x - CLEAR, y - CLEAR, x + CLEAR, y + CLEAR) for x, y in dots]
    placed: list[Label | None] = []
    for dot, choices in zip(dots, names, strict=True):
        tries = ((text, avoided) for text in choices for avoided in ((*taken, *lines), taken))
        found = next((label for text, avoided in tries if (label := _place(dot, text, area, avoided))), None)
        if found:
            taken.append(found.box)
        placed.append(found)
    return placed


def _place(dot: tuple[float, float], text: str, area: Box, taken: Sequence[Box]) -> Label | None:
    width = LETTER * len(text)
    for reach in REACH:
        for angle in AROUND:
            x, y = dot[0] + reach * math.cos(angle), dot[1] - reach * math.sin(angle)
            across = math.cos(angle)
            left = x if across > 0.1 else x - width if across < -0.1 else x - width / 2
            box = Box(left, y - LINE / 2, left + width, y + LINE / 2)
            if box.lies_in(area) and not any(box.meets(other) for other in taken):
                return Label(text, box, reach > LEADS)
    return None
