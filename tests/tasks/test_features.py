"""A model without classes: its features are compared about their mean, and judged by limits of their own."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from bigvit_edge.artifact import Entry
from bigvit_edge.bench.cases import list_cases
from bigvit_edge.cli import app
from bigvit_edge.errors import UserError
from bigvit_edge.export.convert import capture_cores, find_leftovers
from bigvit_edge.manifest import read_manifest, write_manifest
from bigvit_edge.models.loading import load
from bigvit_edge.runtime import Session
from bigvit_edge.signature import Tensor as Spec
from bigvit_edge.target import Limits
from bigvit_edge.tasks import features, find_task
from tests.test_artifact import ENTRY, MANIFEST

MODEL = "tests.tasks.test_features:build"
ROWS = np.random.default_rng(0).standard_normal((8, 6), np.float32)


class Tokens(nn.Module):
    """Images [B, 3, 32, 32] -> tokens [B, 16, 24]."""

    image_size, task = 32, "features"

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, 24, 8, 8), nn.LayerNorm(24)
        self.fc1, self.fc2 = nn.Linear(24, 48), nn.Linear(48, 24)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)  # [B, 16, 24]
        return tokens + self.fc2(nn.functional.gelu(self.fc1(self.norm(tokens))))


class AsMap(nn.Module):
    """Tokens [B, 16, 24] -> a map [B, 24, 4, 4]."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.transpose(1, 2).unflatten(2, (4, 4))


def build() -> nn.Module:
    return Tokens()


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features") / "bundle"
    result = call("export", MODEL, "--format", "onnx", "-o", folder, "--set", "limits.images=4")
    assert result.exit_code == 0, result.output
    assert "largest error" in result.stdout
    assert "top-1" not in result.stdout
    return folder


def test_compare_by_hand() -> None:
    expected = np.array([[[1.0, 0.0]], [[0.0, 2.0]]], np.float32)  # [2, 1, 2]
    parity = features.compare(np.array([[[1.0, 0.0]], [[0.0, 1.0]]], np.float32), expected)
    # about the mean (0.5, 1): (0.5, -1), (-0.5, 1) where the file has (0.5, -1), (-0.5, 0)
    assert parity.centred_cosine == pytest.approx((1.25 + 0.25) / np.sqrt(2.5 * 1.5))
    assert (parity.max_abs, parity.span, parity.top1_agreement) == (1.0, 1.0, None)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda rows: rows, []),
        (lambda rows: rows[::-1], ["centred cosine", "largest error"]),
        (lambda rows: rows + 0.01, ["largest error"]),
        (lambda rows: rows * np.nan, ["centred cosine", "largest error"]),
    ],
)
def test_a_file_is_held_to_the_centred_cosine_and_the_largest_error(
    wrong: Callable[[np.ndarray], np.ndarray], words: list[str]
) -> None:
    common = ROWS + 20  # as of random weights: images differ little from one another
    faults = features.judge(features.compare(wrong(common), common), "fp32", Limits())
    assert [fault.split(" ")[0] for fault in faults] == [word.split(" ")[0] for word in words]
    assert features.compare(ROWS[::-1] + 20, common).cosine_mean > 0.99  # which says nothing of them


def test_random_and_trained_weights_are_judged_alike() -> None:
    parity = features.compare(ROWS[::-1].copy(), ROWS)
    assert features.judge(parity, "int8", Limits(), True) == features.judge(parity, "int8", Limits(), False) != []


@pytest.mark.parametrize("shape", [(1, 6), (1, 4, 6), (1, 6, 2, 2)])
def test_an_embedding_tokens_and_a_map_are_features(shape: tuple[int, ...]) -> None:
    features.check_answer(Spec("features", shape), "mine")


@pytest.mark.parametrize("shape", [(6,), (2, 6), (1, 0), (1, 2, 3, 4, 5)])
def test_what_are_no_features_of_one_image(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"mine answers one image with a tensor"):
        features.check_answer(Spec("features", shape), "mine")


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"task 'feature'; expected one of classification, features.*features"):
        find_task("feature")


def test_a_model_is_taken_for_what_it_says_or_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load(MODEL)
    assert (loaded.task, str(loaded.answer), loaded.labels) == ("features", "features float32 [1, 16, 24]", None)
    assert any("exported for features" in note for note in loaded.notes)
    with pytest.raises(UserError, match=r"tensor \[1, 16, 24\]; expected logits.*--task features"):
        load(MODEL, task="classification")
    with pytest.raises(UserError, match="--task features for vit_ti, which is a classifier"):
        load("vit_ti", task="features")


def test_the_bundle_names_features_and_no_labels(exported: Path) -> None:
    manifest = read_manifest(exported)
    assert (manifest.task, manifest.samples, manifest.extras) == ("features", {}, {})
    for entry in manifest.artifacts:
        assert (str(entry.outputs[0]), entry.labels) == ("features float32 [1, 16, 24]", None)
        (method,) = entry.methods
        assert method.parity
        assert (method.parity.top1_agreement, method.accuracy, method.confusions) == (None, None, ())
    assert not any(case.labelled for case in list_cases([exported]))


def test_tokens_are_an_answer_of_the_bve_runtime_too(tmp_path: Path) -> None:
    result = call("export", MODEL, "--format", "bve", "-o", tmp_path / "out", "--set", "limits.images=4")
    assert result.exit_code == 0, result.output
    for entry in read_manifest(tmp_path / "out").artifacts:
        assert str(entry.outputs[0]) == "features float32 [1, 16, 24]"
        assert Session(tmp_path / "out" / entry.file).outputs == {"features": (1, 16, 24)}


def test_a_map_that_lies_otherwise_than_tokens_is_refused() -> None:
    (graph,) = capture_cores(nn.Sequential(Tokens(), AsMap()), 32, (None,), "features")
    (leftover,) = find_leftovers([graph])
    assert "it reads or gives what does not lie in rows" in str(leftover)


def test_check_and_run(exported: Path, tmp_path: Path) -> None:
    checked = call("check", exported, "--model", MODEL)
    assert checked.exit_code == 0, checked.output
    assert "top-1" not in checked.stdout
    pixels = np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "p.png")
    (told,) = json.loads(call("run", exported / _name(exported, "fp32"), tmp_path / "p.png", "--json").stdout)
    loaded = load(MODEL)
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        expected = loaded.module((image - 0.5) / 0.5)
    assert told["shape"] == [1, 16, 24]
    np.testing.assert_allclose(told["values"], expected.flatten().numpy(), atol=1e-4)
    assert "[1, 16, 24]" in call("run", exported / _name(exported, "int8"), tmp_path / "p.png").stdout


def _name(folder: Path, precision: str) -> str:
    return next(entry.file for entry in read_manifest(folder).artifacts if entry.precision == precision)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (ENTRY, "one image and its features are expected"),
        (replace(ENTRY, outputs=(Spec("features", (2, 2)),)), "of other than one image"),
        (replace(ENTRY, outputs=(Spec("features", (1, 2)),)), "2 labels for features, which have no classes"),
    ],
)
def test_a_manifest_that_contradicts_its_task(entry: Entry, message: str, tmp_path: Path) -> None:
    write_manifest(replace(MANIFEST, task="features", artifacts=(entry,)), tmp_path)
    with pytest.raises(UserError, match=message):
        read_manifest(tmp_path)
