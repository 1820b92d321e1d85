"""Phones by the system's adb, whose shell protocol of version 2 tells a program's status."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from bigvit_edge.devices.contract import PIPE, DeviceError, measure_timeout, spell_command
from bigvit_edge.errors import suggest

SERVER_S, ANSWER_S = 10.0, 15.0
ROW = re.compile(r"(\S+)\s+(device|unauthorized|offline|no permissions|\S+)(.*)")
# What `adb devices` calls a device that cannot be used yet, and what to do.
STATES = {
    "unauthorized": "unlock its screen, and allow USB debugging for this computer",
    "offline": "take it off and plug it in again, or: adb reconnect offline",
    "no permissions": "let this user open USB devices (a udev rule, the group plugdev), then: adb kill-server",
    "authorizing": "wait a moment",
    "connecting": "wait a moment",
}
START = "start it into Android"  # of bootloader, recovery, sideload and their kind


class Adb:
    """A phone that is attached, or connected by `adb connect`.

    name: as typed; serial: what follows 'adb:', as `adb devices` shows it.
    """

    launch, home, in_place = "adb shell", "/data/local/tmp/bigvit-edge", False

    def __init__(self, name: str, serial: str) -> None:
        self.name = name
        if not serial:
            raise DeviceError(f"device {name!r}", "adb:SERIAL", "bigvit-edge devices lists them")
        states = list_states(SERVER_S)
        if serial not in states:
            do = suggest(serial, states) or (f"adb connect {shlex.quote(serial)}" if ":" in serial else "plug it in")
            listed = f"one that adb lists ({', '.join(states)})" if states else "one that adb lists, which are none"
            raise DeviceError(f"device {name!r}", listed, do)
        if (state := states[serial]) != "device":
            raise DeviceError(f"{name} is {state}", "a device that is ready", explain_state(state))
        self._adb = (find_adb(), "-s", serial)
        if "shell_v2" not in self._run("features"):
            raise DeviceError(f"{name}, which tells no program's status", "Android 7 or newer", "take another device")

    def push(self, source: Path, target: str) -> None:
        """Copy a file there."""
        self._run("push", str(source.resolve()), target, timeout_s=measure_timeout(source.stat().st_size))

    def shell(self, words: Sequence[str], environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a program through sh there."""
        command = (*self._adb, "shell", "-T", spell_command(words, environment))
        return subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True)

    def pull(self, source: str, target: Path) -> None:
        """Copy a file from there."""
        size = self._run("shell", "-T", spell_command(("sh", "-c", 'wc -c < "$1"', "sh", source)))
        self._run("pull", source, str(target.resolve()), timeout_s=measure_timeout(int(size)))

    def check(self) -> None:
        """Run nothing there, and see whether that works."""
        try:
            done = _call(*self._adb, "shell", "-T", "true", timeout_s=ANSWER_S)
            said = done.stderr.strip() or f"status {done.returncode}"
        except subprocess.TimeoutExpired:
            done, said = None, f"no answer in {ANSWER_S:g} s"
        if done is None or done.returncode:
            raise DeviceError(
                f"{self.name} is gone ({said})",
                "a device that stays",
                "see that it runs and is attached, then go on",
                lost=True,
            )

    def close(self) -> None:
        """Do nothing: adb's server holds the connection, for others too."""

    def _run(self, *words: str, timeout_s: float = ANSWER_S) -> str:
        try:
            done = _call(*self._adb, *words, timeout_s=timeout_s)
        except subprocess.TimeoutExpired as e:
            self.check()
            raise DeviceError(f"{self.name}: {words[0]} took longer than {timeout_s:g} s", "an end", "try again") from e
        if done.returncode:
            self.check()
            said = (done.stderr.strip() or done.stdout.strip()).removeprefix("adb: ").removeprefix("error: ")
            raise DeviceError(f"{self.name}: {words[0]}: {said}", "room and rights there", "see what it says")
        return done.stdout


def find_adb() -> str:
    """Find the system's adb; DeviceError if there is none."""
    if path := shutil.which("adb"):
        return path
    do = "apt-get install adb, or take it from Android's platform-tools"
    raise DeviceError("no adb", "it, which speaks to phones", do)


def list_states(timeout_s: float) -> dict[str, str]:
    """List what adb knows: serial and state.

    Starts adb's server if none runs. DeviceError without adb, and if there is no answer in `timeout_s`.
    """
    adb = find_adb()
    try:
        done = _call(adb, "devices", timeout_s=timeout_s)
    except subprocess.TimeoutExpired as e:
        met = f"adb's server gave no answer in {timeout_s:g} s"
        raise DeviceError(met, "a list of devices", "it may be starting: try again, or adb kill-server") from e
    if done.returncode:
        raise DeviceError(f"adb: {done.stderr.strip()}", "a list of devices", "try adb kill-server")
    rows = done.stdout.partition("List of devices attached")[2].splitlines()
    return {found[1]: found[2] for row in rows if (found := ROW.match(row))}


def explain_state(state: str) -> str:
    """Say what to do about a device in that state."""
    return STATES.get(state, START)


def _call(*command: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=timeout_s,
        check=False, start_new_session=True,
    )  # fmt: skip
