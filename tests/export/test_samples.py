"""The samples of a bundle say what `bigvit-edge run` says, and belong to it."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bigvit_edge.export.bundle import Source, export_bundle
from bigvit_edge.export.check import check_bundle
from bigvit_edge.export.inference import classify
from bigvit_edge.export.samples import write_samples
from bigvit_edge.manifest import list_changes, read_manifest
from bigvit_edge.models.zoo import CARDS, Card
from bigvit_edge.target import Limits, load_target
from tests.native import ROOT, skip
from tests.test_artifact import ENTRY

CARD = Card(
    "tiny_use", 32, 16, depth=1, head_dim=16, little_head_dim=8, patch=8, image_size=32, num_classes=10,
    labels=("zero", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"),
)  # fmt: skip
HOST = replace(load_target("host"), formats=("bve",), precisions=("fp32",), limits=Limits(images=2))
BUILD = ROOT / "build/host"
ANDROID = Path("/usr/share/java/com.android.android-23.jar")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    CARDS[CARD.name] = CARD
    folder = tmp_path_factory.mktemp("samples") / "bundle"
    export_bundle(Source(CARD.name), HOST, folder, keeps=(0.5, 1.0))
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (50, 70, 3), dtype=np.uint8)).save(folder.parent / "picture.png")
    yield folder
    del CARDS[CARD.name]


def expect(bundle: Path) -> list[str]:
    guesses = classify(bundle / "tiny_use_fp32.bve", bundle.parent / "picture.png").guesses
    return [f"{guess.label}  {guess.probability:.2%}" for guess in guesses]


def ask(*command: str | Path) -> list[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout.splitlines()


def test_python(bundle: Path) -> None:
    assert ask(sys.executable, bundle / "use/classify.py", bundle.parent / "picture.png") == expect(bundle)


def test_python_refuses_what_it_cannot_read(bundle: Path, tmp_path: Path) -> None:
    whole = (bundle.parent / "picture.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "broken.png").write_bytes(whole[:40] + bytes(20) + whole[60:])
    Image.fromarray(np.full((9, 9), 40_000, np.uint16)).save(tmp_path / "deep.png")
    for words, said in (
        ((), "usage: python use/classify.py PICTURE"),
        ((tmp_path / "nothing.png",), "nothing.png cannot be read as a picture: "),
        ((tmp_path,), "cannot be read as a picture: "),
        ((bundle / "manifest.json",), "manifest.json cannot be read as a picture: "),
        ((tmp_path / "cut.png",), "cut.png cannot be read as a picture: "),
        ((tmp_path / "broken.png",), "broken.png cannot be read as a picture: "),
        ((tmp_path / "deep.png",), "deep.png: an image of mode I;16; expected 8 bits a channel"),
    ):
        command = (sys.executable, bundle / "use/classify.py", *words)
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (1, "")
        assert said in done.stderr
        assert done.stderr.count("\n") == 1


@cache
def compile_cpp(bundle: Path) -> Path:
    """As its first lines say, with the library of this checkout."""
    compiler, program = shutil.which("g++"), bundle.parent / "classify"
    if not compiler or not (BUILD / "libbve.so").is_file():
        skip("no g++, or no build/host/libbve.so", "apt-get install g++; make native")
    ask(
        str(compiler), "-std=c++17", "-Wall", "-Wextra", "-Werror", bundle / "use/classify.cc", "-o", program,
        f"-I{ROOT / 'runtime'}", f"-L{BUILD}", "-lbve", f"-Wl,-rpath,{BUILD}",
    )  # fmt: skip
    return program


def test_cpp(bundle: Path) -> None:
    program, ppm = compile_cpp(bundle), bundle.parent / "picture.ppm"
    Image.open(bundle.parent / "picture.png").save(ppm)
    assert ask(program, ppm, bundle / "tiny_use_fp32.bve") == expect(bundle)
    header, rgb = ppm.read_bytes()[:13], ppm.read_bytes()[13:]
    assert header == b"P6\n70 50\n255\n"
    ppm.write_bytes(b"P6 # of a scanner\n# 70 x 50\n70\t50 #\n255\n" + rgb)
    assert ask(program, ppm, bundle / "tiny_use_fp32.bve") == expect(bundle)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"P6\n2 2\n65535\n" + bytes(24), "other than 8 bits a channel (a maximum of 255); convert it with -depth 8"),
        (b"P6\n2 2\n15\n" + bytes(12), "other than 8 bits a channel"),
        (b"P6\n2 2\n256\n" + bytes(24), "other than 8 bits a channel"),
        (b"P6\n2 2\n2550\n" + bytes(24), "other than 8 bits a channel"),
        (b"P6\n2 2\n255\n" + bytes(11), "is cut short"),
        (b"P6\n99999 99999\n255\nabc", "is cut short"),
        (b"P6\n4294967295 4294967295\n255\nabc", "is cut short"),
        (b"P6\n-1 -1\n255\nabc", "is cut short"),
        (b"P6\n0 2\n255\n", "a picture of 0 x 2 pixels"),
        (b"P6\n4294967296 1\n255\n" + bytes(12), "is no binary PPM (P6)"),
        (b"P6\n2 2\n255" + bytes(12), "is no binary PPM (P6)"),
        (b"P6\n2 # 2", "is no binary PPM (P6)"),
        (b"P3\n1 1\n255\n0 0 0\n", "is no binary PPM (P6)"),
        (b"\x89PNG\r\n\x1a\n", "is no binary PPM (P6)"),
        (b"", "is no binary PPM (P6)"),
        (None, "cannot be opened"),
    ],
    ids=repr,
)
def test_cpp_refuses_what_it_cannot_read(content: bytes | None, said: str, bundle: Path, tmp_path: Path) -> None:
    program, ppm = compile_cpp(bundle), tmp_path / "picture.ppm"
    if content is not None:
        ppm.write_bytes(content)
    for words, fault in (((ppm, bundle / "tiny_use_fp32.bve"), said), ((), "classify PICTURE.ppm")):
        done = subprocess.run([program, *words], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert fault in done.stderr
        assert done.stderr.count("\n") == 1


def test_kotlin(bundle: Path, tmp_path: Path) -> None:
    if not shutil.which("kotlinc") or not shutil.which("javac") or not ANDROID.exists():
        skip("no kotlinc, javac or Android's classes", ".ci/install-tools ci")
    sources = (ROOT / "runtime/java/dev").rglob("*.java")
    ask("javac", "-d", tmp_path, "-cp", ANDROID, *sources)
    ask("kotlinc", "-no-jdk", "-cp", f"{ANDROID}:{tmp_path}", "-d", tmp_path / "sample.jar", bundle / "use/classify.kt")


def test_what_kotlin_calls_is_there(bundle: Path) -> None:
    text = (bundle / "use/classify.kt").read_text()
    assert '"tiny_use_fp32.bve"' in text
    java = {path.stem: path.read_text() for path in (ROOT / "runtime/java/dev").rglob("*.java")}
    imported = re.findall(r"import dev\.bigvit\.edge\.(\w+)", text)
    assert imported
    assert set(imported) <= java.keys()
    for name in (
        "open(byte[] bytes)", "start(float keep)", "classify(Bitmap bitmap, int most)", "getProbability()",
        "classify(Frame frame, int most)",
    ):  # fmt: skip
        assert any(name in source for source in java.values())


def test_what_swift_calls_is_there(bundle: Path) -> None:
    text = (bundle / "use/classify.swift").read_text()
    assert 'forResource: "tiny_use_fp32.bve"' in text
    assert "keep: 1)" in text
    swift = "".join(path.read_text() for path in (ROOT / "runtime/swift/Sources/BigvitEdge").glob("*.swift"))
    for name in (
        "init(contentsOf url: URL)",
        "init(_ model: Model, keep: Float?",
        "classify(_ image: CGImage, top: Int",
        "classify(_ buffer: CVPixelBuffer, rotation: Int",
    ):
        assert name in swift


def test_samples_belong_to_the_bundle(bundle: Path, tmp_path: Path) -> None:
    manifest = read_manifest(bundle)
    names = {path.name for path in (bundle / "use").iterdir()}
    assert names == {"classify.py", "classify.cc", "classify.kt", "classify.swift"}
    assert {f"use/{name}" for name in names} == set(manifest.samples)
    assert list_changes(bundle, manifest) == []
    assert not any(re.search(r"@[A-Z]+@", (bundle / name).read_text()) for name in manifest.samples)
    shutil.copytree(bundle, tmp_path / "copy")
    (tmp_path / "copy/use/classify.py").write_text("print(3)")
    (fault,) = (checked for checked in check_bundle(tmp_path / "copy") if checked.faults)
    assert (fault.file, fault.keep) == ("use/classify.py", None)
    assert "was changed after the export" in fault.faults[0]


def test_a_bundle_without_a_bve_has_none(tmp_path: Path) -> None:
    assert write_samples([ENTRY], tmp_path) == {}
    assert list(tmp_path.iterdir()) == []
