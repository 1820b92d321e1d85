"""Boards by OpenSSH's own client: one connection is held open, and each call is a channel of it."""

import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, cast

from bigvit_edge.devices.contract import PIPE, DeviceError, measure_timeout, spell_command

PART = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
ADDRESS = re.compile(rf"(?:({PART})@)?({PART}|\[[0-9A-Fa-f:.]+(?:%{PART})?\])(?::([0-9]{{1,5}}))?")
FORM = "ssh:USER@HOST, ssh:USER@HOST:PORT or ssh:HOST, where HOST may be an alias of ~/.ssh/config"
CONNECT_S, ALIVE_S, MISSED = 10, 5, 3
LONGEST_SOCKET = 80  # letters of the folder: a socket's path ends at 107, and OpenSSH adds 17
HOME = 'printf %s "${XDG_CACHE_HOME:-$HOME/.cache}/bigvit-edge-device"'
UNTIL_END = "exec cat > /dev/null"  # the connection ends when this process does, by SIGKILL too
# What ssh says, what that means, and what to do; the first that fits.
REASONS = (
    ("IDENTIFICATION HAS CHANGED", "it shows another host key than the one that is known here",
     "make sure that it is that machine; if it was installed anew: ssh-keygen -R {host}"),
    ("Host key verification failed", "its host key is not known here",
     "connect once by hand and compare the fingerprint: {by_hand}"),
    ("Permission denied", "it lets nobody in without a password", "give it your key: ssh-copy-id {target}"),
    ("Could not resolve", "no machine of that name is known", "check the name, or give its address"),
    ("Connection refused", "nothing listens there", "start its sshd, or give the right port"),
    ("No route to host", "no way leads there", "check the address, and that it is switched on"),
    ("unreachable", "no way leads there", "check this machine's network"),
    ("timed out", "it does not answer", "check the address, and that it is switched on"),
    ("onfiguration option", "OpenSSH's own settings are wrong", "correct ~/.ssh/config"),
)  # fmt: skip


