"""One bench at a time on a device: a lock there that dies with the process that holds it."""

import getpass
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from bigvit_edge.devices.contract import BusyError, Device, DeviceError
from bigvit_edge.devices.null import Null
from bigvit_edge.devices.process import Process, run_words

NAME = "bigvit-edge.lock"
FOLDERS = ("/tmp", "/data/local/tmp")  # those that every user and every way to a device shares; the latter Android's
OVERRIDE = "BVE_LOCK_FOLDER"  # the environment's word for another, on this machine: who differ in it miss each other
# A folder, and whether its lock is held: opened as it is, since Linux refuses O_CREAT in /tmp of another user's file,
# and shared, so that two who look do not see each other. Without flock there the kernel's list tells by the file's
# number, but for holders of other containers: those the lock itself tells.
LOOK = """
name=$1; home=$2; status=; shift 2
for d in "$@" "$home"; do
  [ "$d" = "$home" ] && mkdir -p -- "$home"
  [ -d "$d" ] && [ -w "$d" ] || continue
  echo "$d"; f=$d/$name
  if [ -f "$f" ] && [ -r "$f" ] && told=$(stat -c '%i %Y' "$f"); then
    if command -v flock >/dev/null; then
      status=$( (flock -n -s 9; echo $?) 9<"$f" 2>/dev/null)
    else
      grep -q "FLOCK .* WRITE .*:${told% *} " /proc/locks 2>/dev/null && status=1
    fi
    [ "$status" = 1 ] && echo "busy $(($(date +%s) - ${told#* })) $(cat "$f")"
  fi
  exit 0
done
"""
ANSWER_S = 30


def check_free(device: Device) -> str:
    """Check that nobody holds a device, by one word to it.

    Returns the folder of its lock. For before anything is brought there, which would disturb whoever measures.
    BusyError as of lock.
    """
    named = os.environ.get(OVERRIDE)
    folders = (named,) if named and device.in_place else FOLDERS
    folder, _, told = run_words(device, ("sh", "-c", LOOK, "sh", NAME, device.home, *folders)).out.partition("\n")
    if not folder.startswith("/"):
        raise DeviceError(f"{device.name} has no folder to write to", "/tmp, or one of this user's own", "make one")
    _refuse_busy(device, told.strip())
    return folder


@contextmanager
def lock(device: Device, bve_run: str) -> Iterator[None]:
    """Hold a device while the block runs.

    bve_run: the program's path there. BusyError, naming who holds it and since when, if another does.
    """
    if device.launch == Null.launch:
        yield
        return
    folder = check_free(device)
    by = f"{_find_user()} on {socket.gethostname()}, process {os.getpid()}"
    with Process(device, (bve_run, "hold", f"{folder}/{NAME}", f"--by={by}")) as holder:
        _refuse_busy(device, holder.read_line(ANSWER_S))
        yield


def _refuse_busy(device: Device, told: str) -> None:
    """Refuse on 'busy SECONDS WHO'."""
    word, _, rest = told.partition(" ")
    if word == "busy":
        seconds, _, who = rest.partition(" ")
        raise BusyError(
            f"{device.name} has been measured for {_describe(int(seconds))} by {who or 'someone'}",
            "a device for this bench alone",
            "wait until that one ends",
        )


def _find_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no such user, as in some containers
        return f"user {os.getuid()}"


def _describe(seconds: int) -> str:
    return f"{max(seconds, 0)} s" if seconds < 120 else f"{seconds // 60} minutes"
