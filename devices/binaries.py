"""bve-run for a device: found, or built from the package's own sources as one file that needs nothing there."""

import hashlib
import importlib.util
import os
import platform
import shutil
import struct
import tempfile
from contextlib import nullcontext, suppress
from pathlib import Path

from bigvit_edge.devices.contract import Device, DeviceError, find_cache
from bigvit_edge.devices.process import run_words
from bigvit_edge.devices.store import Store
from bigvit_edge.errors import UserError
from bigvit_edge.interruption import shielded
from bigvit_edge.runtime.libraries import Step, find_sources, find_tool, run_tool

OVERRIDE = "BVE_RUN"  # the environment's word for a bve-run that other machines take
ARCHITECTURES = {  # as uname says it, to what the binary is for
    "aarch64": "aarch64", "arm64": "aarch64", "armv8l": "aarch64",  # the last: a 32-bit shell on a 64-bit kernel
    "x86_64": "x86_64", "amd64": "x86_64",
}  # fmt: skip
ELF = {"aarch64": 183, "x86_64": 62}  # e_machine
MACHINE_AT = 18  # in an ELF file
NEEDED = "pip install ziglang cmake ninja"
SUFFIXES = (".cc", ".h", ".inc", ".cmake", ".txt")
EXPECTED = "bve-run running there"


def install_bve_run(device: Device, store: Store, step: Step = nullcontext, *, build: bool = True) -> str:
    """Bring bve-run to a device, and see that it runs.

    Returns its path there. step, build: as of find_bve_run. This machine's own is tried first on a device of the same
    kind, which may lack its libraries. DeviceError where that machine is of another kind, or lets no program run in its
    folder; UserError where none can be had.
    """
    path = find_bve_run(device, step, build=build)
    there = store.place(path, executable=True)
    done = run_words(device, (there, "--version"))
    said = done.err.strip() or f"status {done.status}"
    if done.status and "Permission denied" in said:
        met = f"{device.name} runs no program that lies in {device.home} ({said})"
        raise DeviceError(met, EXPECTED, "mount that file system there without noexec")
    if done.status and build and can_build() and path == _find_installed():
        there = store.place(find_bve_run(device, step, installed=False), executable=True)
        done = run_words(device, (there, "--version"))
        said = done.err.strip() or f"status {done.status}"
    if done.status:
        raise DeviceError(f"{device.name} does not run {Path(there).name} ({said})", EXPECTED, "see what it says")
    return there


def find_bve_run(device: Device, step: Step = nullcontext, *, build: bool = True, installed: bool = True) -> Path:
    """Find the bve-run for a device, or build it.

    For this machine the one that pip installed. For others: $BVE_RUN; what the package holds; build/ of a checkout, if
    no source is newer; what was built before; the installed one, if the device is of this machine's kind; else it is
    built, which takes minutes. step: what surrounds a build, given its name. build: False builds none, and is a
    UserError where only that is left. installed: False passes that one over.
    """
    if device.in_place:
        return _find_installed()
    return find_for(_ask_architecture(device), device.name, step, build=build, installed=installed)


def find_for(
    architecture: str, who: str, step: Step = nullcontext, *, build: bool = True, installed: bool = False
) -> Path:
    """Find the bve-run for other machines of an architecture, or build it.

    Static, so that it runs on any Linux or Android, where it is not this machine's own, which `installed` lets it be.
    who: what they are called in messages. The rest: as of find_bve_run.
    """
    if named := os.environ.get(OVERRIDE):
        return _check_named(Path(named), architecture, who)
    sources, package = find_sources(), Path(__file__).parent.parent
    carried, made = package / f"programs/bve-run-{architecture}", sources / f"build/{architecture}/bve-run"
    if carried.is_file():
        return carried
    files = _list_sources(sources)
    if made.is_file() and made.stat().st_mtime >= max(file.stat().st_mtime for file in files):
        return made
    cached = find_cache() / f"bve-run/{_hash(files, sources)}-{architecture}/bve-run"
    if cached.is_file():
        return cached
    if installed and platform.machine() == architecture:
        return _find_installed()
    if not build:
        met = f"no bve-run for {architecture} was built yet"
        raise UserError(met, "one", f"bigvit-edge bench builds it, or let ${OVERRIDE} name one")
    with step(f"bve-run for {architecture}, built once: minutes"):
        _build(sources, architecture, cached)
    return cached


