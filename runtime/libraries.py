"""Our libraries for C++ programs: built from the sources for a system, with headers, CMake files and examples."""

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

from bigvit_edge.errors import UserError, suggest
from bigvit_edge.folders import OPTION, resolve_output, staging

ABIS = ("arm64-v8a", "aarch64-linux", "x86_64-linux")
ANDROID_API = 23  # Android 6
OLDEST_NDK = 26  # the first whose C++ library writes floats (std::to_chars)
NDK_VARIABLES = ("ANDROID_NDK_HOME", "ANDROID_NDK_ROOT")
TOLD = 20  # lines of what a tool says when it fails
JAVA_FRAME = re.compile(r"\s+(at \S.*\(.*\)|\.\.\. \d+ (more|common frames omitted))$")  # of a stack trace
EXTRA = "pip install 'bigvit-edge[native]'"

Step = Callable[[str], AbstractContextManager[object]]


def build_libraries(
    abi: str, folder: Path, step: Step = nullcontext, *, options: tuple[str, ...] = (),
    finish: Callable[[Path], object] = lambda folder: None,
) -> list[Path]:  # fmt: skip
    """Build libbve.so and the doors for `abi`, one of ABIS.

    Into `folder`, which is written whole or not at all:

        lib/                        the libraries, stripped
        lib/cmake/bigvit_edge/      find_package(bigvit_edge)
        include/                    bve.h and the doors' headers
        share/bigvit_edge/          examples, and the source of the ExecuTorch door

    arm64-v8a is Android, by the NDK that $ANDROID_NDK_HOME or $ANDROID_NDK_ROOT names; the others are Linux, by g++.
    step: what surrounds each step, given its name. options: more of CMake's; finish: what is done to the new folder
    before it is put in its place. Returns the libraries. UserError on what is missing, and where a
    tool fails.
    """
    folder = check_output(folder)
    cmake = find_tool("cmake", EXTRA)
    find_tool("npm", "apt-get install npm")  # CMake gets LiteRT's headers with it
    options = (
        *options,
        *_choose_compiler(abi),
        f"-DCMAKE_MAKE_PROGRAM={find_tool('ninja', EXTRA)}",
        f"-DBVE_EXECUTORCH={_find_executorch()}",
        "-DBVE_PACKAGE=ON",
    )
    check = partial(check_output, folder)  # a build takes a minute; somebody may come first
    with staging(folder, check) as part, tempfile.TemporaryDirectory(prefix="bigvit-edge-") as build:
        with step("headers and compiler"):
            run_tool(cmake, "-G", "Ninja", "-S", find_sources(), "-B", build, *options)
        with step(f"build for {abi}: a minute"):
            run_tool(cmake, "--build", build, "--target", "doors")
        with step("install"):
            run_tool(cmake, "--install", build, "--prefix", part, "--strip")
            finish(part)
    return sorted((folder / "lib").glob("*.so"))


def _choose_compiler(abi: str) -> tuple[str, ...]:
    if abi not in ABIS:
        raise UserError(f"unknown ABI {abi!r}", f"one of {', '.join(ABIS)}", suggest(abi, ABIS))
    if abi == "arm64-v8a":
        toolchain = _find_ndk() / "build/cmake/android.toolchain.cmake"
        if not toolchain.is_file():
            raise UserError(f"no {toolchain}", "an Android NDK", f"set {NDK_VARIABLES[0]} to its folder")
        system = (f"-DCMAKE_TOOLCHAIN_FILE={toolchain}", f"-DANDROID_ABI={abi}")
        # The NDK refuses what is defined elsewhere; ExecuTorch's symbols are the app's.
        return (*system, f"-DANDROID_PLATFORM=android-{ANDROID_API}", "-DANDROID_ALLOW_UNDEFINED_SYMBOLS=ON")
    # Not zig, nor clang with its own library: what crosses ExecuTorch's interface is laid out as in libstdc++.
    processor = abi.removesuffix("-linux")
    if sys.platform == "linux" and platform.machine() == processor:
        return (f"-DCMAKE_CXX_COMPILER={find_tool('g++', 'apt-get install g++')}",)
    package = f"g++-{processor.replace('_', '-')}-linux-gnu"
    compiler = find_tool(f"{processor}-linux-gnu-g++", f"apt-get install {package}")
    system = ("-DCMAKE_SYSTEM_NAME=Linux", f"-DCMAKE_SYSTEM_PROCESSOR={processor}")
    return (*system, f"-DCMAKE_CXX_COMPILER={compiler}")


def _find_ndk() -> Path:
    """UserError if there is none, or it tells that it is too old."""
    expected = f"the folder of an Android NDK, r{OLDEST_NDK} or newer"
    for name in NDK_VARIABLES:
        if value := os.environ.get(name):
            told = Path(value) / "source.properties"
            release = re.search(r"Pkg\.Revision\s*=\s*(\d+)", told.read_text()) if told.is_file() else None
            if release and int(release[1]) < OLDEST_NDK:
                raise UserError(f"{name}={value}, which is r{release[1]}", expected, "install one, and set it")
            return Path(value)
    met = f"neither {NDK_VARIABLES[0]} nor {NDK_VARIABLES[1]} is set"
    raise UserError(met, expected, "install one, and set it")


def find_tool(name: str, do: str, what: str = "which builds the libraries") -> str:
    """Find a program's path.

    Beside this Python, where pip puts programs, or in $PATH. what, do: of the UserError where it is not.
    """
    places = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    if path := shutil.which(name, path=places):
        return path
    raise UserError(f"no {name}", f"{name}, {what}", do)


def _find_executorch() -> Path:
    found = importlib.util.find_spec("executorch")  # which imports nothing
    for folder in map(Path, (found and found.submodule_search_locations) or ()):
        if (folder / "include/executorch").is_dir():
            return folder
    raise UserError("no executorch", "it, for its headers", "pip install 'bigvit-edge[executorch]'")


def find_sources() -> Path:
    """Find the checkout that this is, or what its wheel brought."""
    above = Path(__file__).resolve().parent.parent
    for folder in (above, above / "sources"):
        if (folder / "CMakeLists.txt").is_file():
            return folder
    raise UserError(f"no sources beside {above}", "bigvit-edge as pip installs it on Linux", "install it again")


def run_tool(*command: str | Path) -> None:
    """Run a program that builds; it can ask nothing.

    UserError with its last lines where it fails, of a Java program's without where in its code it was.
    """
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if not JAVA_FRAME.match(line)]
        told = "\n".join(lines[-TOLD:])
        met = f"{' '.join(map(str, command[:2]))} … failed:\n{told}\n"
        raise UserError(met, "an end without errors", "see what it says")


def check_output(output: Path, option: str = OPTION) -> Path:
    """Resolve a folder that is to be made.

    option: by which it was named. Returns its absolute path. UserError unless it is new or empty.
    """
    folder = resolve_output(output, option)
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is there already", "a new or an empty folder", f"choose another {option}")
    return folder
