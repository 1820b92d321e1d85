"""A user's model around one of ours, from the command line: our core runs ours, and all that can be said is said."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from bigvit_edge.artifact import Entry
from bigvit_edge.cli import app
from bigvit_edge.manifest import read_manifest
from tests.models.around import SIZE

MODEL = "tests.models.around:build"


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("around") / "out"
    settings = ("--set", "limits.images=8", "--set", "limits.int8_cosine=0.99", "--set", "limits.top1_agreement=0.5")
    result = call("export", MODEL, "--target", "android-native", "--keep", "0.5,1", *settings, "-o", folder)
    assert result.exit_code == 0, result.output
    assert "part net for our core" in result.output
    return folder


def test_both_formats_have_it_with_nothing_left_over_but_the_pixels_cast(exported: Path) -> None:
    entries: list[Entry] = list(read_manifest(exported).artifacts)
    cells = {(entry.format, entry.precision) for entry in entries}
    assert cells == {(name, precision) for name in ("executorch", "litert") for precision in ("fp32", "int8")}
    for entry in entries:
        assert {method.keep for method in entry.methods} == {0.5, 1.0}
        for method in entry.methods:
            assert method.delegates == 3
            assert {leftover.op for leftover in method.leftovers} <= {"aten._to_copy.default", "CAST"}  # of the pixels
            assert method.parity.cosine_min > (0.99999 if entry.precision == "fp32" else 0.99)
        int8 = {layer for layer, how in entry.layers.items() if how == "int8"}
        assert {"net.embedding.patches", "net.layers.0.p.mlp.fc1", "out"} <= int8 or entry.precision == "fp32"


def test_check_and_run_load_our_library_by_themselves(exported: Path, tmp_path: Path) -> None:
    checked = call("check", exported, "--model", MODEL, "--json")
    assert checked.exit_code == 0, checked.output
    assert [file["faults"] for file in json.loads(checked.stdout)] == [[]] * 8
    pixels = np.random.default_rng(0).integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    files = [entry.file for entry in read_manifest(exported).artifacts if entry.precision == "fp32"]
    answers = [
        json.loads(call("run", exported / file, tmp_path / "picture.png", "--keep", "0.5", "--json").stdout)
        for file in files
    ]
    assert len(answers) == 2
    for one, other in zip(*answers, strict=True):
        assert one["label"] == other["label"]
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-5)


def test_a_bve_is_ours_alone(tmp_path: Path) -> None:
    result = call("export", MODEL, "--format", "bve", "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "Around) in bve; expected a ViT or big.LITTLE ViT of this package; take another format" in result.stderr
    assert list(tmp_path.iterdir()) == []
