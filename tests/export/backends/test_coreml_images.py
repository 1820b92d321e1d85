"""Core ML packages that take pictures and answer with labels, on tiny models: what is saved, and that it is right."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bigvit_edge.artifact import Array, Artifact, write_data
from bigvit_edge.export.backends import coreml
from bigvit_edge.export.backends.coreml.interface import check_interface
from bigvit_edge.export.graph import Graph
from bigvit_edge.runtime import mil
from bigvit_edge.target import Target
from tests.export.backends.test_coreml import MODEL, build, capture, linears, read_spec

LABELS = ('"quoted" ü', "line\nbreak", "", "😀", "é", "e", "/", "0", "a b", "x" * 500)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HOW = {"crop": "largest centre square", "resize": "bilinear, antialiased", "dtype": "uint8"}
PIXELS = {"preprocessing": json.dumps(HOW)}
METADATA = {
    "model": "tiny", "labels": json.dumps(LABELS), "preprocessing": json.dumps(HOW), "author": "Ada", "license": "MIT",
}  # fmt: skip


def aim(deployment: str = "iOS18") -> Target:
    return Target("test", "", ("coreml",), deployment=deployment, input="image")


class OfPixels(nn.Module):
    """A model that is given pixels, 0..255."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
        return cast(Tensor, self.model((pixels / 255 - mean) / std))


