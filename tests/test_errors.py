"""Words that every message is made of."""

import pytest

from bigvit_edge.errors import InternalError, cut_message, describe_error, keep_few, list_few


@pytest.mark.parametrize(
    ("e", "line"),
    [
        (ValueError("\n \x1b[31mred\x1b[0m  and\twide \nsecond"), "ValueError: red and wide"),
        (KeyError("size"), "KeyError: size"),
        (AssertionError(), "AssertionError"),
        (SyntaxError("invalid syntax", ("gen.py", 3, 1, "x x", 3, 2)), "SyntaxError: invalid syntax (gen.py, line 3)"),
        (InternalError("ours,\nwhole " + 99 * "word "), "ours, whole " + 98 * "word " + "word"),
    ],
)
def test_the_first_line_of_an_error(e: Exception, line: str) -> None:
    assert describe_error(e) == line


def test_long_words_of_others_are_cut_between_two_of_them() -> None:
    assert cut_message(ValueError(60 * "four ")) == 39 * "four " + "four ..."
    assert cut_message(ValueError(300 * "x")) == 200 * "x" + " ..."
    assert cut_message(ValueError(200 * "x")) == 200 * "x"


def test_few_of_many() -> None:
    assert list_few("abcde") == "a, b, c, d, e"
    assert list_few("abcdefg", by="; ") == "a; b; c; d; e and 2 more"
    assert keep_few(iter("abc"), 1) == ["a", "and 2 more"]
    assert list_few([]) == ""
