"""The program in the app makes no system call that Android's filter for apps would end it for."""

import re
import struct
import subprocess
from pathlib import Path

import pytest

from tests.app.apks import SMALL
from tests.native import ROOT, emulate, skip

HERE = Path(__file__).parent
PROGRAM = ROOT / "build/aarch64/bve-run"
NUMBERS = Path("/usr/include/asm-generic/unistd.h")  # which are arm64's
ALLOWED = frozenset(
    word for line in (HERE / "system_calls.txt").read_text().splitlines() if line[0] != "#" for word in line.split()
)
OTHER_NAMES = {"fstatat": "newfstatat"}
# In musl's code and never reached, for robust mutexes and for another user's rights: nothing here has either.
UNREACHED = {"set_robust_list", "setgid", "setuid"}
SVC, MOV_X8 = 0xD4000001, 0x52800008  # svc #0; mov w8 or x8, which holds the number
WINDOW = 40  # instructions before a call that its number may stand in


def test_the_list_is_not_everything() -> None:
    assert {"read", "futex", "sched_setaffinity", "perf_event_open"} <= ALLOWED
    assert ALLOWED.isdisjoint({"set_robust_list", "rseq", "statx", "io_uring_setup", "mount"})


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (("serve", SMALL, "--threads", "2", "--pin", "--evict"), "run 0.05 3 1\nmemory\n"),
        (("serve", SMALL, "--cores", "0", "--choose"), "run 0.05 3 0\n"),
        (("profile", SMALL, "--runs", "5"), ""),
        (("run", SMALL), ""),
        (("info", SMALL), ""),
        (("probe",), ""),
        (("clock", "--cores", "0"), ""),
    ],
)
def test_what_the_app_runs_calls(words: tuple[str | Path, ...], lines: str, tmp_path: Path) -> None:
    if not PROGRAM.is_file():
        skip(f"no {PROGRAM.relative_to(ROOT)}", "make native-arm")
    qemu, *options = emulate("cortex-a76")
    log = tmp_path / "calls"
    command = (qemu, *options, "-strace", "-D", log, PROGRAM, *words)
    done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    called = set(re.findall(r"^\d+ ([a-z_0-9]+)\(", log.read_text(errors="replace"), re.MULTILINE))
    assert {"openat", "exit_group"} <= called
    assert called <= ALLOWED


def test_what_the_program_could_call() -> None:
    if not PROGRAM.is_file():
        skip(f"no {PROGRAM.relative_to(ROOT)}", "make native-arm")
    if not NUMBERS.is_file():
        skip(f"no {NUMBERS}", "apt-get install linux-libc-dev")
    names = {int(number): name for name, number in re.findall(r"__NR(?:3264)?_(\w+) (\d+)\n", NUMBERS.read_text())}
    could = {OTHER_NAMES.get(names[number], names[number]) for number in list_numbers(PROGRAM.read_bytes())}
    assert len(could) > 30
    assert could - ALLOWED <= UNREACHED


def list_numbers(elf: bytes) -> set[int]:
    """Numbers of the calls whose number stands in the code before them."""
    found = set()
    start, count = struct.unpack_from("<Q", elf, 32)[0], struct.unpack_from("<H", elf, 56)[0]
    for i in range(count):
        kind, flags, offset, _, _, size = struct.unpack_from("<IIQQQQ", elf, start + 56 * i)
        if kind != 1 or not flags & 1:  # code that is loaded
            continue
        code = struct.unpack_from(f"<{size // 4}I", elf, offset)
        for at in (at for at, word in enumerate(code) if word == SVC):
            before = (word for word in reversed(code[max(0, at - WINDOW) : at]) if word & 0x7FE0001F == MOV_X8)
            if (word := next(before, None)) is not None:
                found.add(word >> 5 & 0xFFFF)
    return found