def draw(count: int = 6) -> Any:
    return np.random.default_rng(1).integers(0, 256, (count, 1, 32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def case() -> Any:
    model = OfPixels(build(0.5)).eval()
    return SimpleNamespace(model=model, exported=capture(model))


def expect(model: nn.Module) -> Array:
    """Logits of PyTorch [count, classes] for the pictures of draw()."""
    with torch.no_grad():
        images = torch.from_numpy(draw()[:, 0]).permute(0, 3, 1, 2).float()
        return torch.cat([model(image[None]) for image in images]).numpy()


def answer(artifact: Artifact, folder: Path, method: str | None = None) -> Array:
    path = folder / "model.mlpackage"
    write_data(artifact.data, path)
    run = coreml.load(path, method=method)
    assert (run.image, run.logits) == ((1, 32, 32, 3), (1, 10))
    return np.concatenate([run.run(image) for image in draw()])


def softmax(logits: Array) -> Array:
    return torch.from_numpy(logits).softmax(-1).numpy()


def centre(logits: Array) -> Array:
    return logits - logits.mean(1, keepdims=True)


CELLS = [
    ("fp32", "iOS16", 1e-5), ("fp16", "iOS16", 5e-3), ("fp16", "iOS18", 5e-3), ("int8", "iOS16", 3e-2),
    ("int8", "iOS18", 3e-2), ("int4", "iOS16", 0.5), ("int4", "iOS18", 0.3),
]  # fmt: skip


@pytest.mark.parametrize(("precision", "deployment", "most"), CELLS)
def test_probabilities_are_the_softmax_of_pytorch(
    case: Any, precision: str, deployment: str, most: float, tmp_path: Path
) -> None:
    layers = dict.fromkeys(linears(case.model), precision) if precision.startswith("int") else {}
    artifact = coreml.lower([Graph(case.exported, precision, layers, group=16)], aim(deployment), METADATA)
    got, logits = answer(artifact, tmp_path), expect(case.model)
    assert np.abs(got.sum(1) - 1).max() < 1e-5
    assert np.abs(centre(np.log(got)) - centre(logits)).max() < most
    assert np.abs(got - softmax(logits)).max() < most


def test_small_probabilities_are_kept_in_half(tmp_path: Path) -> None:
    """exp(-40), which no half is."""

    class Steep(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            return pixels.mean((2, 3)) * torch.tensor([0.5, 0.25, 0.125])

    exported = capture(Steep())
    artifact = coreml.lower([Graph(exported, "fp16")], aim(), PIXELS)
    write_data(artifact.data, tmp_path / "steep.mlpackage")
    ((a, b, c),) = coreml.load(tmp_path / "steep.mlpackage").run(np.full((1, 32, 32, 3), 160, np.uint8))
    assert a == 1
    assert np.allclose(np.log([b, c]), [-40, -60], atol=0.1)


def list_values(artifact: Artifact, kind: str) -> list[Any]:
    return [op for op in mil.list_ops(cast(dict[str, bytes], artifact.data), "test") if op.type == kind]


def test_only_the_last_softmax_is_in_float32(case: Any) -> None:
    found = list_values(coreml.lower([Graph(case.exported, "fp16")], aim(), METADATA), "softmax")
    assert [next(iter(op.outputs.values())).dtype for op in found] == ["fp16"] * (len(found) - 1) + ["fp32"]
    assert len(found) > 1


def test_what_xcode_and_vision_read(case: Any, tmp_path: Path) -> None:
    spec = read_spec(coreml.lower([Graph(case.exported, "fp16")], aim("iOS16"), METADATA), tmp_path)
    told = spec.description
    ((image,), (label, probabilities)) = told.input, told.output
    assert (image.type.imageType.width, image.type.imageType.height) == (32, 32)
    assert image.type.imageType.colorSpace == coreml.ct.proto.FeatureTypes_pb2.ImageFeatureType.RGB
    assert (told.predictedFeatureName, told.predictedProbabilitiesName) == ("classLabel", "classLabel_probs")
    assert (label.name, label.type.WhichOneof("Type")) == ("classLabel", "stringType")
    assert (probabilities.name, probabilities.type.WhichOneof("Type")) == ("classLabel_probs", "dictionaryType")
    assert "largest centre square" in image.shortDescription
    assert label.shortDescription
    assert (told.metadata.author, told.metadata.license, told.metadata.versionString) == ("Ada", "MIT", "")
    assert told.metadata.shortDescription == "tiny, an image classifier, exported by bigvit-edge"
    assert told.metadata.userDefined["com.apple.coreml.model.preview.type"] == "imageClassifier"
    assert METADATA.items() <= dict(told.metadata.userDefined).items()


@pytest.fixture(scope="module")
def several(case: Any) -> Any:
    graphs = []
    for keep in (0.25, 1.0):
        case.model.model.keep = keep
        graphs.append(Graph(capture(case.model), "fp16", keep=keep))
    case.model.model.keep = 0.5
    return SimpleNamespace(graphs=graphs, artifact=coreml.lower(graphs, aim(), METADATA))


def test_every_function_is_a_classifier(case: Any, several: Any, tmp_path: Path) -> None:
    told = read_spec(several.artifact, tmp_path).description
    assert [function.name for function in told.functions] == ["keep_0_25", "keep_1"]
    for function, keep in zip(told.functions, (0.25, 1.0), strict=True):
        assert (function.predictedFeatureName, function.predictedProbabilitiesName) == (
            "classLabel",
            "classLabel_probs",
        )
        assert function.input[0].type.imageType.width == 32
        assert function.input[0].shortDescription
        case.model.model.keep = keep
        got = answer(several.artifact, tmp_path, function.name)
        assert np.abs(got - softmax(expect(case.model))).max() < 1e-3
    case.model.model.keep = 0.5
    assert told.metadata.author == "Ada"


# ---- labels ----------------------------------------------------------------------------------------------------------


def test_the_label_is_that_of_the_largest_logit(case: Any) -> None:
    """Labels of every kind, and as they were told."""
    files = cast(dict[str, bytes], coreml.lower([Graph(case.exported, "fp32")], aim(), METADATA).data)
    run = mil.open_function(mil.read_function(files, "test"), "test")
    for image, logits in zip(draw(), expect(case.model), strict=True):
        answers = run({"image": torch.from_numpy(image).permute(0, 3, 1, 2).float()})
        assert answers["classLabel"] == LABELS[int(logits.argmax())]
        assert isinstance(answers["classLabel_probs"], dict)
        assert tuple(answers["classLabel_probs"]) == LABELS


def test_classes_without_labels_are_numbers(case: Any, tmp_path: Path) -> None:
    artifact = coreml.lower([Graph(case.exported, "fp32")], aim(), {"labels": "null", **PIXELS})
    (op,) = list_values(artifact, "classify")
    assert op.inputs["classes"] == (tuple("0123456789"),)
    assert np.abs(answer(artifact, tmp_path) - softmax(expect(case.model))).max() < 1e-5


# ---- the proof -------------------------------------------------------------------------------------------------------


def set_color(told: Any) -> None:
    told.input[0].type.imageType.colorSpace = coreml.ct.proto.FeatureTypes_pb2.ImageFeatureType.BGR


def set_author(told: Any) -> None:
    told.metadata.author = "Bob"


def set_word(told: Any) -> None:
    told.metadata.userDefined["com.apple.coreml.model.preview.type"] = "imageSegmenter"


def set_text(told: Any) -> None:
    told.output[1].shortDescription = ""


FAULTS: list[tuple[Callable[[Any], None], str]] = [
    (set_color, "type of image 'picture BGR 32 x 32', not 'picture RGB 32 x 32'"),
    (set_author, "author 'Bob', not 'Ada'"),
    (set_word, "word com.apple.coreml.model.preview.type 'imageSegmenter', not 'imageClassifier'"),
    (set_text, "description of classLabel_probs '', not 'The prob"),
]


@pytest.mark.parametrize(("change", "said"), FAULTS)
def test_a_package_that_says_otherwise_is_a_bug(case: Any, change: Callable[[Any], None], said: str) -> None:
    files = cast(dict[str, bytes], coreml.lower([Graph(case.exported, "fp16")], aim(), METADATA).data)
    check_interface(files, "main", case.exported, LABELS, METADATA)
    model = mil.package.Model_pb2.Model.FromString(files[MODEL])
    change(model.description)
    spoilt = {**files, MODEL: model.SerializeToString()}
    with pytest.raises(RuntimeError, match=f"main was saved with {said}.*please report"):
        check_interface(spoilt, "main", case.exported, LABELS, METADATA)


def test_other_classes_are_a_bug(case: Any) -> None:
    files = cast(dict[str, bytes], coreml.lower([Graph(case.exported, "fp16")], aim(), METADATA).data)
    with pytest.raises(RuntimeError, match=r"main was saved with classes \('\"quoted\" ü', .*, not \('b', 'a'\)"):
        check_interface(files, "main", case.exported, ("b", "a"), METADATA)
    with pytest.raises(RuntimeError, match="type of image 'picture RGB 32 x 32', not 'float32"):
        check_interface(files, "main", case.exported, None, METADATA)
