"""runtime-libs --swift: what it writes compiles without a flag for Apple's systems and for ARM, answers as the library
does, and builds and passes its own tests where there is Swift."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bigvit_edge.cli import app
from bigvit_edge.export.convert import capture
from bigvit_edge.export.emitter import emit_program
from bigvit_edge.export.program import to_bytes
from bigvit_edge.models.vit import ViT
from bigvit_edge.preprocessing import Preprocessing
from bigvit_edge.runtime import Frame, Session
from bigvit_edge.runtime.swift_package import write_swift_package
from tests.native import ROOT, emulate, skip
from tests.swift import run_swift

SIZE = 16
LABELS = ["cat", "dog", "neither"]
HOW = Preprocessing(SIZE, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
WIDTH, HEIGHT = 23, 19
MAIN = r"""
#include <stdio.h>
#include "bve.h"
int main(int count, char** words) {
  static unsigned char rgb[WIDTH * HEIGHT * 3];
  static float image[3 * SIZE * SIZE], logits[CLASSES];
  bve_error error = {{0}};
  bve_program* program = bve_open(words[1], &error);
  bve_session* session = program ? bve_start(program, 0, 0, &error) : 0;
  FILE* file = count > 2 ? fopen(words[2], "rb") : 0;
  bve_picture picture = {rgb, WIDTH * 3, WIDTH, HEIGHT, BVE_RGB, 0};
  if (!session || !file || fread(rgb, 1, sizeof rgb, file) != sizeof rgb ||
      bve_prepare(program, &picture, image, sizeof image / 4, &error) ||
      bve_run(session, image, sizeof image / 4, logits, CLASSES, &error))
    return puts(error.text), 1;
  for (int i = 0; i < CLASSES; i++) printf("%s %.9g\n", bve_label(program, i), logits[i]);
  return puts(bve_inspect(session)) < 0;
}
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_swift_package(tmp_path_factory.mktemp("swift") / "package")


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a model, a picture, and what the library says of it."""
    folder = tmp_path_factory.mktemp("case")
    model = ViT(image_size=SIZE, patch=8, dim=32, depth=1, head_dim=32, num_classes=3).eval()
    metadata = {"labels": json.dumps(LABELS), "preprocessing": json.dumps(HOW.spell())}
    (folder / "tiny.bve").write_bytes(to_bytes(emit_program([capture(model, SIZE, None)], 4, metadata)))
    pixels = np.random.default_rng(3).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    (folder / "picture.rgb").write_bytes(pixels.tobytes())
    with Session(folder / "tiny.bve") as session:
        image = session.prepare(pixels)
        logits = session.run(image).ravel()
        nv12 = np.random.default_rng(4).integers(0, 256, WIDTH * HEIGHT + 2 * 12 * 10, dtype=np.uint8)
        frame = session.run(Frame.from_bytes(nv12, WIDTH, HEIGHT, "NV12", 90, "BT.709")).ravel()
    answer = {
        "keep": 0,
        "width": WIDTH,
        "height": HEIGHT,
        "rgb": pixels.ravel().tolist(),
        "image": image.ravel().tolist(),
        "logits": logits.tolist(),
        "label": LABELS[int(logits.argmax())],
        "nv12": nv12.tolist(),
        "turned": frame.tolist(),
    }
    (folder / "answers.json").write_text(json.dumps([answer]))
    return folder


def compile_by_zig(target: str, *words: str | Path, c: bool = False) -> str:
    command = [sys.executable, "-m", "ziglang", "cc" if c else "c++", "-target", target]
    strict = ["-Wall", "-Wextra", "-Werror", "-Wno-unused-command-line-argument"]
    done = subprocess.run([*command, *strict, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def list_flags(package: Path) -> list[str]:
    """What Package.swift says, which may ask for no flag of its own."""
    text = (package / "Package.swift").read_text()
    assert "unsafeFlags" not in text
    folders = re.findall(r'\.headerSearchPath\("(\w+)"\)', text)
    core = package / "Sources/CBve"
    assert "cxxLanguageStandard: .cxx17" in text
    return ["-std=c++17", *(f"-I{core / name}" for name in ("include", *folders))]


def list_sources(package: Path) -> list[Path]:
    return sorted((package / "Sources/CBve").rglob("*.cc"))


def test_the_package_holds_the_core_as_it_is(package: Path) -> None:
    core = package / "Sources/CBve"
    for name in ("runtime", "kernels_arm"):
        ours = {file.name for file in (ROOT / name).iterdir() if file.suffix in (".cc", ".h", ".inc")}
        assert {file.name for file in (core / name).iterdir()} == ours - {"bve.h"}
        for file in (core / name).iterdir():
            assert (ROOT / name / file.name).read_text() in file.read_text()
    assert (core / "include/bve.h").read_bytes() == (ROOT / "runtime/bve.h").read_bytes()
    assert (package / "LICENSE").is_file()
    assert not list(package.rglob("*.py"))


def test_what_a_system_has_its_own_way_of_compiles_for_apple(package: Path, tmp_path: Path) -> None:
    """The rest is plain C++17."""
    for target, needs in (
        ("aarch64-macos", r"#include <(sys|mach|pthread|unistd|fcntl|dirent)\b|__APPLE__|target\(\"fp16"),
        ("x86_64-macos", "__APPLE__"),
    ):
        sources = [file for file in list_sources(package) if re.search(needs, file.read_text())]
        assert {"system_apple", "select"} <= {file.stem for file in sources}
        for file in sources:
            compile_by_zig(target, *list_flags(package), "-O0", "-c", file, "-o", tmp_path / "any.o")


def test_its_kernels_run_on_arm_with_each_ones_instructions_in_its_file_alone(
    package: Path, case: Path, tmp_path: Path
) -> None:
    """With the rest as `make native-arm` compiles it from the same bytes."""
    flags, objects = list_flags(package), []
    rest = sorted((ROOT / "build/aarch64").rglob("bve_core.dir/runtime/*.o"))
    if not rest:
        skip("no build/aarch64", "make native-arm")
    for file in list_sources(package):
        if file.parent.name == "kernels_arm":
            objects.append(tmp_path / f"{file.stem}.o")
            compile_by_zig("aarch64-linux-musl", "-O1", "-DNDEBUG", *flags, "-c", file, "-o", objects[-1])
    if dump := shutil.which("aarch64-linux-gnu-objdump"):
        for file in objects:
            told = subprocess.run([dump, "-d", file], capture_output=True, text=True, check=True).stdout
            dots, products = "\tsdot\t" in told, "\tsmmla\t" in told
            if file.stem != "peak":  # which has them as assembly
                assert dots == ("_neondot" in file.stem), file
                assert products == ("_neoni8mm" in file.stem), file
    main = tmp_path / "main.c"
    main.write_text(MAIN)
    sizes = [f"-DWIDTH={WIDTH}", f"-DHEIGHT={HEIGHT}", f"-DSIZE={SIZE}", f"-DCLASSES={len(LABELS)}"]
    include = f"-I{package / 'Sources/CBve/include'}"
    compile_by_zig("aarch64-linux-musl", *sizes, include, "-c", main, "-o", tmp_path / "main.o", c=True)
    compile_by_zig("aarch64-linux-musl", "-static", tmp_path / "main.o", *objects, *rest, "-o", tmp_path / "main")
    expected = json.loads((case / "answers.json").read_text())[0]["logits"]
    for cpu in ("cortex-a53", "cortex-a76", "cortex-a710"):
        command = [*emulate(cpu), tmp_path / "main", case / "tiny.bve", case / "picture.rgb"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
        lines = [line.split() for line in done.stdout.splitlines()[: len(LABELS)]]
        assert [name for name, _ in lines] == LABELS
        np.testing.assert_allclose([float(logit) for _, logit in lines], expected, atol=1e-4)


def test_the_package_builds_and_passes_its_tests_in_swift(package: Path, case: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shutil.copytree(package, shared / "package")
    shutil.copytree(case, shared / "case")
    words = ("test", "--disable-sandbox", "--package-path", shared / "package")
    case = shared / "case"
    run_swift(shared, "swift", *words, BVE_MODEL=case / "tiny.bve", BVE_ANSWERS=case / "answers.json")


def test_the_command_line_writes_it(tmp_path: Path) -> None:
    there = tmp_path / "there"
    done = CliRunner().invoke(app, ["runtime-libs", "--swift", str(there)])
    assert done.exit_code == 0, done.output
    assert str(there) in done.output
    assert (there / "Package.swift").is_file()
    again = CliRunner().invoke(app, ["runtime-libs", "--swift", str(there)])
    assert again.exit_code == 2
    assert "is there already; expected a new or an empty folder; choose another --swift\n" in again.stderr
    neither = CliRunner().invoke(app, ["runtime-libs"])
    assert neither.exit_code == 2
    assert "--abi" in neither.output
    assert "--swift" in neither.output
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
