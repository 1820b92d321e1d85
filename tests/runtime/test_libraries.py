"""runtime-libs: what it builds is small, shows what its headers say and nothing else, and serves programs that find it
with CMake, here and on an ARM CPU that qemu plays."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from bigvit_edge.cli import app
from bigvit_edge.errors import UserError
from bigvit_edge.export.backends import executorch, litert
from bigvit_edge.export.convert import capture, rewrite
from bigvit_edge.models.blvit import BLViT
from bigvit_edge.runtime import libraries
from bigvit_edge.runtime.libraries import build_libraries, run_tool
from bigvit_edge.target import load_target
from tests.native import ARM_ROOT, HOST, ROOT, emulate, skip

SIZE = 16
MOST_BYTES = 1_000_000
LIBRARIES = ("libbve.so", "libbve_executorch.so", "libbve_litert.so")
HEADERS = dict(zip(LIBRARIES, ("bve.h", "bve_executorch.h", "bve_litert.h"), strict=True))
COMPILERS = {"x86_64-linux": "g++", "aarch64-linux": "aarch64-linux-gnu-g++"}
MACHINES = {"x86_64-linux": HOST, "aarch64-linux": "cortex-a76"}
TFLITE = ROOT / "build/host/tflite/package/cc_deps"
OTHER_EXECUTORCH = ROOT / "build/other_executorch"  # of another version than the exporter's


def require(*tools: str) -> None:
    for tool in tools:
        if not shutil.which(tool):
            skip(f"no {tool}", "see .ci/run for what to install")


def ask(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module", params=COMPILERS)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    abi: str = request.param
    require(COMPILERS[abi], "npm", "cmake", "ninja", "nm", "readelf")
    folder = tmp_path_factory.mktemp("libraries") / "new" / abi
    assert [path.name for path in build_libraries(abi, folder)] == list(LIBRARIES)
    return abi, folder


def test_libraries_are_small_and_show_what_their_headers_say(built: tuple[str, Path]) -> None:
    _, folder = built
    for library, header in HEADERS.items():
        path = folder / "lib" / library
        assert path.stat().st_size < MOST_BYTES
        seen = {line.split()[-1] for line in ask("nm", "-D", "--defined-only", path).splitlines()}
        text = re.sub(r"//.*", "", (folder / "include" / header).read_text())
        assert seen == set(re.findall(r"\b((?:bve|tflite_plugin)_\w+)\(", text))


def test_libraries_need_the_c_library_alone(built: tuple[str, Path]) -> None:
    _, folder = built
    for library in LIBRARIES:
        path = folder / "lib" / library
        needed = set(re.findall(r"NEEDED.*\[(.*)\]", ask("readelf", "-d", path)))
        assert {re.sub(r"-.*|\.so.*", "", name) for name in needed} <= {"libc", "libm", "ld"}
        undefined = re.findall(r" U ([^@\s]+)$", ask("nm", "-D", path), re.MULTILINE)
        assert all("10executorch" in name for name in undefined)
        assert bool(undefined) == (library == "libbve_executorch.so")


# ---- the examples ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> BLViT:
    torch.manual_seed(0)
    dims = {"dim": 32, "little_dim": 16, "head_dim": 16, "little_head_dim": 16}
    return BLViT(image_size=SIZE, patch=8, depth=1, num_classes=3, **dims).eval()


@pytest.fixture(scope="module")
def files(model: BLViT, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny.pte and tiny.tflite of two keep ratios, one.pte of the second alone, and an image."""
    folder = tmp_path_factory.mktemp("files")
    graphs = [replace(rewrite(capture(model, SIZE, keep)), precision="fp32") for keep in (1.0, 0.5)]
    target = load_target("android-native")
    (folder / "tiny.pte").write_bytes(executorch.lower(graphs, target, {"model": "tiny"}).data)
    (folder / "one.pte").write_bytes(executorch.lower(graphs[1:], target, {"model": "tiny"}).data)
    (folder / "tiny.tflite").write_bytes(litert.lower(graphs, target, {"model": "tiny"}).data)
    np.random.default_rng(0).standard_normal((1, 3, SIZE, SIZE), dtype=np.float32).tofile(folder / "image")
    return folder


