"""The demo's .onnx in transformers.js and transformers, by docs/libraries.md's samples as they are written there."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bigvit_edge.artifact import Array
from bigvit_edge.demo.digits import held_out
from bigvit_edge.export.bundle import Source, export_bundle
from bigvit_edge.manifest import list_changes, read_manifest
from bigvit_edge.models.hf_models import import_transformers
from bigvit_edge.models.load import load
from bigvit_edge.target import Limits, load_target
from tests.onnx_libraries import ask_pipeline, fill_in, read_sample, run_node, write_script

COUNT = 40
WEB = replace(load_target("web"), limits=Limits(images=4))
LABELS = [str(digit) for digit in range(10)]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the page has it: dist/tensor and dist/web."""
    folder = tmp_path_factory.mktemp("dist")
    export_bundle(Source("blvit_demo"), replace(WEB, input="tensor"), folder / "tensor")
    export_bundle(Source("blvit_demo"), WEB, folder / "web")
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Held-out ones of the model's own size, where nothing is resized."""
    folder = tmp_path_factory.mktemp("pictures")
    images = (held_out().images[:COUNT] * 255).round().byte().permute(0, 2, 3, 1).numpy()
    paths = [folder / f"{number}.png" for number in range(COUNT)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return paths


@pytest.fixture(scope="module")
def expected() -> Array:
    """PyTorch's probabilities [COUNT, 10]."""
    with torch.no_grad():
        answers: Array = load("blvit_demo").module((held_out().images[:COUNT] - 0.5) / 0.5).softmax(1).numpy()
    return answers


def test_the_two_files_are_the_bundles_own(dist: Path) -> None:
    for folder in (dist / "tensor", dist / "web"):
        manifest = read_manifest(folder)
        assert set(manifest.extras) == {"config.json", "preprocessor_config.json"}
        assert list_changes(folder, manifest) == []
        told = json.loads((folder / "preprocessor_config.json").read_text())
        assert told["do_rescale"] is told["do_normalize"] is (folder.name == "tensor")


def order(told: list[dict[str, float]]) -> Array:
    return np.array([[answer[label] for label in LABELS] for answer in told], np.float32)


@pytest.mark.parametrize("bundle", ["tensor", "web"])
def test_the_pipeline_answers_as_pytorch(
    dist: Path, pictures: list[Path], expected: Array, tmp_path: Path, bundle: str
) -> None:
    told = ask_pipeline(dist / bundle / "blvit_demo_fp32.onnx", bundle == "web", pictures, tmp_path)
    assert [next(iter(answer)) for answer in told] == [LABELS[best] for best in expected.argmax(1)]
    np.testing.assert_allclose(order(told), expected, atol=2e-5)


def test_every_file_is_found_by_its_name(dist: Path, pictures: list[Path], expected: Array, tmp_path: Path) -> None:
    scores = order(ask_pipeline(dist / "tensor/blvit_demo_int8.onnx", False, pictures, tmp_path))
    assert (scores.argmax(1) == expected.argmax(1)).mean() >= 0.95
    assert 1e-4 < np.abs(scores - expected).max() < 0.5  # another file, of the same model


def test_config_json_rules_the_ending_of_the_name(
    dist: Path, pictures: list[Path], expected: Array, tmp_path: Path
) -> None:
    """By itself transformers.js adds one of its own: in a browser '_quantized'."""
    shutil.copytree(dist / "tensor", other := tmp_path / "dist/other")
    config = json.loads((other / "config.json").read_text())
    assert config["transformers.js_config"] == {"dtype": "fp32"}
    (other / "config.json").write_text(json.dumps(config | {"transformers.js_config": {"dtype": "int8"}}))
    for name, bundle in (("blvit_demo", other), ("blvit_demo_int8", dist / "tensor")):
        (folder := tmp_path / name).mkdir()
        scores = order(ask_pipeline(bundle / f"{name}.onnx", False, pictures[:3], folder))
        assert 1e-5 < np.abs(scores - expected[:3]).max() < 0.5


def test_pixels_without_their_line_are_refused_not_misread(dist: Path, pictures: list[Path], tmp_path: Path) -> None:
    picture = json.dumps(str(pictures[0]))
    more = f"console.log(await classify({picture}).catch((error) => error.message));"
    assert "expected: (tensor(uint8))" in run_node(
        write_script(dist / "web/blvit_demo_fp32.onnx", False) + more, tmp_path
    )


@pytest.mark.parametrize("bundle", ["tensor", "web"])
def test_the_sample_in_python_finds_the_class(
    dist: Path, pictures: list[Path], expected: Array, bundle: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import_transformers()  # beside PyTorch for CPUs it wants ops of torchvision's, which a user's may bring
    words = {"dist/web": str(dist / bundle), "picture.jpg": str(pictures[0])}
    exec(fill_in(read_sample("AutoImageProcessor"), **words), {})
    assert capsys.readouterr().out.split() == [LABELS[expected[0].argmax()]]
