"""Entry points by name and by keep ratio, and what is said where there is none."""

import numpy as np
import pytest

from bigvit_edge.entry_points import choose_entry, read_keeps
from bigvit_edge.errors import UserError

SEVERAL = {"keep_0_25": 0.25, "keep_0_1": 0.1, "keep_1": 1.0}


@pytest.mark.parametrize(
    ("name", "keep", "chosen"),
    [
        (None, None, "keep_0_25"),
        ("keep_1", None, "keep_1"),
        (None, 1, "keep_1"),
        (None, float(np.float32(0.1)), "keep_0_1"),  # as a file has it
        ("keep_0_1", 0.1, "keep_0_1"),
    ],
)
def test_one_is_found_by_name_and_ratio(name: str | None, keep: float | None, chosen: str) -> None:
    assert choose_entry("m.pte", SEVERAL, name, keep) == chosen


@pytest.mark.parametrize(
    ("known", "name", "keep", "message"),
    [
        ({}, None, None, "m.pte has no method; expected one to run; export the model again"),
        (SEVERAL, "keep_0_2", None, r"no method 'keep_0_2'; expected one of keep_0_25, .*; did you mean keep_0_25"),
        (SEVERAL, None, 0.5, r"keep 0.5 for m.pte; expected one of 0.1, 0.25, 1; export the model with that --keep"),
        (SEVERAL, "keep_1", 0.1, r"keep 0.1 for m.pte, method keep_1; expected one of"),
        ({"forward": None}, None, 0.5, "expected none: the model has no keep ratio; leave it out"),
        (SEVERAL, None, "0.5", "keep='0.5'; expected a number, or None for any"),
    ],
)
def test_what_there_is_not_is_said(
    known: dict[str, float | None], name: str | None, keep: float | None, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        choose_entry("m.pte", known, name, keep)


def test_keep_ratios_are_read_from_names() -> None:
    names = ("keep_0_25", "keep_1", "keep_", "forward", "0_5")
    assert read_keeps(names) == {"keep_0_25": 0.25, "keep_1": 1.0, "keep_": None, "forward": None, "0_5": None}
