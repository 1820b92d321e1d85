"""A stand-in for Android's NDK, and sources that take seconds to build with it."""

import shutil
from pathlib import Path

import pytest

from bigvit_edge.runtime import libraries
from tests.native import ROOT

# A real NDK cannot be had in tests: as its toolchain file goes, linker's flags included, but for the compiler.
TOOLCHAIN = """
if(NOT ANDROID_ABI STREQUAL "arm64-v8a" OR NOT ANDROID_PLATFORM STREQUAL "android-23")
  message(FATAL_ERROR "ABI '${ANDROID_ABI}', platform '${ANDROID_PLATFORM}'")
endif()
set(CMAKE_SYSTEM_NAME Android)
set(CMAKE_SYSTEM_VERSION 1)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(ANDROID TRUE)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_SHARED_LINKER_FLAGS_INIT "-Wl,--fatal-warnings -Wl,--gc-sections")
if(NOT ANDROID_ALLOW_UNDEFINED_SYMBOLS)
  string(APPEND CMAKE_SHARED_LINKER_FLAGS_INIT " -Wl,--no-undefined")
endif()
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES ANDROID_ABI ANDROID_PLATFORM ANDROID_ALLOW_UNDEFINED_SYMBOLS)
"""


@pytest.fixture
def ndk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    toolchain = tmp_path / "ndk/build/cmake/android.toolchain.cmake"
    toolchain.parent.mkdir(parents=True)
    toolchain.write_text(TOOLCHAIN)
    monkeypatch.setenv("ANDROID_NDK_HOME", str(tmp_path / "ndk"))
    return toolchain


@pytest.fixture
def hollow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sources with nothing in them but what calls ExecuTorch: what CMake does with them takes seconds."""
    folder = tmp_path / "sources"
    for name in ("kernels_arm", "runtime"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("CMakeLists.txt", "pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for path in folder.rglob("*.cc"):
        if path.name not in ("executorch_dispatch.cc", "executorch_errors.cc"):
            path.write_text("")
    monkeypatch.setattr(libraries, "find_sources", lambda: folder)
