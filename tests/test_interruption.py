"""A signal ends the work in one exception, once, and is not lost."""

import os
import signal
from collections.abc import Iterator

import pytest

from bigvit_edge.interruption import SIGNALS, Interrupted, catching, check_interruption, shielded


@pytest.fixture(autouse=True)
def as_in_a_terminal() -> Iterator[None]:
    """Nothing ignored, as it is in a job in the background and under nohup."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_becomes_an_exception_and_the_handlers_come_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as caught, catching():
        signal.raise_signal(number)
    assert caught.value.number == number
    assert isinstance(caught.value, KeyboardInterrupt)  # which frameworks let pass
    assert signal.getsignal(number) == before


def test_one_that_a_framework_swallows_shows_at_the_next_check() -> None:
    def swallow() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:
            return

    with catching():
        check_interruption()
        swallow()
        with pytest.raises(Interrupted, match="SIGTERM"):
            check_interruption()
    with catching():
        check_interruption()  # a new program starts anew


def test_what_is_shielded_is_finished_first() -> None:
    done = []
    with catching():
        with shielded():
            signal.raise_signal(signal.SIGINT)
            done.append("rest")
        with pytest.raises(Interrupted):
            check_interruption()
    assert done == ["rest"]


def test_a_signal_that_the_caller_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with catching():
            signal.raise_signal(signal.SIGHUP)
            check_interruption()
    finally:
        signal.signal(signal.SIGHUP, before)
