"""The C++ tests: each program a test on this machine, and one on each ARM CPU that could differ."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.native import CPUS, HOST, ROOT, run_program, skip

SOURCES = sorted((ROOT / "tests").glob("*/test_*.cc"))
# What runs no kernel is the same program on every ARM CPU: one tries it.
ALIKE = {f"test_{name}" for name in ("arena", "cores", "metadata", "op_validation", "pool", "program", "progress")}


@pytest.mark.parametrize(
    ("source", "machine"),
    [(source, machine) for source in SOURCES for machine in [HOST, *(CPUS[:1] if source.stem in ALIKE else CPUS)]],
    ids=lambda of: of if isinstance(of, str) else f"{of.parent.name}/{of.stem}",
)
def test_program(source: Path, machine: str) -> None:
    run = run_program(str(source.relative_to(ROOT).with_suffix("")), machine=machine)
    print(run.stdout, run.stderr)
    assert run.returncode == 0, f"exit code {run.returncode}"
    assert "SUCCESS" in run.stdout


def test_there_are_programs() -> None:
    assert {path.parent.name for path in SOURCES} == {"kernels_arm", "runtime"}
    assert {path.stem for path in SOURCES} >= ALIKE


def test_kernels_share_no_code_across_instruction_sets() -> None:
    """A function that two objects both define is linked once: one compiled for AVX-512 would run everywhere."""
    objects = sorted((ROOT / "build/host").glob("CMakeFiles/bve_kernels.dir/kernels_arm/*_*.o"))
    if not objects or not shutil.which("nm"):
        skip("no objects of kernels in build/host, or no nm", "make native; apt-get install binutils")
    listed = subprocess.run(["nm", "-C", *objects], capture_output=True, text=True, check=True).stdout
    assert " T bve_" in listed
    assert re.findall(r"^[0-9a-f]+ [WVu] .*$", listed, re.MULTILINE) == []
