"""Which entry point of a file answers."""

from dataclasses import replace

import pytest

from bigvit_edge.artifact import Entry
from bigvit_edge.errors import UserError
from bigvit_edge.export.inference import MOST_LABEL, Guess, choose_method
from tests.test_artifact import ENTRY

METHOD = ENTRY.methods[0]


def several(*keeps: float | None) -> Entry:
    return replace(ENTRY, methods=tuple(replace(METHOD, name=f"m{keep}", keep=keep) for keep in keeps))


def test_the_ratio_asked_for() -> None:
    assert choose_method(several(0.25, 1.0, 0.5), 0.5).name == "m0.5"


def test_the_largest_if_none_is_asked_for() -> None:
    assert choose_method(several(0.25, 1.0, 0.5), None).keep == 1.0
    assert choose_method(several(None), None).keep is None


def test_a_ratio_that_the_file_does_not_have() -> None:
    with pytest.raises(UserError, match=r"--keep 0.3 for m_int8.tflite; expected one of 0.25, 0.5"):
        choose_method(several(0.25, 0.5), 0.3)
    with pytest.raises(UserError, match=r"the model is dense; leave it out"):
        choose_method(several(None), 0.5)


def test_long_labels_are_cut_in_the_table() -> None:
    assert Guess(300 * "x", 0.75).as_cells() == (f"{(MOST_LABEL - 1) * 'x'}…", "75.00%")
    assert Guess(MOST_LABEL * "y", 0.25).as_cells() == (MOST_LABEL * "y", "25.00%")