class Ssh:
    """A machine that an sshd lets in with a key.

    name: as typed; address: what follows 'ssh:'. Host keys are checked as OpenSSH checks them, and never here.
    """

    launch, in_place = "ssh", False

    def __init__(self, name: str, address: str) -> None:
        found = ADDRESS.fullmatch(address)
        if not found or not 0 < int(found[3] or 22) < 65536:
            raise DeviceError(f"device {name!r}", FORM, "an IPv6 address stands in brackets")
        if not (ssh := shutil.which("ssh")):
            raise DeviceError(f"no ssh, which {name} needs", "OpenSSH's client", "apt-get install openssh-client")
        self.name, self._host, self._port = name, found[2].strip("[]"), found[3]
        user, port = ("-l", found[1]) if found[1] else (), ("-p", found[3]) if found[3] else ()
        folder = tempfile.mkdtemp(prefix="bve-")
        if len(folder) > LONGEST_SOCKET:
            Path(folder).rmdir()
            folder = tempfile.mkdtemp(prefix="bve-", dir="/tmp")
        self._folder = Path(folder)
        alive = ("-o", f"ServerAliveInterval={ALIVE_S}", "-o", f"ServerAliveCountMax={MISSED}")
        options = ("-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_S}", "-o", "RemoteCommand=none", *alive)
        self._by_hand = (*port, *user, self._host)
        self._ssh = (ssh, "-T", *options, "-S", str(self._folder / "s"))
        self._said = (self._folder / "said").open("w+b")
        self._master = subprocess.Popen(
            (*self._ssh, "-M", "-o", "ControlPersist=no", *self._by_hand[:-1], "--", self._host, UNTIL_END),
            stdin=PIPE, stdout=subprocess.DEVNULL, stderr=self._said, start_new_session=True,
        )  # fmt: skip
        try:
            self._wait()
            self.home = self._run(self._start(("sh", "-c", HOME)), 30)
            if not self.home.startswith("/") or "\n" in self.home:
                met = f"{name} prints words of its own around a program's ({_shorten(self.home)!r})"
                raise DeviceError(met, "none", "silence what its shell or ~/.ssh/rc prints by itself")
        except BaseException:
            self.close()
            raise

    def push(self, source: Path, target: str) -> None:
        """Copy a file there through cat."""
        with source.open("rb") as data:
            started = self._start(("sh", "-c", 'cat > "$1"', "sh", target), stdin=data)
            self._run(started, measure_timeout(source.stat().st_size), f"{source} did not reach {target}")

    def shell(self, words: Sequence[str], environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a program through sh there."""
        return self._start(words, environment, stdin=PIPE)

    def pull(self, source: str, target: Path) -> None:
        """Copy a file from there through cat."""
        failed = f"{source} did not come"
        size = self._run(self._start(("sh", "-c", 'wc -c < "$1"', "sh", source)), 30, failed)
        with target.open("wb") as data:
            started = self._start(("sh", "-c", 'cat < "$1"', "sh", source), stdout=data)
            self._run(started, measure_timeout(int(size)), failed)

    def check(self) -> None:
        """Run nothing there, and see whether that works."""
        started = self._start(("true",))
        try:
            _, err = started.communicate(timeout=CONNECT_S + ALIVE_S * MISSED)
        except subprocess.TimeoutExpired:
            started.kill()
            started.communicate()
            err = b"no answer"
        if started.returncode:
            raise self._lose(err.decode(errors="replace"))

    def close(self) -> None:
        """End the connection."""
        if self._master.poll() is None:
            cast(IO[bytes], self._master.stdin).close()
            self._master.terminate()
            try:
                self._master.wait(5)
            except subprocess.TimeoutExpired:
                self._master.kill()
                self._master.wait()
        self._said.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(
        self, words: Sequence[str], environment: Mapping[str, str] | None = None,
        stdin: int | IO[bytes] = subprocess.DEVNULL, stdout: int | IO[bytes] = PIPE,
    ) -> subprocess.Popen[bytes]:  # fmt: skip
        if self._master.poll() is not None:
            raise self._lose("")
        command = (*self._ssh, "-o", "LogLevel=ERROR", *self._by_hand[:-1], "--", self._host)
        line = spell_command(words, environment)
        return subprocess.Popen((*command, line), stdin=stdin, stdout=stdout, stderr=PIPE, start_new_session=True)

    def _run(self, started: subprocess.Popen[bytes], timeout_s: float, failed: str = "no answer") -> str:
        """What it wrote; DeviceError if it ends with another status than 0, or too late."""
        try:
            out, err = started.communicate(timeout=timeout_s)
        except BaseException as e:
            started.kill()
            started.communicate()
            if not isinstance(e, subprocess.TimeoutExpired):
                raise
            err = b"time-out"
        if started.returncode:
            self.check()
            said = err.decode(errors="replace").strip() or f"status {started.returncode}"
            raise DeviceError(f"{self.name}: {failed} ({said})", "room and rights there", "see what it says")
        return (out or b"").decode(errors="replace").strip()

    def _wait(self) -> None:
        """Until the connection stands."""
        end = time.monotonic() + 3 * CONNECT_S
        while not (self._folder / "s").exists():
            if self._master.poll() is not None or time.monotonic() > end:
                raise self._explain()
            time.sleep(0.01)

    def _explain(self) -> DeviceError:
        """Why there is no connection, in ssh's words and in plain ones."""
        said = self._read_said() or "timed out"
        by_hand = shlex.join(("ssh", *self._by_hand))
        host = f"[{self._host}]:{self._port}" if self._port else self._host
        for words, met, do in REASONS:
            if words in said:
                do = do.format(host=shlex.quote(host), by_hand=by_hand, target=by_hand.removeprefix("ssh "))
                return DeviceError(f"{self.name}: {met} ({_shorten(said)})", "a machine that lets this user in", do)
        return DeviceError(f"{self.name}: {_shorten(said)}", "a machine that lets this user in", f"try {by_hand}")

    def _read_said(self) -> str:
        self._said.seek(0)
        return self._said.read().decode(errors="replace").strip()

    def _lose(self, said: str) -> DeviceError:
        if self._said.closed:
            return DeviceError(f"{self.name} was closed", "an open device", "open it again", lost=True)
        return DeviceError(
            f"{self.name} is gone ({_shorten(self._read_said() or said)})",
            "a device that stays",
            "see that it runs and is reachable, then go on",
            lost=True,
        )


def _shorten(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip(" @\r")]
    return lines[-1] if lines else "no words"
