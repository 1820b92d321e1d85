"""A bundle is written whole or not at all, and a name or answer that no bundle can hold is refused."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch import nn

from bigvit_edge.artifact import Parity
from bigvit_edge.errors import LimitError, UserError
from bigvit_edge.export import bundle
from bigvit_edge.export.bundle import Source, export_bundle
from bigvit_edge.export.check import check_bundle
from bigvit_edge.report import explain_bundle
from bigvit_edge.runtime.mil.ops import OPS
from bigvit_edge.target import FULL, Limits, load_target
from tests.export.convolutional import Hybrid
from tests.test_artifact import ENTRY, MANIFEST

HOST = replace(load_target("host"), formats=("bve",), precisions=("fp32",))


def test_the_output_is_judged_before_the_model_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object, **__: object) -> None:
        raise AssertionError("the user's code was run")

    monkeypatch.setattr(bundle, "load", load)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/notes.txt").write_text("mine")
    for path in ("out", "out/notes.txt/x", "x" * 256):
        with pytest.raises(UserError, match="choose another -o"):
            export_bundle(Source("vit_demo"), HOST, tmp_path / path, force=True)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["notes.txt", "out"]


def test_a_model_after_which_no_file_can_be_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="of 222 bytes; expected a name of at most 200"):
        export_bundle(Source("\u00e9" * 110 + ":x"), HOST, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_limit_lets_an_answer_pass_that_is_not_finite() -> None:
    nothing = Limits(**dict.fromkeys(("fp32_cosine", "int8_cosine", "cosine_min", "top1_agreement"), 0.0))
    (method,) = ENTRY.methods
    entry = replace(ENTRY, methods=(replace(method, parity=Parity(float("inf"), 0.0, 0.0, 0.0, 4)),))
    with pytest.raises(LimitError, match=r"m_int8.tflite, serving_default: answers that are not finite"):
        bundle._enforce(replace(MANIFEST, limits=nothing, artifacts=(entry,)), allow_fallback=True)


FACTORY = """
import torch
from torch import nn

class Model(nn.Module):
    image_size, mean, std = 16, (0.5,) * 3, (0.5,) * 3

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.act, self.head = nn.Conv2d(3, 8, 4, 4), nn.Hardswish(), nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.act(self.stem(x)).mean((2, 3)))

def build():
    return Model()
"""


def test_a_file_that_cannot_be_checked_is_kept_only_if_asked_and_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hard.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(tmp_path)
    target = replace(load_target("host"), formats=("coreml",), precisions=("fp16",))
    with monkeypatch.context() as without:
        without.delitem(OPS, "thresholded_relu")  # as of a newer coremltools, which has an op that is not known here
        with pytest.raises(UserError, match=r"hard_build_fp16.*op thresholded_relu in layer act: .*--unchecked"):
            export_bundle(Source("hard:build"), target, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        manifest, model = export_bundle(Source("hard:build"), target, tmp_path / "out", unchecked=True)
        (entry,) = manifest.artifacts
        assert "thresholded_relu in layer act" in entry.unchecked
        assert [method.parity for method in entry.methods] == [None]
        assert any("unchecked" in line for line in explain_bundle(manifest, model, {}, tmp_path))
        (checked,) = check_bundle(tmp_path / "out", model="hard:build")
        assert (checked.faults, checked.parity) == ((), None)
        assert "unchecked" in checked.notes[0]
    (checked,) = check_bundle(tmp_path / "out", model="hard:build")  # where the op is known, it is compared
    assert checked.faults == ()
    assert checked.parity is not None
    assert checked.parity.cosine_min > 0.999


def test_no_manifest_says_of_a_file_that_can_be_checked_that_it_is_unchecked() -> None:
    methods = tuple(replace(method, parity=None) for method in ENTRY.methods)
    with pytest.raises(ValueError, match="its runtime can check it"):
        replace(ENTRY, methods=methods, unchecked="no reason", evaluated=False)
    with pytest.raises(ValueError, match="or neither"):
        replace(ENTRY, methods=methods)


@pytest.mark.parametrize(
    ("module", "precision", "formats", "calibrates"),
    [
        (Hybrid(), "int8", ("onnx",), True),
        (Hybrid(), "fp16", ("onnx",), False),
        (Hybrid(), FULL, ("litert",), True),
        (nn.Conv2d(3, 4, 4, 4), "int8", ("onnx",), False),  # patches, which are no convolution
        (nn.Conv2d(3, 4, 4, 4), FULL, ("onnx",), True),
        (nn.Conv2d(3, 4, 4, 4), "int8-static", ("onnx",), True),
    ],
)
def test_pictures_to_calibrate_on_are_for_files_that_do(
    module: nn.Module, precision: str, formats: tuple[str, ...], calibrates: bool, tmp_path: Path
) -> None:
    model = SimpleNamespace(module=module.eval(), image_size=16)
    target = replace(HOST, formats=formats, precisions=(precision,))
    assert bundle._check_calibration(model, target, Source("m")) is calibrates
    if calibrates:
        assert bundle._check_calibration(model, target, Source("m", calibration=tmp_path))
    else:
        with pytest.raises(UserError, match=f"for {precision}; expected int8-static.*for a model with convolutions"):
            bundle._check_calibration(model, target, Source("m", calibration=tmp_path))
