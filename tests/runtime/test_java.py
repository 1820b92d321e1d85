"""The Java API over libbve_jni.so, by JUnit on this machine's JVM: Python's answers, to the bit."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bigvit_edge.export.convert import capture
from bigvit_edge.export.emitter import emit_program
from bigvit_edge.export.image import read_image
from bigvit_edge.export.program import to_bytes
from bigvit_edge.models.blvit import BLViT
from bigvit_edge.preprocessing import CENTER, RESIZES, Preprocessing
from bigvit_edge.runtime import Frame, Session
from tests.native import HOST, ROOT, emulate, skip

JUNIT = tuple(Path("/usr/share/java") / name for name in ("junit4.jar", "hamcrest-core.jar"))
SOURCES = ROOT / "runtime/java"
SIZE, WIDTH, HEIGHT = 16, 37, 23
LABELS = ("кошка", 'a "dog"', "\U0001f98a")
HOW = Preprocessing(SIZE, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), crop=CENTER, resize=RESIZES[2], resize_to=20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two keep ratios, pictures, and what Python answers."""
    folder = tmp_path_factory.mktemp("java")
    torch.manual_seed(0)
    dims = {"dim": 32, "little_dim": 16, "head_dim": 16, "little_head_dim": 16}
    model = BLViT(image_size=SIZE, patch=4, depth=1, num_classes=3, **dims).eval()
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.2)
    graph = capture(model, SIZE, 1.0)
    metadata = {"labels": json.dumps(LABELS), "preprocessing": json.dumps(HOW.spell())}
    program = emit_program([graph, replace(graph, keep=0.5)], 4, metadata)
    file = folder / "модель \U0001f98a.bve"
    file.write_bytes(to_bytes(program))

    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    opaque = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
    np.concatenate((rgb[..., ::-1], opaque), -1).tofile(folder / "picture.argb")  # little-endian
    Image.fromarray(rgb).save(folder / "picture.png")
    np.concatenate((rgb, opaque), -1).tofile(folder / "picture.rgba")
    nv21 = rng.integers(0, 256, WIDTH * HEIGHT + 2 * 19 * 12, dtype=np.uint8)
    nv21.tofile(folder / "frame.nv21")
    with Session(file) as session:
        for rotation in (0, 90):
            frame = Frame.from_bytes(nv21, WIDTH, HEIGHT, "NV21", rotation)
            session.run(frame).tofile(folder / f"frame_{rotation}.f32")
        session.run(Frame((rgb,), "RGB", 270)).tofile(folder / "rgba_270.f32")
    image = rng.standard_normal((1, 3, SIZE, SIZE), dtype=np.float32)
    image.tofile(folder / "image.f32")
    prepared = read_image(folder / "picture.png", HOW)
    prepared.tofile(folder / "prepared.f32")
    for keep in (1.0, 0.5):
        with Session(file, keep=keep) as session:
            session.run(image).tofile(folder / f"logits_{keep:g}.f32")
            logits = session.run(prepared)[0].astype(np.float64)
    shares = np.exp(logits - logits.max())
    shares /= shares.sum()
    lines = (f"{LABELS[i]}  {100 * shares[i]:.2f}%\n" for i in np.argsort(-shares, kind="stable"))
    (folder / "guesses.txt").write_text("".join(lines))
    return folder


def find(tool: str) -> str:
    if path := shutil.which(tool):
        return path
    skip(f"no {tool}", "apt-get install default-jdk-headless")
    raise AssertionError


def run_java(*words: str | Path) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The API and its tests, for Java 8 as on a phone."""
    for jar in JUNIT:
        if not jar.exists():
            skip(f"no {jar}", "apt-get install junit4")
    folder = tmp_path_factory.mktemp("classes")
    sources = [*(SOURCES / "dev").rglob("*.java"), *(ROOT / "tests/runtime/java").rglob("*.java")]
    run_java(
        find("javac"), "--release", "8", "-Xlint:all,-options", "-Werror", "-encoding", "UTF-8", "-d", folder,
        "-sourcepath", SOURCES / "stubs", "-cp", ":".join(map(str, JUNIT)), *sources,
    )  # fmt: skip
    return folder


def test_java_answers_as_python_does(folder: Path, classes: Path) -> None:
    """And -Xcheck:jni, which looks at each call of JNI and at what lies around arrays, says nothing."""
    if not (ROOT / "build/host/libbve_jni.so").is_file():
        skip("no build/host/libbve_jni.so", "make native, with default-jdk-headless")
    path = ":".join(map(str, (classes, *JUNIT)))
    said = run_java(
        "env", f"LD_LIBRARY_PATH={ROOT / 'build/host'}", find("java"), "-Xcheck:jni", "-Xmx256m",
        f"-Dbve.folder={folder}", "-cp", path, "org.junit.runner.JUnitCore", "dev.bigvit.edge.ModelTest",
    )  # fmt: skip
    assert re.search(r"^OK \(\d+ tests\)$", said, re.MULTILINE), said
    assert "WARNING" not in said


def test_each_native_function_is_there_by_the_name_that_java_looks_for(classes: Path) -> None:
    library = ROOT / "build/host/libbve_jni.so"
    if not library.is_file() or not shutil.which("nm"):
        skip(f"no {library}, or no nm", "make native; apt-get install binutils")
    shown = run_java("nm", "-D", "--defined-only", library)
    told = run_java(find("javap"), "-p", "-cp", classes, "dev.bigvit.edge.Bve")
    names = re.findall(r" native .*? (\w+)\(", told)
    assert len(names) > 10
    assert {line.split()[-1] for line in shown.splitlines()} == {f"Java_dev_bigvit_edge_Bve_{name}" for name in names}


@pytest.mark.parametrize("machine", [HOST, "cortex-a76"])
def test_the_door_to_java(machine: str) -> None:
    """With a JNIEnv of the test's own, here and on ARM."""
    program = ROOT / "build" / ("host" if machine == HOST else "aarch64-linux") / "tests/runtime/doors/test_jni"
    if not program.is_file():
        skip(f"no {program.relative_to(ROOT)}", "make native or make doors-arm, with default-jdk-headless")
    run_java(*emulate(machine), program)
