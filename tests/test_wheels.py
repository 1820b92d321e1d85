"""The wheels of dist/wheels: what is in them, which systems they run on, how large they are."""

import os
import platform
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from functools import cache
from pathlib import Path

import pytest

from tests.native import CPUS, HOST, ROOT, emulate, skip

ARCHITECTURES = {"x86_64": "Advanced Micro Devices X86-64", "aarch64": "AArch64"}  # as readelf calls them
GLIBC = (2, 28)
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
SOURCES = ("bigvit_edge", "devices", "export", "kernels_arm", "runtime")
MOST_BYTES = 30e6  # unpacked
NEEDED = {"libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
LIBRARIES = {"bigvit_edge/runtime/libbve.so", "bigvit_edge/runtime/libbve_litert.so"}


@cache
def find_wheel(architecture: str) -> Path:
    found = sorted((ROOT / "dist/wheels").glob(f"*_{architecture}.whl"))
    if not found:
        skip(f"no wheel for {architecture} in dist/wheels", "make wheels")
    sources = [path for name in SOURCES for path in (ROOT / name).rglob("*") if path.suffix in {".py", ".cc", ".h"}]
    if found[-1].stat().st_mtime < max(path.stat().st_mtime for path in sources):
        skip(f"the wheel for {architecture} is older than the sources", "make wheels")
    return found[-1]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def unpacked(architecture: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(architecture)
    with zipfile.ZipFile(find_wheel(architecture)) as wheel:
        wheel.extractall(folder)
    return folder


def list_programs(folder: Path) -> dict[str, Path]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path for path in files if path.read_bytes()[:4] == b"\x7fELF"}


def read_elf(path: Path, *options: str) -> str:
    return subprocess.run(["readelf", "-W", *options, path], check=True, capture_output=True, text=True).stdout


def test_what_is_no_python_is_in_it(unpacked: Path) -> None:
    for folder in ("devices/android", "app/page"):
        brought = {path.relative_to(ROOT) for path in (ROOT / "bigvit_edge" / folder).rglob("*") if path.is_file()}
        assert len(brought) > 10
        assert [path for path in sorted(brought) if not (unpacked / path).is_file()] == []


def test_one_wheel_for_every_python_and_a_glibc_of_2018(architecture: str, unpacked: Path) -> None:
    tag = f"py3-none-manylinux_{GLIBC[0]}_{GLIBC[1]}_{architecture}"
    assert find_wheel(architecture).stem.endswith(f"-{tag}")
    (described,) = unpacked.glob("*.dist-info/WHEEL")
    assert f"Tag: {tag}\n" in described.read_text()


def test_what_is_in_it(architecture: str, unpacked: Path) -> None:
    (scripts,) = unpacked.glob("*.data/scripts")
    carried = {f"bigvit_edge/programs/bve-run-{name}" for name in ARCHITECTURES}
    assert set(list_programs(unpacked)) == LIBRARIES | carried | {f"{scripts.relative_to(unpacked)}/bve-run"}
    own = unpacked / f"bigvit_edge/programs/bve-run-{architecture}"
    assert (scripts / "bve-run").read_bytes() == own.read_bytes()
    templates = (
        "export/samples/classify.py.in",
        "sources/runtime/java/AndroidManifest.xml",
        "sources/runtime/swift/Package.swift",
        "app/ios_app/Package.swift",
    )
    for name in ("sources/runtime/core.h", "sources/runtime/java/dev/bigvit/edge/Model.java", *templates):
        assert (unpacked / "bigvit_edge" / name).is_file()
    assert not list((unpacked / "bigvit_edge/runtime").glob("*.[ch]*"))
    assert sum(path.stat().st_size for path in unpacked.rglob("*") if path.is_file()) < MOST_BYTES


def test_it_asks_for_no_newer_glibc_and_no_other_library(architecture: str, unpacked: Path) -> None:
    for name, path in list_programs(unpacked).items():
        machine = next((each for each in ARCHITECTURES if name.endswith(each)), architecture)
        assert f"Machine:                           {ARCHITECTURES[machine]}\n" in read_elf(path, "-h")
        needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", read_elf(path, "-d")))
        if name in LIBRARIES:
            assert needed <= NEEDED
            wanted = re.findall(r"Name: (\w+?)_([\d.]+) ", read_elf(path, "-V"))
            assert {library for library, _ in wanted} == {"GLIBC"}
            assert max(tuple(map(int, version.split("."))) for _, version in wanted) <= GLIBC
        else:  # any Linux, and Android, whatever its C library
            assert not needed
            assert "INTERP" not in read_elf(path, "-l")


def test_its_programs_run(unpacked: Path) -> None:
    for path in (unpacked / "bigvit_edge/programs").iterdir():
        path.chmod(0o755)
        own = path.name.endswith(f"-{platform.machine()}")
        command = [*emulate(HOST if own else CPUS[2]), path, "--version"]
        assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == f"{VERSION}\n"


def call(unpacked: Path, code: str) -> str:
    """What code prints in the unpacked package: -S reads no .pth file, so that an editable install stays out."""
    environment = {key: value for key, value in os.environ.items() if key not in ("BVE_LIBRARY", "BVE_RUN")}
    environment["PYTHONPATH"] = f"{unpacked}:{sysconfig.get_path('purelib')}"
    command = [sys.executable, "-S", "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=unpacked, env=environment).stdout


@pytest.mark.parametrize("architecture", [platform.machine()], indirect=True)  # test_board.py has the other
def test_its_library_loads_here(unpacked: Path) -> None:
    found = call(unpacked, "from bigvit_edge.runtime import count_cores, find_library as f; count_cores(); print(f())")
    assert found.strip() == str(unpacked / "bigvit_edge/runtime/libbve.so")


@pytest.mark.parametrize("other", ARCHITECTURES)
def test_devices_are_given_the_program_that_it_carries(other: str, unpacked: Path) -> None:
    code = f"""
from types import SimpleNamespace
from bigvit_edge.devices import binaries
binaries._ask_architecture = lambda device: {other!r}
print(binaries.find_bve_run(SimpleNamespace(in_place=False, name="a phone")))
"""
    assert call(unpacked, code).strip() == str(unpacked / f"bigvit_edge/programs/bve-run-{other}")
