"""Files that take pixels, from one command to a picture's class: every format that has them, in float and in int8."""

import ctypes
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner, Result

from bigvit_edge.cli import app
from bigvit_edge.export.backends.litert.contents import read_model
from bigvit_edge.export.image import make_input
from bigvit_edge.manifest import read_manifest
from bigvit_edge.models.load import load
from bigvit_edge.runtime import Frame, abi
from bigvit_edge.runtime.opening import load_file, open_entry
from tests.models.stem import LABELS, build

MODEL = "tests.models.stem:build"
FORMATS = ("litert", "onnx", "executorch")
LAYOUTS = {"litert": "NHWC", "onnx": "NCHW", "executorch": "NCHW"}
LOOSE = [f"limits.convolved_{what}=0" for what in ("cosine", "centred", "agreement")]


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def export(folder: Path, formats: str, precisions: str, *settings: str) -> Path:
    named = [f"formats={formats}", f"precisions={precisions}", "limits.images=8", *LOOSE, *settings]
    words = [word for setting in named for word in ("--set", setting)]
    result = call("export", MODEL, "--input", "image", "-o", folder, "--target", "host", "--allow-fallback", *words)
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("pixels") / "out", ",".join(FORMATS), "fp32,int8,int8-full")


def answer(pixels: Any) -> Any:
    """PyTorch's softmax for pixels [S, S, 3], normalised here as torchvision's Normalize says it."""
    model = build().eval()
    mean, std = (torch.tensor(values)[:, None, None] for values in (model.mean, model.std))
    with torch.no_grad():
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 255
        return model(((image - mean) / std)[None]).softmax(-1)[0].numpy()


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_takes_pixels_and_says_what_pytorch_says_of_the_picture(exported: Path, name: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    shape = (1, 32, 32, 3) if LAYOUTS[name] == "NHWC" else (1, 3, 32, 32)
    for entry in read_manifest(exported).artifacts:
        if entry.format != name:
            continue
        (image,), (told,) = entry.inputs, entry.outputs
        assert (image.dtype, image.shape) == ("uint8", shape)
        assert (entry.preprocessing.dtype, entry.preprocessing.layout) == ("uint8", LAYOUTS[name])
        assert told.name == ("probabilities" if name == "litert" else "logits")
        runner = load_file(name, exported / entry.file)
        given = pixels[None] if LAYOUTS[name] == "NHWC" else pixels.transpose(2, 0, 1)[None]
        raw = runner.run(np.ascontiguousarray(given))[0]
        found = raw if name == "litert" else np.exp(raw) / np.exp(raw).sum()
        np.testing.assert_allclose(found, answer(pixels), atol=1e-5 if entry.precision == "fp32" else 0.02)
        assert json.loads(runner.words["preprocessing"])["dtype"] == "uint8"


@pytest.mark.parametrize("name", FORMATS)
def test_run_tells_a_pictures_class_and_check_finds_the_files_good(exported: Path, name: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "p.png")
    suffix = {"litert": "tflite", "onnx": "onnx", "executorch": "pte"}[name]
    result = call("run", exported / f"tests_models_stem_build_fp32.{suffix}", tmp_path / "p.png", "--json")
    assert result.exit_code == 0, result.output
    expected = answer(pixels)
    first = json.loads(result.stdout)[0]
    assert first["label"] == LABELS[int(expected.argmax())]
    assert first["probability"] == pytest.approx(float(expected.max()), abs=1e-5)


@pytest.mark.parametrize("name", FORMATS)
def test_the_core_reads_a_frame_by_a_files_own_words(exported: Path, name: str) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (32, 32, 3), np.uint8)
    struct = Frame((pixels,), "RGB").to_struct()
    entry = next(e for e in json.loads((exported / "manifest.json").read_text())["artifacts"] if e["format"] == name)
    words = json.dumps({"preprocessing": json.dumps(entry["preprocessing"])}).encode()
    found, error = np.empty_like(pixels), abi.Failure()
    read, pointer = abi.find_function("bve_read_frame_by"), ctypes.byref(struct)
    assert read(words, pointer, found.ctypes.data, found.size, ctypes.byref(error)) == 0, error.text
    assert np.array_equal(found, pixels)  # of the model's own size, a frame is what it sees


