"""Our evaluator of packages that take pictures and answer with labels, as coremltools saves them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bigvit_edge.console import silenced
from bigvit_edge.errors import UserError
from bigvit_edge.runtime import mil
from bigvit_edge.runtime.mil.package import Model_pb2, read_folder, read_function

with silenced():
    import coremltools as ct

MODEL = "Data/com.apple.CoreML/model.mlmodel"
LABELS = ("a", "b", "c", "d")
Files = dict[str, bytes]
PIXELS = np.random.default_rng(0).integers(0, 256, (1, 6, 6, 3), np.uint8)


class Net(nn.Module):
    """Each channel counts otherwise, and so does each place."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, (6, 6))

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.softmax(self.conv(pixels / 255).flatten(1), -1)


def save(color: str, folder: Path) -> Files:
    with silenced(), torch.no_grad():
        program = torch.export.export(Net().eval(), (torch.zeros(1, 3, 6, 6),)).run_decompositions({})
        ct.convert(
            program,
            inputs=[ct.ImageType(name="image", shape=(1, 3, 6, 6), color_layout=color)],
            classifier_config=ct.ClassifierConfig(list(LABELS)),
            convert_to="mlprogram",
            minimum_deployment_target=ct.target.iOS16,
            compute_precision=ct.precision.FLOAT32,
            skip_model_load=True,
        ).save(str(folder / f"{color}.mlpackage"))
    return read_folder(folder / f"{color}.mlpackage")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return save("RGB", tmp_path_factory.mktemp("pictures"))


def expect(pixels: Any) -> Any:
    with torch.no_grad():
        return Net()(torch.from_numpy(pixels).permute(0, 3, 1, 2).float()).numpy()


def test_pixels_are_given_to_the_program_as_coremltools_wants_them(saved: Files, tmp_path: Path) -> None:
    """In BGR, the program's first channel is blue (coremltools: ColorLayout)."""
    assert np.allclose(mil.load_files(saved, "net").run(PIXELS), expect(PIXELS), atol=1e-6)
    swapped = mil.load_files(save("BGR", tmp_path), "net").run(PIXELS)
    assert np.allclose(swapped, expect(PIXELS[..., ::-1].copy()), atol=1e-6)
    assert not np.allclose(swapped, expect(PIXELS), atol=1e-3)


def test_what_the_package_takes_and_answers(saved: Files) -> None:
    function = read_function(saved, "net")
    assert dict(function.pictures) == {"image": mil.Picture("RGB", 6, 6)}
    assert (function.classes, function.outputs) == (LABELS, ("classLabel", "classLabel_probs"))
    runner = mil.load_files(saved, "net")
    assert (runner.image, runner.logits) == ((1, 6, 6, 3), (1, 4))
    answers = mil.open_function(function, "net")({"image": torch.from_numpy(PIXELS).permute(0, 3, 1, 2).float()})
    ((label, by_label), (expected,)) = answers.values(), expect(PIXELS)
    assert label == LABELS[int(expected.argmax())]
    assert isinstance(by_label, dict)
    assert np.allclose([by_label[name] for name in LABELS], expected, atol=1e-6)


def test_what_is_no_picture_of_that_size_is_refused(saved: Files) -> None:
    run = mil.load_files(saved, "net").run
    with pytest.raises(UserError, match=r"net: an image of shape \(1, 3, 6, 6\); expected one of shape \(1, 6, 6, 3\)"):
        run(PIXELS.transpose(0, 3, 1, 2))
    with pytest.raises(UserError, match="net: an image of float32; expected uint8, its pixels"):
        run(PIXELS.astype(np.float32))


def set_width(model: Any) -> None:
    model.description.input[0].type.imageType.width = 8


def set_gray(model: Any) -> None:
    model.description.input[0].type.imageType.colorSpace = ct.proto.FeatureTypes_pb2.ImageFeatureType.GRAYSCALE


def set_range(model: Any) -> None:
    model.description.input[0].type.imageType.imageSizeRange.widthRange.lowerBound = 1


def set_predicted(model: Any) -> None:
    model.description.predictedFeatureName = "label"


def _find_classify(model: Any) -> Any:
    (function,) = model.mlProgram.functions.values()
    return next(op for op in function.block_specializations[function.opset].operations if op.type == "classify")


def set_label_twice(model: Any) -> None:
    values = _find_classify(model).inputs["classes"].arguments[0].value.immediateValue.list.values
    values[1].immediateValue.tensor.strings.values[0] = "a"


def drop_label(model: Any) -> None:
    del _find_classify(model).inputs["classes"].arguments[0].value.immediateValue.list.values[3]


def swap_outputs(model: Any) -> None:
    first, second = _find_classify(model).outputs
    first.type.CopyFrom(second.type)


FAULTS: list[tuple[Callable[[Any], None], str]] = [
    (set_width, "input image takes pictures of 8 x 6 pixels"),
    (set_gray, "pictures without colour, or of several sizes"),
    (set_range, "pictures without colour, or of several sizes"),
    (set_predicted, "outputs classLabel, classLabel_probs, where label and classLabel_probs are described"),
    (set_label_twice, r"op classify \(classLabel\) cannot run: 3 different labels for 4 classes"),
    (drop_label, r"op classify \(classLabel\) cannot run: 3 different labels for 4 classes"),
    (swap_outputs, r"op classify \(classLabel\) cannot run: classLabel is a str, declared as dictionary"),
]


@pytest.mark.parametrize(("change", "said"), FAULTS)
def test_a_spoilt_package_is_a_user_error(saved: Files, change: Callable[[Any], None], said: str) -> None:
    model = Model_pb2.Model.FromString(saved[MODEL])
    change(model)
    with pytest.raises(UserError, match=f"net: .*{said}"):
        mil.load_files({**saved, MODEL: model.SerializeToString()}, "net").run(PIXELS)


def test_damaged_bytes_never_end_in_a_traceback(saved: Files) -> None:
    generator = np.random.default_rng(0)
    for _ in range(150):
        content = bytearray(saved[MODEL])
        content[generator.integers(len(content))] = generator.integers(256)
        try:
            mil.load_files({**saved, MODEL: bytes(content)}, "net").run(PIXELS)
        except UserError as e:
            assert "net" in str(e)  # noqa: PT017  an undamaged answer is right too: not every byte matters