def build_examples(abi: str, prefix: Path, package: Path, folder: Path, target: str = "all") -> None:
    """As an app's developer does, with that Python package's ExecuTorch."""
    cross = abi != "x86_64-linux"
    system = ["-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64"] if cross else []
    library = TFLITE / ("linux_arm64" if cross else "linux_amd64") / "libtensorflowlite_c.so"
    ask(
        "cmake", "-G", "Ninja", "-S", prefix / "share/bigvit_edge/examples", "-B", folder, *system,
        f"-DCMAKE_CXX_COMPILER={COMPILERS[abi]}", f"-Dbigvit_edge_DIR={prefix / 'lib/cmake/bigvit_edge'}",
        f"-Dexecutorch_DIR={ROOT / 'tests/runtime/doors'}", f"-DBVE_EXECUTORCH={package}",
        f"-DTFLITE_INCLUDE={TFLITE / 'include'}", f"-DTFLITE_LIBRARY={library}",
    )  # fmt: skip
    ask("cmake", "--build", folder, "--target", target)


@pytest.fixture(scope="module")
def examples(built: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The examples with the runtimes that the tests have."""
    abi, prefix = built
    found = importlib.util.find_spec("executorch")
    assert found is not None
    assert found.submodule_search_locations
    here = Path(found.submodule_search_locations[0])
    package = here if abi == "x86_64-linux" else ARM_ROOT / "executorch/executorch"
    for path, do in ((package, "make doors-arm"), (TFLITE, "make native, with npm")):
        if not path.is_dir():
            skip(f"no {path}", do)
    folder = tmp_path_factory.mktemp("examples")
    build_examples(abi, prefix, package, folder)
    return abi, folder


def answer(model: BLViT, files: Path, keep: float) -> np.ndarray:
    image = torch.from_numpy(np.fromfile(files / "image", np.float32)).reshape(1, 3, SIZE, SIZE)
    model.keep = keep
    with torch.no_grad():
        return model(image)[0].numpy()


@pytest.mark.parametrize(
    ("program", "file", "method", "keep"),
    [
        ("executorch_example", "tiny.pte", ("keep_1",), 1.0),
        ("executorch_example", "tiny.pte", ("keep_0_5",), 0.5),
        ("executorch_example", "one.pte", (), 0.5),
        ("executorch_source_example", "tiny.pte", ("keep_0_5",), 0.5),
        ("litert_example", "tiny.tflite", (), 1.0),
    ],
)
def test_examples_run(
    examples: tuple[str, Path], files: Path, model: BLViT, program: str, file: str, method: tuple[str, ...], keep: float
) -> None:
    abi, folder = examples
    printed = ask(*emulate(MACHINES[abi]), folder / program, files / file, files / "image", *method)
    np.testing.assert_allclose(np.array(printed.split(), np.float32), answer(model, files, keep), atol=1e-5)


@pytest.mark.parametrize("built", ["x86_64-linux"], indirect=True)
def test_the_source_of_the_door_fits_another_executorch(
    built: tuple[str, Path], files: Path, model: BLViT, tmp_path: Path
) -> None:
    abi, prefix = built
    package = OTHER_EXECUTORCH / "executorch"
    if not package.is_dir():
        skip(f"no {package}", "make other-executorch")
    build_examples(abi, prefix, package, tmp_path, "executorch_source_example")
    printed = ask(tmp_path / "executorch_source_example", files / "tiny.pte", files / "image", "keep_0_5")
    np.testing.assert_allclose(np.array(printed.split(), np.float32), answer(model, files, 0.5), atol=1e-5)


@pytest.mark.parametrize(
    ("file", "image", "said"),
    [
        ("absent", "image", "FILE.pte is missing or no program"),
        ("empty", "image", "FILE.pte is missing or no program"),
        ("tiny.pte", "image", "FILE.pte has no such METHOD"),
        ("one.pte", "absent", "IMAGE is missing or not of METHOD's size"),
    ],
)
def test_the_executorch_example_says_what_is_wrong(
    examples: tuple[str, Path], files: Path, file: str, image: str, said: str
) -> None:
    abi, folder = examples
    (files / "empty").touch()
    command = (*emulate(MACHINES[abi]), folder / "executorch_example", files / file, files / image)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr.splitlines()


UNLOAD = """
import _ctypes, sys
import numpy as np
from bigvit_edge.runtime import executorch
session = executorch.load(sys.argv[1])
image = np.fromfile(sys.argv[2], np.float32).reshape(session.shape)
logits = session.run(image)
assert logits.any()
_ctypes.dlclose(executorch.load_library()._handle)
assert executorch.LIBRARY in open("/proc/self/maps").read()
np.testing.assert_array_equal(session.run(image), logits)
"""


def test_the_executorch_door_outlives_dlclose(files: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = (sys.executable, "-c", UNLOAD, files / "tiny.pte", files / "image")
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# ---- what cannot work ------------------------------------------------------------------------------------------------


def call(*words: object) -> str:
    result = CliRunner().invoke(app, ["runtime-libs", *map(str, words)])
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return result.stderr


@pytest.fixture
def no_tools(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of tools that are not there, to be filled."""
    absent: list[str] = []
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, **where: None if name in absent else which(name, **where))
    return absent