def test_check_finds_a_bundle_of_pixels_good(exported: Path) -> None:
    result = call("check", exported, "--model", MODEL, "--json")
    assert result.exit_code == 0, result.output


def test_pixels_lie_as_asked(tmp_path: Path) -> None:
    folder = export(tmp_path / "out", "onnx,executorch", "fp32", "layout=NHWC")
    for entry in read_manifest(folder).artifacts:
        assert entry.inputs[0].shape == (1, 32, 32, 3)
        assert open_entry(folder, entry).image == (1, 32, 32, 3)


def test_a_manifest_that_says_tensor_of_a_file_of_pixels_is_refused(exported: Path, tmp_path: Path) -> None:
    data = json.loads((exported / "manifest.json").read_text())
    (entry,) = (e for e in data["artifacts"] if e["file"].endswith("fp32.onnx"))
    entry["inputs"][0]["dtype"] = entry["preprocessing"]["dtype"] = "float32"
    data.pop("sha256")
    data["artifacts"] = [entry]
    (tmp_path / "manifest.json").write_text(json.dumps(data))
    (tmp_path / entry["file"]).write_bytes((exported / entry["file"]).read_bytes())
    Image.new("RGB", (32, 32)).save(tmp_path / "p.png")
    result = call("run", tmp_path / entry["file"], tmp_path / "p.png")
    assert result.exit_code == 2
    assert "takes an image uint8 [1, 3, 32, 32], where its manifest says float32" in result.stderr


def test_a_file_that_our_core_runs_takes_pixels(tmp_path: Path) -> None:
    words = ["--set", "precisions=fp32", "--set", "limits.images=8", "-o", tmp_path / "out"]
    result = call("export", "vit_demo", "--target", "android-native", *words)
    assert result.exit_code == 0, result.output
    pixels = np.random.default_rng(2).integers(0, 256, (1, 64, 64, 3), np.uint8)
    model = load("vit_demo")
    with torch.no_grad():
        expected = model.module(torch.from_numpy(make_input(pixels, model.preprocessing))).numpy()
    entries = read_manifest(tmp_path / "out").artifacts
    assert {entry.format: entry.inputs[0].shape for entry in entries} == {
        "litert": (1, 64, 64, 3), "executorch": (1, 3, 64, 64)
    }  # fmt: skip
    for entry in entries:
        (method,) = entry.methods
        assert (entry.inputs[0].dtype, method.delegates, method.leftovers) == ("uint8", 1, ())
        found = open_entry(tmp_path / "out", entry)(make_input(pixels, entry.preprocessing))
        np.testing.assert_allclose(found, expected, atol=1e-3, rtol=1e-4)


def test_a_core_ml_package_is_a_classifier_of_pictures(tmp_path: Path) -> None:
    """With a convolution that has zeros around it, before which normalisation stays."""
    folder = export(tmp_path / "out", "coreml", "fp16")
    (entry,) = read_manifest(folder).artifacts
    assert (entry.inputs[0].dtype, entry.inputs[0].shape) == ("uint8", (1, 32, 32, 3))
    assert entry.outputs[0].name == "classLabel_probs"
    assert entry.methods[0].parity is not None
    assert entry.methods[0].parity.cosine_min > 0.999
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    np.testing.assert_allclose(open_entry(folder, entry).run(pixels[None])[0], answer(pixels), atol=2e-3)
    result = call("check", folder, "--model", MODEL)
    assert result.exit_code == 0, result.output


SHARES = {"softmax": nn.Softmax(-1), "sigmoid": nn.Sigmoid()}


def build_shares(name: str) -> nn.Module:
    """The small model, whose answers are shares already."""
    inside = build()
    model = nn.Sequential(inside, SHARES[name])
    for word in ("image_size", "labels", "mean", "std"):
        setattr(model, word, getattr(inside, word))
    return model


def build_softmax() -> nn.Module:
    return build_shares("softmax")


def build_sigmoid() -> nn.Module:
    return build_shares("sigmoid")


