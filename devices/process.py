"""Programs on a device: run to their end, or spoken to line by line; none outlives its user."""

import queue
import signal
import subprocess
import threading
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import PurePosixPath
from typing import IO, NamedTuple, Self, cast

from bigvit_edge.devices.contract import Device, DeviceError
from bigvit_edge.interruption import shielded

TOKEN = "BIGVIT_EDGE_RUN"  # names a program's whole family on the device, in its environment
KILL = 'for f in $(grep -l -- "$1" /proc/[0-9]*/environ 2>/dev/null); do p=${f#/proc/}; kill -9 "${p%/environ}"; done'
KILL_S = 10.0
KEPT = 200  # lines of stderr that are kept


class Completed(NamedTuple):
    """A program's end: its status, and what it wrote."""

    status: int
    out: str
    err: str


class Ended(NamedTuple):
    """A Process's end: its status, its last words on stderr."""

    status: int
    err: str


def run_words(
    device: Device,
    words: Sequence[str],
    timeout_s: float = 30,
    data: bytes = b"",
    environment: Mapping[str, str] | None = None,
) -> Completed:
    """Run a program on a device to its end.

    data: its stdin. DeviceError after `timeout_s`, and if the device was lost; a status that is not 0 is the caller's.
    """
    token = uuid.uuid4().hex
    started = device.shell(words, {**(environment or {}), TOKEN: token})
    try:
        out, err = started.communicate(data, timeout_s)
    except subprocess.TimeoutExpired as e:
        _end(device, started, token)
        _close_pipes(started)
        device.check()
        raise DeviceError(
            f"{_name(words)} on {device.name} has not ended after {timeout_s:g} s",
            "an answer before that",
            "see what the device does, and try again",
        ) from e
    except BaseException:
        _end(device, started, token)
        _close_pipes(started)
        raise
    if started.returncode:
        device.check()
    return Completed(started.returncode, out.decode(errors="replace"), err.decode(errors="replace"))


class Process:
    """A program on a device that is spoken to by lines.

    It is told to end by the end of its stdin, and is killed if it does not; leaving a `with` block closes it.
    """

    def __init__(self, device: Device, words: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self.device, self.words, self._token = device, words, uuid.uuid4().hex
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._err: deque[str] = deque(maxlen=KEPT)
        self._ended: Ended | None = None
        self._started = device.shell(words, {**(environment or {}), TOKEN: self._token})
        self._stdin = cast(IO[bytes], self._started.stdin)
        self._readers = (
            threading.Thread(target=self._read_out, args=(self._started.stdout,), daemon=True),
            threading.Thread(target=self._read_err, args=(self._started.stderr,), daemon=True),
        )
        for reader in self._readers:
            reader.start()

    def read_line(self, timeout_s: float) -> str:
        """Read the next line of its stdout.

        DeviceError with what stderr said if it ends or stays silent so long, or if the device was lost.
        """
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            self.device.check()
            raise DeviceError(
                f"{_name(self.words)} on {self.device.name} has said nothing for {timeout_s:g} s{self._quote()}",
                "a line before that",
                "see what the device does, and try again",
            ) from None
        if line is None:
            self._lines.put(None)  # for whoever asks again
            raise self._explain()
        return line

    def ask(self, line: str, timeout_s: float) -> str:
        """Write a line to its stdin, and read the answer.

        As read_line does.
        """
        try:
            self._stdin.write(line.encode() + b"\n")
            self._stdin.flush()
        except (OSError, ValueError):  # ValueError: closed before
            raise self._explain() from None
        return self.read_line(timeout_s)

    def close(self, grace_s: float = 5) -> Ended:
        """End its stdin; kill it and its children if they outlive `grace_s`."""
        if self._ended is None:
            with suppress(OSError):
                self._stdin.close()
            try:
                self._started.wait(grace_s)
            except subprocess.TimeoutExpired:
                _end(self.device, self._started, self._token)
            except BaseException:
                _end(self.device, self._started, self._token)
                raise
            for reader in self._readers:
                reader.join(1)
            if not any(reader.is_alive() for reader in self._readers):  # else closing waits for what it reads
                _close_pipes(self._started)
            self._ended = Ended(self._started.returncode, "".join(self._err))
        return self._ended

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close(1 if error[0] else 5)

    def _explain(self) -> DeviceError:
        """Why it says nothing more."""
        try:
            status: int | None = self._started.wait(5)
        except subprocess.TimeoutExpired:
            status = None
        self._readers[1].join(1)
        try:
            self.device.check()
        except DeviceError as e:
            return e
        end = "closed its output" if status is None else describe_end(status)
        return DeviceError(
            f"{_name(self.words)} on {self.device.name} {end}{self._quote()}", "it running", "see what it says"
        )

    def _quote(self) -> str:
        """Its last words; what a runtime's own log has before them is not the reason."""
        lines = "".join(self._err).strip().splitlines()
        return f" and said: {lines[-1].strip()}" if lines else ""

    def _read_out(self, stream: IO[bytes]) -> None:
        with suppress(ValueError, OSError):  # it was closed meanwhile
            for line in stream:
                self._lines.put(line.decode(errors="replace").rstrip("\r\n"))
        self._lines.put(None)

    def _read_err(self, stream: IO[bytes]) -> None:
        with suppress(ValueError, OSError):
            for line in stream:
                self._err.append(line.decode(errors="replace"))


def describe_end(status: int) -> str:
    """Describe a program's end: its status, or what killed it.

    A shell there tells a signal as 128 more.
    """
    number = -status if status < 0 else status - 128
    if number not in set(signal.Signals):
        return f"ended with status {status}"
    hint = ", as the system does where memory runs out" if number == signal.SIGKILL else ""
    return f"was killed by {signal.Signals(number).name}{hint}"


def _end(device: Device, started: subprocess.Popen[bytes], token: str) -> None:
    """Kill our side's program, then what it stands for there; signals wait until that is done."""
    with shielded():
        started.kill()
        started.wait()
        with suppress(DeviceError, subprocess.TimeoutExpired):
            killer = device.shell(("sh", "-c", KILL, "sh", token))
            try:
                killer.communicate(timeout=KILL_S)
            finally:
                killer.kill()
                killer.wait()


def _close_pipes(started: subprocess.Popen[bytes]) -> None:
    for pipe in (started.stdin, started.stdout, started.stderr):
        with suppress(OSError):
            if pipe:
                pipe.close()


def _name(words: Sequence[str]) -> str:
    return PurePosixPath(words[0]).name
