"""What a manifest says is enough to find the same model; what is not so of model or file, check and run refuse."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from bigvit_edge.artifact import Runner
from bigvit_edge.errors import UserError
from bigvit_edge.export import inference
from bigvit_edge.export.bundle import Source, export_bundle
from bigvit_edge.export.check import check_bundle, list_contradictions
from bigvit_edge.export.inference import classify
from bigvit_edge.manifest import read_manifest
from bigvit_edge.models.load import load
from bigvit_edge.models.vit import ViT
from bigvit_edge.models.zoo import CARDS, DIGITS, Card
from bigvit_edge.target import Limits, load_target, override

TINY = Card("tiny_dense", 32, depth=1, head_dim=16, patch=8, image_size=32, num_classes=10, labels=DIGITS)
HOST = replace(
    load_target("host"),
    formats=("bve", "onnx", "coreml"),
    precisions=("fp32",),
    limits=Limits(images=2, max_fallback=1.0),
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A bundle of a model of a few thousand parameters."""
    CARDS["tiny_dense"] = TINY
    folder = tmp_path_factory.mktemp("export") / "bundle"
    export_bundle(Source("tiny_dense"), HOST, folder)
    yield folder
    del CARDS["tiny_dense"]


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    folder = tmp_path / "bundle"
    shutil.copytree(exported, folder)
    Image.new("RGB", (32, 32), "red").save(tmp_path / "p.png")
    return folder


def edit(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = bundle / "manifest.json"
    data = json.loads(path.read_text())
    for entry in data["artifacts"]:
        change(entry)
    path.write_text(json.dumps(data))


def say_classes(entry: dict[str, Any]) -> None:
    entry["outputs"][0]["shape"], entry["labels"] = [1, 2], ["a", "b"]


def say_size(entry: dict[str, Any]) -> None:
    entry["inputs"][0]["shape"], entry["preprocessing"]["size"] = [1, 3, 4000, 4000], 4000


def say_labels(entry: dict[str, Any]) -> None:
    entry["labels"] = [*"0123456798"]


def say(**fields: object) -> Callable[[dict[str, Any]], None]:
    return lambda entry: entry["preprocessing"].update(fields)


LIES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "classes": (say_classes, "the manifest says classes 2, the model 10"),
    "size": (say_size, "the manifest says size 4000, the model 32"),
    "labels": (say_labels, "the manifest says label of class 8 9, the model 8"),
    "no labels": (lambda entry: entry.update(labels=None), "the manifest says labels 0, the model 10"),
    "mean": (say(mean=[0.4, 0.5, 0.5]), "the manifest says mean (0.4, 0.5, 0.5), the model (0.5, 0.5, 0.5)"),
    "std": (say(std=[0.1, 0.5, 0.5]), "the manifest says std"),
    "color": (say(color="BGR"), "the manifest says color BGR, the model RGB"),
    "crop": (say(crop="squash"), "the manifest says crop squash"),
    "cosine": (lambda entry: entry["methods"][0].update(cosine_mean=1.0), "manifest.json was edited after the export"),
    "layers": (lambda entry: entry.update(layers={"head": "int8"}), "Linears of an fp32 file are int8"),
}


@pytest.mark.parametrize("name", LIES)
def test_check_finds_what_is_not_so_of_the_model(bundle: Path, name: str) -> None:
    lie, words = LIES[name]
    edit(bundle, lie)
    checked = check_bundle(bundle)
    assert [file.file for file in checked] == [
        "tiny_dense_fp32.bve",
        "tiny_dense_fp32.onnx",
        "tiny_dense_fp32.mlpackage",
    ]
    for file in checked:
        assert any(words in fault for fault in file.faults), file.faults


def test_check_finds_nothing_where_all_is_so(exported: Path) -> None:
    assert [file.faults for file in check_bundle(exported)] == [()] * 3


@pytest.mark.parametrize(
    ("lie", "words"),
    [(say_classes, "answers logits [1, 10], where its manifest says logits [1, 2]"),
     (say_size, "takes an image float32 [1, 3, 32, 32], where its manifest says float32 [1, 3, 4000, 4000]"),
     (lambda entry: entry.update(precision="int8"), "says of itself precision fp32, where its manifest says int8"),
     (say_labels, 'says of itself labels ["0", "1", "2"'),
     (lambda entry: entry.update(labels=None), "where its manifest says None"),
     (say(mean=[0.4, 0.5, 0.5]), 'says of itself preprocessing {"size": 32')],
)  # fmt: skip
@pytest.mark.parametrize("suffix", ["bve", "onnx", "mlpackage"])
def test_run_refuses_a_manifest_that_says_otherwise_than_the_file(
    bundle: Path, lie: Any, words: str, suffix: str
) -> None:
    edit(bundle, lie)
    with pytest.raises(UserError) as caught:
        classify(bundle / f"tiny_dense_fp32.{suffix}", bundle.parent / "p.png")
    assert words in str(caught.value)


