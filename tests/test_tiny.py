"""The whole product on a tiny model in seconds: export, check, run, and what happens to those who tamper."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from bigvit_edge.cli import app
from bigvit_edge.manifest import read_manifest
from bigvit_edge.models.zoo import CARDS, DIGITS, Card

TINY = Card(
    "tiny", 32, 16, depth=2, head_dim=16, little_head_dim=8, patch=8, image_size=32, num_classes=10, labels=DIGITS
)
KEEP_PATCHES = "quant.keep_float=router,little,down,patches"
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
    shutil.copytree(exported, folder)
    return folder


def test_the_bundle_holds_each_format_in_each_precision(exported: Path) -> None:
    manifest = read_manifest(exported)
    files = {f"tiny_{precision}{suffix}" for precision in ("fp32", "int8") for suffix in (".pte", ".tflite", ".bve")}
    assert {entry.file for entry in manifest.artifacts} == files
    assert {path.name for path in exported.iterdir()} == files | {"manifest.json", "use"}
    assert (manifest.model, manifest.target) == ("tiny", "android")
    assert (manifest.image_size, manifest.num_classes) == (None, None)  # not given: the model's own
    assert (manifest.weights, manifest.weights_sha256) == ("random", None)
    assert [[method.keep for method in entry.methods] for entry in manifest.artifacts] == [[0.5]] * 6
    assert list(exported.parent.iterdir()) == [exported]


def test_check_takes_no_weights_for_a_bundle_without(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "some.pth").write_bytes(b"x")
    other = call("check", exported, "--weights", tmp_path / "some.pth")
    assert other.exit_code == 2
    assert "random weights; leave it out" in other.stderr


def test_what_the_manifest_says_of_each_file(exported: Path) -> None:
    for entry in read_manifest(exported).artifacts:
        shape = {"executorch": (1, 3, 32, 32), "litert": (1, 32, 32, 3)}.get(entry.format)
        image = ("uint8", shape) if shape else ("float32", (1, 3, 32, 32))  # which a .bve takes, and frames
        assert (entry.inputs[0].dtype, entry.inputs[0].shape) == image
        answer = "probabilities" if entry.format == "litert" else "logits"
        assert (entry.outputs[0].name, entry.outputs[0].shape) == (answer, (1, 10))
        (method,) = entry.methods
        assert method.parity.images == 20
        assert method.parity.cosine_min > (0.99999 if entry.precision == "fp32" else 0.98)
        assert method.accuracy is not None
        assert method.delegates > 0
        assert method.fragments["layers.0"] > 0
        assert sum(leftover.mac_share for leftover in method.leftovers) < 0.01
        own = entry.format == "bve"  # nothing is left over; elsewhere the router's top-k is, by layer
        assert own or "layers.0" in {leftover.layer[:8] for leftover in method.leftovers}
        assert all(leftover.reason for leftover in method.leftovers)
        assert set(entry.layers.values()) == ({"int8"} if entry.precision == "int8" else set())
        assert "torch" in entry.tools


def test_check_finds_a_fresh_bundle_good(exported: Path) -> None:
    result = call("check", exported, "--json")
    assert result.exit_code == 0, result.output
    assert [file["faults"] for file in json.loads(result.stdout)] == [[]] * 6


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


@pytest.mark.parametrize("file", ["tiny_fp32.pte", "tiny_int8.tflite", "tiny_int8.bve"])
def test_a_manifest_of_other_shapes_than_the_file(bundle: Path, file: str, tmp_path: Path) -> None:
    path = bundle / "manifest.json"
    data = json.loads(path.read_text())
    for entry in data["artifacts"]:
        entry["outputs"][0]["shape"], entry["labels"] = [1, 2], ["a", "b"]
    path.write_text(json.dumps(data))
    Image.new("RGB", (8, 8)).save(tmp_path / "image.png")
    refused = call("run", bundle / file, tmp_path / "image.png")
    assert refused.exit_code == 2
    answer = "probabilities" if file.endswith(".tflite") else "logits"
    assert f"{file} answers {answer} [1, 10], where its manifest says {answer} [1, 2]" in refused.stderr
    for entry in data["artifacts"]:
        entry["outputs"][0]["shape"], entry["labels"] = [1, 10], [*"0123456798"]
    path.write_text(json.dumps(data))
    assert f"{file} says of itself labels" in call("run", bundle / file, tmp_path / "image.png").stderr


def test_check_exits_with_1_past_the_limits(bundle: Path) -> None:
    path = bundle / "manifest.json"
    data = json.loads(path.read_text())
    data["limits"]["untrained_cosine"] = 0.9999999
    path.write_text(json.dumps(data))
    result = call("check", bundle)
    assert result.exit_code == 1
    assert "tiny_int8.pte, keep 0.5: smallest cosine" in result.stdout
    assert "(limits.untrained_cosine)" in result.stdout


@pytest.mark.parametrize("file", ["tiny_fp32.pte", "tiny_int8.tflite", "tiny_int8.bve"])
def test_run_prints_five_classes_with_probabilities(exported: Path, file: str, tmp_path: Path) -> None:
    Image.new("RGB", (50, 40), (200, 30, 90)).save(tmp_path / "image.png")
    result = call("run", exported / file, tmp_path / "image.png", "--json")
    assert result.exit_code == 0, result.output
    guesses = json.loads(result.stdout)
    assert len(guesses) == 5
    assert guesses[0]["probability"] >= guesses[4]["probability"] > 0
    assert {guess["label"] for guess in guesses} < set(DIGITS)
    assert "image.png: what the model sees of it is all of one colour" in result.stderr


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


def read_all(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_bundle_is_replaced_only_by_force_and_the_bytes_are_the_same(bundle: Path, tiny: str) -> None:
    words = ["export", tiny, "--target", "host", "--set", "precisions=fp32", "--set", "formats=litert", "-o", bundle]
    words += ["--input", "image", *LOOSE]
    before = read_all(bundle)
    refused = call(*words)
    assert refused.exit_code == 2
    assert "--force" in refused.stderr
    assert read_all(bundle) == before
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
    strict += ["--set", "formats=litert"]
    result = call("export", tiny, "--target", "host", "-o", tmp_path / "out", *strict)
    assert result.exit_code == 1
    assert "tiny_int8.tflite, keep 0.5: smallest cosine" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_gate_names_what_cuts_a_layer_and_can_be_passed(tiny: str, tmp_path: Path) -> None:
    words = ["export", tiny, "--target", "android", "--set", "formats=executorch", "--set", "precisions=fp32", *LOOSE]
    words += ["--set", "limits.max_fragments=1", "-o", tmp_path / "out"]
    stopped = call(*words)
    assert stopped.exit_code == 1
    assert "layers.1 in 2 pieces, cut by" in stopped.stderr
    assert "topk" in stopped.stderr
    assert "--allow-fallback exports it nevertheless" in stopped.stderr
    assert list(tmp_path.iterdir()) == []
    allowed = call(*words, "--allow-fallback")
    assert allowed.exit_code == 0, allowed.output
    assert "allowed: " in allowed.stdout
    assert "layers.1 in 2 pieces" in allowed.stdout


def test_a_format_by_name_needs_no_target(tiny: str, tmp_path: Path) -> None:
    result = call("export", tiny, "--format", "bve", "-o", tmp_path / "out", *LOOSE)
    assert result.exit_code == 0, result.output
    manifest = read_manifest(tmp_path / "out")
    assert manifest.target == "host"
    assert [entry.file for entry in manifest.artifacts] == ["tiny_fp32.bve", "tiny_int8.bve"]
    assert "embedding.patches" in manifest.artifacts[1].layers
    kept = call("export", tiny, "--format", "bve", "-o", tmp_path / "kept", *LOOSE, "--set", KEEP_PATCHES)
    assert kept.exit_code == 0, kept.output
    assert "embedding.patches" not in read_manifest(tmp_path / "kept").artifacts[1].layers
    assert (tmp_path / "kept/tiny_int8.bve").stat().st_size > (tmp_path / "out/tiny_int8.bve").stat().st_size


def test_several_keep_ratios_in_one_file(tiny: str, tmp_path: Path) -> None:
    words = ["--target", "android", "--set", "precisions=fp32", "--keep", "0.25,1.0", *LOOSE]
    result = call("export", tiny, *words, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "MediaPipe takes no .tflite of 2 keep ratios" in " ".join(result.output.split())
    Image.new("RGB", (40, 40), (200, 30, 90)).save(tmp_path / "image.png")
    for file in ("tiny_fp32.pte", "tiny_fp32.tflite", "tiny_fp32.bve"):
        answers = {
            keep: call("run", tmp_path / "out" / file, tmp_path / "image.png", "--json", "--keep", keep).stdout
            for keep in (0.25, 1.0)
        }
        assert answers[0.25] != answers[1.0]
        assert call("run", tmp_path / "out" / file, tmp_path / "image.png", "--json").stdout == answers[1.0]
    refused = call("run", tmp_path / "out/tiny_fp32.pte", tmp_path / "image.png", "--keep", "0.5")
    assert refused.exit_code == 2
    assert "expected one of 0.25, 1" in refused.stderr