def test_a_model_that_ends_with_a_softmax_gets_no_second_one(tmp_path: Path) -> None:
    words = ["--set", "formats=litert,coreml", "--set", "precisions=fp32", "--set", "limits.images=8"]
    made = call("export", "tests.test_pixels:build_softmax", "--input", "image", "--target", "host", "--allow-fallback",
                *words, "-o", tmp_path / "out")  # fmt: skip
    assert made.exit_code == 0, made.output
    assert "have a softmax behind them" not in made.output
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    for entry in read_manifest(tmp_path / "out").artifacts:
        assert entry.outputs[0].name in ("probabilities", "classLabel_probs")
        found = open_entry(tmp_path / "out", entry).run(pixels[None])[0]
        np.testing.assert_allclose(found, answer(pixels), atol=1e-5)


def test_a_softmax_behind_a_sigmoid_is_told(tmp_path: Path) -> None:
    words = ["--set", "formats=litert", "--set", "precisions=fp32", "--set", "limits.images=8"]
    made = call("export", "tests.test_pixels:build_sigmoid", "--input", "image", "--target", "host", *words,
                "-o", tmp_path / "out")  # fmt: skip
    assert made.exit_code == 0, made.output
    assert "files of litert have a softmax behind them" in " ".join(made.output.split())


class Cut(nn.Module):
    """A convolution without zeros around the image, whose logits are `gain` times as large."""

    def __init__(self, gain: float, classes: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        stem = [nn.Conv2d(3, 16, 3, 2), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
        self.layers, self.gain = nn.Sequential(*stem, nn.Flatten(), nn.Linear(16, classes)), gain
        self.image_size, self.mean, self.std = 32, (0.5,) * 3, (0.5,) * 3

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x) * self.gain  # type: ignore[no-any-return]


def build_cut() -> nn.Module:
    return Cut(1)


def build_far() -> nn.Module:
    return Cut(3000)


def build_near() -> nn.Module:
    return Cut(1e-14)


def build_single() -> nn.Module:
    return Cut(1, classes=1)


def export_cut(name: str, folder: Path, formats: str, precision: str) -> Result:
    words = [f"formats={formats}", f"precisions={precision}", "limits.images=16", "deployment=iOS17"]
    settings = [word for setting in words for word in ("--set", setting)]
    model = f"tests.test_pixels:{name}"
    return call("export", model, "--input", "image", "--target", "host", "--allow-fallback", *settings, "-o", folder)


def test_a_convolution_in_int8_reads_the_pixels_themselves(tmp_path: Path) -> None:
    made = export_cut("build_cut", tmp_path / "out", "litert,onnx,executorch", "int8")
    assert made.exit_code == 0, made.output
    for entry in read_manifest(tmp_path / "out").artifacts:
        assert entry.layers["layers.0"] == "int8"
        assert entry.methods[0].parity.centred_cosine > 0.98, entry.file
    content = (tmp_path / "out" / "tests_test_pixels_build_cut_int8.tflite").read_bytes()
    scales = [tensor.quantization.scale for tensor in read_model(content).subgraphs[0].tensors if tensor.quantization]
    assert any(scale is not None and list(scale) == [1.0] for scale in scales)  # a step a level


@pytest.mark.parametrize("name", ["build_far", "build_near"])
def test_logits_are_compared_in_front_of_the_softmax(name: str, tmp_path: Path) -> None:
    made = export_cut(name, tmp_path / "out", "litert,coreml", "fp32")
    assert made.exit_code == 0, made.output
    for entry in read_manifest(tmp_path / "out").artifacts:
        assert entry.methods[0].parity.centred_cosine > 0.9999


def test_a_single_class_has_no_softmax(tmp_path: Path) -> None:
    made = export_cut("build_single", tmp_path / "out", "litert", "fp32")
    assert made.exit_code == 0, made.output
    (entry,) = read_manifest(tmp_path / "out").artifacts
    assert entry.outputs[0].name == "logits"
    refused = export_cut("build_single", tmp_path / "no", "coreml", "fp32")
    assert refused.exit_code == 2
    assert "a model of one class" in refused.stderr
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("suffix", ["tflite", "onnx"])
def test_a_file_of_pixels_is_profiled(exported: Path, suffix: str) -> None:
    result = call("profile", exported / f"tests_models_stem_build_fp32.{suffix}", "--runs", 3)
    assert result.exit_code == 0, result.output
    assert "image: noise" in result.output
