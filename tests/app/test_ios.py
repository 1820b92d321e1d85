"""app ios: the folder is whole, its records are those of Python, and what Swift can look at without Apple's frameworks
is built and tested."""

import hashlib
import json
import random
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter
from typer.testing import CliRunner

from bigvit_edge.app.ios import write_ios_app
from bigvit_edge.artifact import Entry, hash_file, write_data
from bigvit_edge.bench.comparison import compare
from bigvit_edge.bench.pages import explain_result
from bigvit_edge.bench.verdicts import judge
from bigvit_edge.cli import app
from bigvit_edge.errors import UserError
from bigvit_edge.export.image import make_input, prepare
from bigvit_edge.manifest import read_manifest, write_manifest
from bigvit_edge.preprocessing import Preprocessing
from bigvit_edge.results import describe_times, read_result
from bigvit_edge.signature import Tensor
from tests.bench.made import make_machine, make_row, make_turn
from tests.native import ROOT
from tests.swift import run_swift
from tests.test_artifact import ENTRY, MANIFEST

PACKAGE = {"Manifest.json": b"{}", "Data/com.apple.CoreML/model.mlmodel": b"abc"}
NUMBERS = [0.1, 1e-4, 9.999e-5, 5e-324, 1.7976931348623157e308, 1e15, 1e16, 12345678901234567.0, 1.5e21, 1 / 3, -2.5e-10, -0.0, 2.0**53]  # fmt: skip # noqa: E501
TEXTS = ["", 'quote " and \\', "\n\r\t\f\b\0\x1f\x7f", "é漢字", "\U0001f600", "\ue000", "\u2028", "/"]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle with a Core ML package of two methods and a .tflite."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    write_data(PACKAGE, folder / "m_fp16.mlpackage")
    (folder / ENTRY.file).write_bytes(b"abc")
    methods = tuple(replace(ENTRY.methods[0], name=f"keep_{keep}", keep=keep) for keep in (0.5, 1.0))
    package = replace(
        ENTRY, file="m_fp16.mlpackage", format="coreml", precision="fp16", methods=methods, bytes=5, layers={},
        sha256=hash_file(folder / "m_fp16.mlpackage"),
    )  # fmt: skip
    save(folder, package, replace(ENTRY, sha256=hash_file(folder / ENTRY.file)))
    return folder


def save(folder: Path, *entries: Entry) -> None:
    write_manifest(replace(MANIFEST, target="ios", artifacts=entries), folder)


def test_the_folder_holds_packages_and_what_the_manifest_says_of_them(bundle: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    (note,) = write_ios_app(there, bundle)
    assert "m_int8.tflite: left out" in note
    models = there / "Sources/BigvitBench/Bundle"
    assert hash_file(models / "m_fp16.mlpackage") == hash_file(bundle / "m_fp16.mlpackage")
    first, second = json.loads((models / "models.json").read_text())["models"]
    assert (first["subject"]["method"], second["subject"]["method"]) == ("keep_0.5", "keep_1.0")
    assert (first["size"], first["input"], first["output"], first["labels"]) == (8, "image", "logits", ["a", "b"])
    assert json.loads(first["preprocessing"]) == ENTRY.preprocessing.spell() | {"mean": [0.5] * 3, "std": [0.5] * 3}
    assert first["levels"] is None
    text = (there / "Package.swift").read_text()
    assert '.iOS("17.0")' in text
    assert "@" not in text
    assert (there / "BigvitEdge/Sources/CBve/include/bve.h").is_file()
    assert "never built on a Mac" in (there / "README.md").read_text()


@pytest.mark.parametrize("color", ["RGB", "BGR"])
def test_the_app_finds_the_pixels_of_a_package_again(bundle: Path, tmp_path: Path, color: str) -> None:
    """It prepares a tensor, as the core can, and gives the package the pixels that this was made of."""
    how = Preprocessing(8, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), color=color, crop="border", dtype="uint8", layout="NHWC")
    (package, *_) = read_manifest(bundle).artifacts
    image = replace(package.inputs[0], shape=how.shape, dtype="uint8")
    answer = replace(package.outputs[0], name="classLabel_probs")
    save(bundle, replace(package, inputs=(image,), outputs=(answer,), preprocessing=how))
    write_ios_app(tmp_path / "there", bundle)
    told = json.loads((tmp_path / "there/Sources/BigvitBench/Bundle/models.json").read_text())["models"][0]
    Image.new("RGB", (16, 8), (10, 20, 30)).save(tmp_path / "wide.png")
    pixels = prepare(tmp_path / "wide.png", how).pixels  # [8, 8, 3], a border of the mean's colour above and below
    tensor = prepare_by(told["preprocessing"], tmp_path / "wide.png")  # [3, 8, 8]
    levels = [plane * level["factor"] + level["offset"] for plane, level in zip(tensor, told["levels"], strict=True)]
    np.testing.assert_array_equal(np.stack(levels, -1).round(), pixels)
    assert {tuple(pixel) for pixel in pixels.reshape(-1, 3).tolist()} > {(10, 20, 30)}
    assert told["output"] == "classLabel_probs"


def prepare_by(spelled: str, path: Path) -> Any:
    """A picture as a model of these words, of a tensor, takes it."""
    how = TypeAdapter(Preprocessing).validate_json(spelled)
    return make_input(prepare(path, how).pixels[None], how)[0]


