"""Silence hides what is written on the way, by whatever way, and keeps it with the error when the work fails."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator

import pytest

from bigvit_edge.console import silenced
from bigvit_edge.errors import UserError


def chatter(then: Exception | None = None) -> None:
    os.write(2, b"from C++\n")
    print("from Python", file=sys.stderr)
    os.write(2, b"from C++ again\n")
    if then:
        raise then


SAID = "from C++\nfrom Python\nfrom C++ again\n"


@pytest.fixture
def fresh_logging() -> Iterator[None]:
    """pytest's own handlers out of the way."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:], logging.root.level = handlers, level


def test_nothing_reaches_the_terminal_and_all_can_be_read(capfd: pytest.CaptureFixture[str]) -> None:
    with silenced() as said:
        assert said() == ""
        chatter()
        warnings.warn("a warning", stacklevel=1)
        assert said() == SAID
        chatter()
        assert said() == SAID + SAID
    assert capfd.readouterr() == ("", "")


def test_afterwards_one_is_heard_again(capfd: pytest.CaptureFixture[str]) -> None:
    with silenced():
        chatter()
    chatter()
    assert capfd.readouterr().err.count("\n") == 3
    with pytest.warns(UserWarning, match="a warning"):
        warnings.warn("a warning", stacklevel=1)


def test_a_failure_shows_nothing_and_keeps_it(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="boom") as failure, silenced(), silenced():
        chatter(ValueError("boom"))
    assert capfd.readouterr() == ("", "")
    assert failure.value.heard == SAID  # type: ignore[attr-defined]


def test_a_user_error_shows_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="no file"), silenced():
        chatter(UserError("no file", "a file"))
    assert capfd.readouterr() == ("", "")


def test_within_another(capfd: pytest.CaptureFixture[str]) -> None:
    with silenced() as outer:
        with silenced() as inner:
            chatter()
            assert inner() == SAID
        assert outer() == ""
        chatter()
        assert outer() == SAID
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("fresh_logging")
def test_logging_is_left_as_it_was() -> None:
    logging.root.handlers[:] = []
    before = logging.root.level
    with silenced() as said:
        logging.basicConfig(level=logging.DEBUG, force=True)
        logging.warning("hidden")
        assert said() == ""
        logging.error("kept")
        assert "kept" in said()
    assert (logging.root.handlers, logging.root.level, logging.root.manager.disable) == ([], before, 0)


@pytest.mark.usefixtures("fresh_logging")
def test_what_was_disabled_stays_so() -> None:
    logging.disable(logging.CRITICAL)
    try:
        with silenced():
            assert logging.root.manager.disable == logging.CRITICAL
        assert logging.root.manager.disable == logging.CRITICAL
    finally:
        logging.disable(logging.NOTSET)


def test_a_handler_made_meanwhile_still_works(capfd: pytest.CaptureFixture[str]) -> None:
    with silenced():
        handler = logging.StreamHandler()
    handler.emit(logging.makeLogRecord({"msg": "later"}))
    assert capfd.readouterr().err == "later\n"
