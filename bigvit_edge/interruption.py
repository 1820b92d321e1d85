"""Ctrl-C, SIGTERM and SIGHUP: one exception that lets every folder be cleaned up, and none that is lost."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal that came.

    number: which one; a shell's exit code for it is 128 more.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class _State:
    came: int | None = None  # the signal that ends this process, once one came
    shields = 0  # how many blocks hold it back


@contextmanager
def catching() -> Iterator[None]:
    """Raise Interrupted on SIGNALS while the block runs.

    Those that the caller ignores (nohup, a job in the background) stay ignored. For the main thread of a program.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _receive)
    try:
        yield
    finally:
        _State.came = None
        for number, handler in before.items():
            signal.signal(number, handler)


def _receive(number: int, frame: FrameType | None) -> None:
    _State.came = _State.came or number
    if not _State.shields:
        raise Interrupted(_State.came)


def check_interruption() -> None:
    """Raise Interrupted again if a signal came.

    What is raised in a callback of a framework's is lost there.
    """
    if _State.came and not _State.shields:
        raise Interrupted(_State.came)


def find_signal() -> int | None:
    """Tell which signal came while `catching`, if one did."""
    return _State.came


@contextmanager
def shielded() -> Iterator[None]:
    """Hold signals back while the block runs.

    An end that has begun is thus not left half done; what came meanwhile shows at the next check_interruption.
    """
    _State.shields += 1
    try:
        yield
    finally:
        _State.shields -= 1