def test_run_refuses_an_answer_that_is_no_number(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = np.float32([[0, np.nan, 1, np.inf, 0, 0, 0, 0, 0, 0]])
    monkeypatch.setattr(inference, "open_entry", lambda *_, **__: Runner(lambda _: answer, (), ()))
    with pytest.raises(UserError, match=r"p.png with 2 of 10 logits that are not finite"):
        classify(bundle / "tiny_dense_fp32.bve", bundle.parent / "p.png")


def test_a_manifest_before_version_3_says_nothing_of_crop_and_labels(exported: Path) -> None:
    manifest, model = read_manifest(exported), load("tiny_dense")
    entry = replace(manifest.artifacts[0], labels=None)
    other = replace(model, preprocessing=replace(model.preprocessing, crop="center", resize="bicubic, antialiased"))
    assert list_contradictions(entry, replace(manifest, version=2), other) == []
    assert len(list_contradictions(entry, manifest, other)) == 3


def make_state(seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    model = ViT(image_size=16, patch=8, dim=32, depth=1, head_dim=8, num_classes=5)
    return {key: torch.randn_like(tensor) * 0.3 for key, tensor in model.state_dict().items()}


@pytest.fixture
def student(tmp_path: Path) -> Path:
    """Of the student's weights, with four heads."""
    torch.save({"student": make_state(1), "teacher": make_state(2)}, tmp_path / "w.pth")
    target = override(load_target("host"), ["formats=bve", "precisions=fp32", "limits.images=2"])
    source = Source(str(tmp_path / "w.pth"), weights_key="student", heads=4)
    manifest, _ = export_bundle(source, target, tmp_path / "out")
    assert (manifest.weights_key, manifest.heads) == ("student", 4)
    return tmp_path / "out"


def test_heads_and_key_are_the_manifests(student: Path) -> None:
    (checked,) = check_bundle(student)
    assert checked.faults == ()
    for other in ({"heads": 2}, {"weights_key": "teacher"}):
        (checked,) = check_bundle(student, **other)  # type: ignore[arg-type]
        assert checked.faults
    with pytest.raises(UserError, match=r"nothing under 'ema'"):
        check_bundle(student, weights_key="ema")


CHATTY = """
import torch
class Chatty(torch.nn.Linear):
    image_size, mean, std, labels = 8, (0, 0, 0), (1, 1, 1), {0: "a", 1: "b"}
    def forward(self, x):
        print("hello")
        return super().forward(x.mean((2, 3)))
def build():
    return Chatty(3, 2)
"""


def test_what_a_users_model_prints_stays_out_of_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "chatty.py").write_text(CHATTY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    target = override(load_target("host"), ["formats=onnx", "precisions=fp32", "limits.images=2"])
    export_bundle(Source("chatty:build"), target, tmp_path / "out")
    capsys.readouterr()
    (checked,) = check_bundle(tmp_path / "out", model="chatty:build")
    out, err = capsys.readouterr()
    assert (checked.faults, out) == ((), "")
    assert "hello" in err


def test_an_edited_manifest_is_not_blamed_on_the_caller(bundle: Path) -> None:
    path = bundle / "manifest.json"
    path.write_text(path.read_text().replace('"heads": null', '"heads": 7'))
    with pytest.raises(UserError, match=r"manifest.json was edited after the export; by what it says: .*7"):
        check_bundle(bundle)


def test_run_wants_a_file_of_the_bundle(bundle: Path) -> None:
    with pytest.raises(UserError, match=r"a bundle; expected one of its files: tiny_dense_fp32.bve"):
        classify(bundle, bundle.parent / "p.png")
    with pytest.raises(UserError, match=r"manifest.json is a file; expected the folder of a bundle"):
        check_bundle(bundle / "manifest.json")


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "drawing.py").write_text(DRAWING)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("numpy", "system"):
        export_bundle(Source(f"drawing:{name}"), override(HOST, ["formats=onnx"]), tmp_path / name)
    return tmp_path


DRAWING = """
import os, random
import numpy as np, torch
from torch import nn

def make(values):
    model = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 3))
    model[2].weight.data[0, :2] = torch.tensor(values)
    model.image_size = 16
    return model

def numpy():
    return make([float(np.random.randn()), random.random()])

def system():
    return make([float(os.urandom(1)[0] + 256 * os.urandom(1)[0]), 1.0])
"""


def test_a_factory_that_draws_weights(factories: Path) -> None:
    """NumPy's and Python's generators stand at a fixed seed; what comes from elsewhere is named."""
    assert not check_bundle(factories / "numpy", model="drawing:numpy")[0].faults
    with pytest.raises(UserError, match=r"drawing:system, which gives other weights than at the export"):
        check_bundle(factories / "system", model="drawing:system")
    with pytest.raises(UserError, match=r"--model drawing:system, whose weights are others; expected drawing:numpy"):
        check_bundle(factories / "numpy", model="drawing:system")