def test_unknown_abi(tmp_path: Path) -> None:
    require("npm")
    assert "unknown ABI 'arm64'; expected one of arm64-v8a, aarch64-linux, x86_64-linux" in call(
        "--abi", "arm64", "-o", tmp_path / "new"
    )


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    assert f"{tmp_path} is there already" in call("--abi", "x86_64-linux", "-o", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_folder_within_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert f"{tmp_path}/file is no folder" in call("--abi", "x86_64-linux", "-o", tmp_path / "file/a/b")


@pytest.mark.parametrize(
    ("tool", "abi", "do"),
    [
        ("cmake", "x86_64-linux", "pip install 'bigvit-edge[native]'"),
        ("ninja", "x86_64-linux", "pip install 'bigvit-edge[native]'"),
        ("npm", "x86_64-linux", "apt-get install npm"),
        ("aarch64-linux-gnu-g++", "aarch64-linux", "apt-get install g++-aarch64-linux-gnu"),
        ("javac", "arm64-v8a --aar", "apt-get install default-jdk-headless"),
    ],
)
def test_a_missing_tool_is_named(tmp_path: Path, no_tools: list[str], tool: str, abi: str, do: str) -> None:
    require("npm")
    no_tools.append(tool)
    said = call("--abi", *abi.split(), "-o", tmp_path / "new")
    assert f"no {tool};" in said
    assert do in said
    assert list(tmp_path.iterdir()) == []


def test_android_wants_an_ndk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require("npm")
    for name in libraries.NDK_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert "neither ANDROID_NDK_HOME nor ANDROID_NDK_ROOT is set" in call("--abi", "arm64-v8a", "-o", tmp_path / "new")
    monkeypatch.setenv("ANDROID_NDK_ROOT", str(tmp_path))
    assert f"no {tmp_path}/build/cmake/android.toolchain.cmake" in call("--abi", "arm64-v8a", "-o", tmp_path / "new")


def test_an_old_ndk_is_refused(tmp_path: Path, ndk: Path) -> None:
    require("npm")
    (tmp_path / "ndk/source.properties").write_text("Pkg.Desc = Android NDK\nPkg.Revision = 25.2.9519653\n")
    said = call("--abi", "arm64-v8a", "-o", tmp_path / "new")
    assert f"ANDROID_NDK_HOME={tmp_path}/ndk, which is r25; expected the folder of an Android NDK, r26 or newer" in said


def test_android_is_built_by_the_ndk_for_pages_of_16_kb(tmp_path: Path, ndk: Path, hollow: None) -> None:
    require("npm", "aarch64-linux-gnu-g++", "readelf")
    (tmp_path / "ndk/source.properties").write_text("Pkg.Revision = 27.0.12077973\n")
    built = build_libraries("arm64-v8a", tmp_path / "new")
    assert [path.name for path in built] == list(LIBRARIES)
    undefined = ask("nm", "-D", "--undefined-only", tmp_path / "new/lib/libbve_executorch.so")
    assert "_ZN10executorch7runtime8internal5vlogf" in undefined  # the app's
    assert "_ZN10executorch7runtime22get_registered_kernelsEv" in undefined
    for library in built:
        segments = re.findall(r"LOAD .*\n.*0x(\w+)$", ask("readelf", "-l", library), re.MULTILINE)
        assert segments
        assert {int(alignment, 16) for alignment in segments} == {16384}


def test_what_fails_leaves_nothing(tmp_path: Path, ndk: Path) -> None:
    require("npm")
    ndk.write_text('message(FATAL_ERROR "no such compiler")\n')
    with pytest.raises(UserError, match="no such compiler") as caught:
        build_libraries("arm64-v8a", tmp_path / "new" / "folder")
    assert caught.value.__notes__ == ["nothing was written"]
    assert [path.name for path in tmp_path.iterdir()] == ["ndk"]


STACK = """java.io.IOException: wrong
\tat java.base/sun.security.A.load(A.java:21)
\tat com.android.B.<init>(B.java:3)
Caused by: a (b)
\t... 9 more
    at a place (of a compiler's words)?
"""


def test_a_tool_that_fails_tells_no_stack_and_asks_nothing() -> None:
    with pytest.raises(UserError) as caught:
        run_tool("sh", "-c", f"cat <<'E' >&2\n{STACK}E\nread answer || echo nobody; exit 1")
    lines = caught.value.met.splitlines()
    assert lines[1:] == [
        "nobody", "java.io.IOException: wrong", "Caused by: a (b)", "    at a place (of a compiler's words)?",
    ]  # fmt: skip


@pytest.mark.parametrize("all_doors", ["OFF", "ON"])
def test_a_wrong_download_leaves_a_door_out_unless_all_must_be_built(tmp_path: Path, all_doors: str) -> None:
    require("cmake", "ninja")
    package, npm, build = tmp_path / "executorch", tmp_path / "npm", tmp_path / "build"
    (package / "include/executorch").mkdir(parents=True)
    (package / "version.py").write_text('__version__ = "1.5.0a0+cpu"\n')
    npm.write_text("#!/bin/sh\necho half >tfjs-tflite-node-0.0.2.tgz\n")
    npm.chmod(0o755)
    options = f"-DNPM={npm}", f"-DBVE_EXECUTORCH={package}", f"-DBVE_ALL_DOORS={all_doors}"
    command = ("cmake", "-G", "Ninja", "-S", ROOT, "-B", build, *options)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = " ".join((done.stdout + done.stderr).split())
    assert "what npm got for tfjs-tflite-node has SHA-256" in said
    assert ("libbve_litert.so cannot be built" in said, done.returncode != 0) == (all_doors == "ON",) * 2
    assert ("libbve_litert.so is left out" in said) == (all_doors == "OFF")
    assert not list(build.glob("*.tgz"))
    if all_doors == "OFF":
        commands = json.loads((build / "compile_commands.json").read_text())
        (door,) = (c["command"] for c in commands if c["file"].endswith("doors/executorch.cc"))
        assert r"BVE_EXECUTORCH_VERSION=\"1.5.0a0\"" in door
