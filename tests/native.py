"""Where the C++ programs are, and how to run one: on this machine, or on an ARM CPU that qemu plays."""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SECONDS = 900
HOST = "host"
ARM_ROOT = ROOT / "build/arm64-root"  # Debian's C library and Python, for what is linked with them
# Without dot products, with them, in order and out of order, and with i8mm: one of each that kernels.inc tells apart.
# Never qemu's 'max': no such CPU exists.
CPUS = ("cortex-a53", "cortex-a55", "cortex-a76", "cortex-a710")


def skip(met: str, do: str) -> None:
    """Fail in CI, where everything must be there."""
    if os.environ.get("BVE_CI"):
        pytest.fail(f"{met}; {do}")
    pytest.skip(f"{met}; {do}")


def need_cores(count: int) -> None:
    """Skip a test of several threads where the process may not use so many cores."""
    if (there := len(os.sched_getaffinity(0))) < count:
        skip(f"{there} core", f"use a machine with {count}")


@cache
def list_cpus() -> str:
    if not shutil.which("qemu-aarch64"):
        return ""
    # it lists them and exits with 1
    return subprocess.run(["qemu-aarch64", "-cpu", "help"], capture_output=True, text=True, check=False).stdout


def emulate(machine: str) -> list[str | Path]:
    """What stands before a program of that machine. Skips the test if there is no such machine here."""
    if machine == HOST:
        return []
    if machine not in list_cpus().split():
        skip(f"no qemu-aarch64 that knows {machine}", "apt-get install qemu-user, version 8 or newer")
    return ["qemu-aarch64", "-cpu", machine, "-L", ARM_ROOT]


def run_program(name: str, *arguments: str | Path, machine: str = HOST) -> subprocess.CompletedProcess[str]:
    """A program of build/host, or for the other machines of build/aarch64. Skips the test if it is not there."""
    program = ROOT / "build" / ("host" if machine == HOST else "aarch64") / name
    command = [*emulate(machine), program, *arguments]
    if not program.is_file():
        skip(f"no {program.relative_to(ROOT)}", "make native" if machine == HOST else "make native-arm")
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False
    )
