"""The whole product on a tiny model in seconds: export, check, run, and what happens to those who tamper."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from bigvit_edge.artifact import read_manifest
from bigvit_edge.cli import app
from bigvit_edge.models.zoo import CARDS, DIGITS, Card

TINY = Card(
    "tiny", 32, 16, depth=2, head_dim=16, little_head_dim=8, patch=8, image_size=32, num_classes=10, labels=DIGITS
)
LOOSE = ["--set", "limits.images=20", "--set", "limits.untrained_cosine=0.98"]


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def tiny() -> Iterator[str]:
    """A model of a few thousand parameters under the name 'tiny', from its random start."""
    CARDS["tiny"] = TINY
    yield "tiny"
    del CARDS["tiny"]


@pytest.fixture(scope="module")
def exported(tiny: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "bundle"
    result = call("export", tiny, "--target", "android", "-o", folder, *LOOSE)
    assert result.exit_code == 0, result.output
    assert "weights: random, so" in result.stdout
    assert "topk" in result.stdout
    return folder


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    for path in exported.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_the_bundle_holds_each_format_in_each_precision(exported: Path) -> None:
    manifest = read_manifest(exported)
    files = {f"tiny_{precision}{suffix}" for precision in ("fp32", "int8") for suffix in (".pte", ".tflite")}
    assert {entry.file for entry in manifest.artifacts} == files
    assert {path.name for path in exported.iterdir()} == files | {"manifest.json"}
    assert (manifest.model, manifest.keep, manifest.target, manifest.weights) == ("tiny", 0.5, "android", "random")
    assert list(exported.parent.iterdir()) == [exported]


def test_check_takes_no_weights_for_a_bundle_without(exported: Path, tmp_path: Path) -> None:
    missing = call("check", exported, "--weights", tmp_path / "none.pth")
    assert missing.exit_code == 2
    assert "no file" in missing.stderr
    (tmp_path / "some.pth").write_bytes(b"x")
    other = call("check", exported, "--weights", tmp_path / "some.pth")
    assert other.exit_code == 2
    assert "random weights; leave it out" in other.stderr


def test_what_the_manifest_says_of_each_file(exported: Path) -> None:
    for entry in read_manifest(exported).artifacts:
        assert entry.inputs[0].shape == (1, 3, 32, 32)
        assert entry.outputs[0].shape == (1, 10)
        assert entry.parity.images == 20
        assert entry.parity.cosine_min > (0.99999 if entry.precision == "fp32" else 0.98)
        assert entry.accuracy is not None
        assert entry.delegates > 0
        assert sum(leftover.mac_share for leftover in entry.leftovers) < 0.01
        assert "layers.0" in {leftover.layer[:8] for leftover in entry.leftovers}  # the router's top-k, by layer
        assert "torch" in entry.tools


def test_check_finds_a_fresh_bundle_good(exported: Path) -> None:
    result = call("check", exported, "--json")
    assert result.exit_code == 0, result.output
    assert [file["faults"] for file in json.loads(result.stdout)] == [[], [], [], []]


def test_check_says_which_file_was_tampered_with_and_does_not_load_it(bundle: Path) -> None:
    victim = bundle / "tiny_int8.pte"
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(bytes(data))
    (bundle / "tiny_fp32.tflite").unlink()
    result = call("check", bundle, "--json")
    assert result.exit_code == 1
    faults = {file["file"]: file["faults"] for file in json.loads(result.stdout)}
    assert "changed after the export" in faults["tiny_int8.pte"][0]
    assert "missing" in faults["tiny_fp32.tflite"][0]
    assert faults["tiny_fp32.pte"] == []


def test_check_exits_with_1_past_the_limits(bundle: Path) -> None:
    path = bundle / "manifest.json"
    data = json.loads(path.read_text())
    data["limits"]["untrained_cosine"] = 0.9999999
    path.write_text(json.dumps(data))
    result = call("check", bundle)
    assert result.exit_code == 1
    assert "tiny_int8.pte: smallest cosine" in result.stdout
    assert "(limits.untrained_cosine)" in result.stdout


@pytest.mark.parametrize("file", ["tiny_fp32.pte", "tiny_int8.tflite"])
def test_run_prints_five_classes_with_probabilities(exported: Path, file: str, tmp_path: Path) -> None:
    Image.new("RGB", (50, 40), (200, 30, 90)).save(tmp_path / "image.png")
    result = call("run", exported / file, tmp_path / "image.png", "--json")
    assert result.exit_code == 0, result.output
    guesses = json.loads(result.stdout)
    assert len(guesses) == 5
    assert guesses[0]["probability"] >= guesses[4]["probability"] > 0
    assert {guess["label"] for guess in guesses} < set(DIGITS)


@pytest.mark.parametrize("content", [b"", b"no picture at all", b"\x89PNG\r\n\x1a\n cut short"])
def test_run_refuses_what_is_no_picture(exported: Path, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(content)
    result = call("run", exported / "tiny_fp32.pte", tmp_path / "x.png")
    assert result.exit_code == 2
    assert "cannot be read as a picture" in result.stderr


def test_run_refuses_a_tampered_file(bundle: Path, tmp_path: Path) -> None:
    (bundle / "tiny_fp32.pte").write_bytes(b"short")
    Image.new("RGB", (8, 8)).save(tmp_path / "image.png")
    result = call("run", bundle / "tiny_fp32.pte", tmp_path / "image.png")
    assert result.exit_code == 2
    assert "changed after the export" in result.stderr


def test_a_bundle_is_replaced_only_by_force_and_the_bytes_are_the_same(bundle: Path, tiny: str) -> None:
    words = ["export", tiny, "--target", "host", "--set", "precisions=fp32", "-o", bundle, *LOOSE]
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    refused = call(*words)
    assert refused.exit_code == 2
    assert "--force" in refused.stderr
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before
    assert call(*words, "--force").exit_code == 0
    assert {path.name for path in bundle.iterdir()} == {"tiny_fp32.tflite", "manifest.json"}
    assert (bundle / "tiny_fp32.tflite").read_bytes() == before["tiny_fp32.tflite"]


def test_force_spares_a_bundle_with_foreign_files(bundle: Path, tiny: str) -> None:
    (bundle / "notes.txt").write_text("mine")
    result = call("export", tiny, "-o", bundle, "--force", *LOOSE)
    assert result.exit_code == 2
    assert "notes.txt" in result.stderr


def test_an_export_past_the_limits_writes_nothing(tiny: str, tmp_path: Path) -> None:
    strict = ["--set", "limits.untrained_cosine=1.0", "--set", "precisions=int8", "--set", "limits.images=3"]
    result = call("export", tiny, "--target", "host", "-o", tmp_path / "out", *strict)
    assert result.exit_code == 1
    assert "tiny_int8.tflite: smallest cosine" in result.stderr
    assert list(tmp_path.iterdir()) == []