def identify_bve_run(name: str) -> str:
    """Identify the bve-run that a device of this name gets.

    Nobody is asked: of another machine, whose kind is not known yet, all count that it could get, those that were not
    built yet by their sources. The null device gets none.
    """
    digest = hashlib.sha256()
    if name == "null":
        return digest.hexdigest()
    programs = []
    with suppress(UserError):
        programs.append(_find_installed())
    if name != "local":
        sources = find_sources()
        programs += sorted((Path(__file__).parent.parent / "programs").glob("bve-run-*"))
        programs += [Path(named)] if (named := os.environ.get(OVERRIDE)) else []
        digest.update(_hash(_list_sources(sources), sources).encode())
    for program in programs:
        with suppress(OSError):  # whoever takes it says so
            digest.update(hashlib.sha256(program.read_bytes()).digest())
    return digest.hexdigest()


def can_build() -> bool:
    """Tell whether there is what builds bve-run for other machines."""
    return importlib.util.find_spec("ziglang") is not None


def _find_installed() -> Path:
    return Path(find_tool("bve-run", "install bigvit-edge again, on Linux with g++", "which is the runtime"))


def _ask_architecture(device: Device) -> str:
    said = run_words(device, ("uname", "-m")).out.strip()
    if said not in ARCHITECTURES:
        met = f"{device.name} is a machine of {said or 'no known kind'}"
        raise DeviceError(met, "aarch64 or x86_64", "take a device with a 64-bit system")
    return ARCHITECTURES[said]


def _check_named(path: Path, architecture: str, who: str) -> Path:
    expected, do = f"a bve-run for {architecture}, which {who} is", f"set ${OVERRIDE} to one, or unset it"
    try:
        with path.open("rb") as file:
            start = file.read(MACHINE_AT + 2)
    except OSError as e:
        raise UserError(f"{OVERRIDE}={path} ({e.strerror})", expected, do) from e
    if start[:4] != b"\x7fELF" or struct.unpack_from("<H", start.ljust(20), MACHINE_AT)[0] != ELF[architecture]:
        raise UserError(f"{OVERRIDE}={path}, which is none", expected, do)
    return path


def _list_sources(folder: Path) -> list[Path]:
    places = [path for name in ("runtime", "kernels_arm") for path in (folder / name).rglob("*")]
    return sorted(path for path in (*places, folder / "CMakeLists.txt") if path.suffix in SUFFIXES)


def _hash(files: list[Path], folder: Path) -> str:
    """Of the sources' names and bytes, and of the version that pyproject.toml gives the program."""
    digest = hashlib.sha256()
    for file in (*files, folder / "pyproject.toml"):
        digest.update(str(file.relative_to(folder)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _build(sources: Path, architecture: str, target: Path) -> None:
    """By zig, whose musl lets one file run on any Linux or Android of that architecture."""
    found = importlib.util.find_spec("ziglang")
    if not found or not found.submodule_search_locations:
        met = f"no bve-run for {architecture}, and no ziglang to build it"
        do = f"{NEEDED}; or let ${OVERRIDE} name one (of a checkout: make bve-run-arm)"
        raise UserError(met, "one of them", do)
    cmake, ninja = (
        find_tool("cmake", NEEDED, "which builds bve-run"),
        find_tool("ninja", NEEDED, "which builds bve-run"),
    )
    zig = Path(found.submodule_search_locations[0]) / "zig"
    options = (
        f"-DCMAKE_CXX_COMPILER={zig};c++;-target;{architecture}-linux-musl", f"-DCMAKE_MAKE_PROGRAM={ninja}",
        "-DCMAKE_SYSTEM_NAME=Linux", f"-DCMAKE_SYSTEM_PROCESSOR={architecture}", "-DBVE_STATIC=ON",
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="bigvit-edge-") as build:
        run_tool(cmake, "-G", "Ninja", "-S", sources, "-B", build, *options)
        run_tool(cmake, "--build", build, "--target", "bve-run")
        with shielded():
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(f"bve-run.{os.getpid()}.part")
            shutil.copy(Path(build) / "bve-run", part)
            part.replace(target)