def test_what_cannot_be_written_leaves_nothing(bundle: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    runner = CliRunner()
    (bundle / "m_fp16.mlpackage/Manifest.json").write_text("[]")
    edited = runner.invoke(app, ["app", "ios", "--bundle", str(bundle), "-o", str(there)])
    assert edited.exit_code == 2
    assert "m_fp16.mlpackage" in edited.output
    save(bundle, replace(ENTRY, sha256=hash_file(bundle / ENTRY.file)))
    features = replace(ENTRY, outputs=(Tensor("features", (1, 2)),), labels=None)
    write_manifest(replace(MANIFEST, task="features", artifacts=(features,)), bundle)
    with pytest.raises(UserError, match="of a model for features; expected a classifier"):
        write_ios_app(there, bundle)
    save(bundle, replace(ENTRY, sha256=hash_file(bundle / ENTRY.file)))
    without = runner.invoke(app, ["app", "ios", "--bundle", str(bundle), "-o", str(there)])
    assert without.exit_code == 2
    assert "export --target ios" in " ".join(without.output.split())
    assert not there.exists()
    there.mkdir()
    (there / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is there already"):
        write_ios_app(there, bundle)
    assert [path.name for path in there.iterdir()] == ["mine.txt"]


def make_rows() -> list[dict[str, Any]]:
    """Turns of every kind of verdict, and what Python says of them."""
    rng = random.Random(0)

    def draw(ms: float, spread: float = 0.01) -> list[float]:
        return [ms * (1 + rng.uniform(-spread, spread)) for _ in range(rng.randint(3, 9))]

    usual = [draw(2) for _ in range(20)]
    kinds = [
        (usual, True), (usual, False), (usual[:5], True), ([draw(2 + i / 10) for i in range(20)], True),
        ([draw(2 + i / 38) for i in range(12)], True), ([draw(2, 0.5) for _ in range(20)], True),
        ([draw(2 if i % 2 else 2.3) for i in range(20)], True), ([draw(1 / (i + 8)) for i in range(9)], True),
    ]  # fmt: skip
    rows = []
    for turns, warm in kinds:
        made = [make_turn(times, i, clock_mhz=(None, None), cores={}, thread_ms={}) for i, times in enumerate(turns)]
        row = judge(make_row(made, warm=warm, launch="app", cores_asked=None, cores_allowed=()), make_machine())
        times = asdict(describe_times(row.times_ms()))
        del times["images"]
        told = {"verdicts": row.verdicts, "reasons": row.reasons, "times": list(times.values())}
        rows.append({"turns": turns, "warm": warm} | told)
    assert len({reason for row in rows for reason in row["reasons"]}) > 4
    return rows


def make_texts() -> list[tuple[str, str, str]]:
    rng = random.Random(1)
    numbers = [*NUMBERS, *(rng.uniform(-1, 1) * 10 ** rng.randint(-30, 30) for _ in range(500))]
    names = {text: i for i, text in enumerate([*TEXTS, "B", "b", "bb", "10", "9"])}
    values = [numbers, TEXTS, names, {"b": [{}, [], {"a": None}], "a": [True, False, [1, [-2]]]}, 7, "a" * 1000]
    texts = []
    for value in values:
        spelled = json.dumps(value, sort_keys=True)
        for text in (spelled, json.dumps(value, indent=2, ensure_ascii=False)):
            texts.append((text, spelled, hashlib.sha256(spelled.encode()).hexdigest()))
    return texts


def test_swift_spells_judges_and_writes_as_python_does(bundle: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    write_ios_app(shared / "app", bundle)
    (shared / "cases.json").write_text(json.dumps({"texts": make_texts(), "rows": make_rows()}))
    (shared / "machine.json").write_text(json.dumps(asdict(make_machine())))
    words = ("test", "--disable-sandbox", "--package-path", shared / "app")
    files = {"BENCH_CASES": "cases.json", "BENCH_MACHINE": "machine.json", "BENCH_RESULT": "result.json"}
    run_swift(shared, "swift", *words, **{name: shared / file for name, file in files.items()})
    read = read_result(shared / "result.json")
    measured, failed = read.rows
    assert judge(measured, read.machine) == measured
    assert (failed.verdicts, failed.reasons) == (("failed",), ("no memory",))
    assert measured.file == "modèle\n😀.mlpackage"
    assert measured.surroundings is not None
    assert measured.surroundings.thermal_status == (0, 3)
    assert compare(read, read)[0][0].ratio.value == 1
    said = f"frame to label of {measured.file}: not available: this app times no frames"
    assert list(explain_result(read)).count(said) == 1


def test_swift_parses_what_the_documentation_shows(tmp_path: Path) -> None:
    blocks = re.findall(r"```swift\n(.*?)```", (ROOT / "docs/libraries.md").read_text(), re.DOTALL)
    assert any("VNCoreMLRequest" in block for block in blocks)
    for at, block in enumerate(blocks):
        (tmp_path / f"{at}.swift").write_text(block)
        run_swift(tmp_path, "swiftc", "-parse", tmp_path / f"{at}.swift")


def test_swift_parses_all_of_it(bundle: Path, tmp_path: Path) -> None:
    """What needs Apple's frameworks is not compiled anywhere here."""
    write_ios_app(tmp_path / "app", bundle)
    files = sorted((tmp_path / "app").rglob("*.swift"))
    assert {"BenchView.swift", "CoreMLModel.swift", "ApplePictures.swift"} < {file.name for file in files}
    for file in files:
        run_swift(tmp_path, "swiftc", "-parse", file)
