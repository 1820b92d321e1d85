"""Whole models in the native core, on this machine and on each ARM CPU, against PyTorch."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from bigvit_edge.artifact import Array
from bigvit_edge.export.convert import Subject, convert_model
from bigvit_edge.export.parity import compare
from bigvit_edge.export.references import draw_calibration, make_references
from bigvit_edge.models.load import load
from bigvit_edge.target import load_target, override
from tests.native import CPUS, HOST
from tests.runtime.test_main_serve import speak

MODEL, KEEPS, IMAGES = "blvit_demo", (1.0, 0.5), 4
LEAST = {"fp32": 1 - 1e-7, "fp16": 0.9999, "int8": 0.998}  # smallest cosine; no router flips on these images


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bve")
    model = load(MODEL)
    subject = Subject(model.module, model.image_size, KEEPS, draw_calibration(model)[:32], True, {})
    target = override(load_target("host"), ["formats=bve", "precisions=fp32,fp16,int8"])
    for artifact, _ in convert_model(subject, target):
        assert isinstance(artifact.data, bytes)
        (folder / f"{artifact.precision}.bve").write_bytes(artifact.data)
    return folder


@cache
def answer(keep: float) -> tuple[Array, Array]:
    """Images and PyTorch's logits."""
    reference = make_references(load(MODEL), (keep,), IMAGES)[keep]
    return reference.images, reference.logits


@pytest.mark.parametrize("precision", LEAST)
@pytest.mark.parametrize("machine", [HOST, *CPUS])
def test_models_say_what_pytorch_says(machine: str, precision: str, files: Path, tmp_path: Path) -> None:
    for keep in KEEPS:
        images, logits = answer(keep)
        given, told = tmp_path / "images.f32", tmp_path / "logits.f32"
        given.write_bytes(np.ascontiguousarray(images).tobytes())
        lines = f"answer {given} {told}\n"  # of all in one process: qemu translates the program once
        speak(lines, "serve", files / f"{precision}.bve", f"--keep={keep:g}", machine=machine)
        parity = compare(np.fromfile(told, "<f4").reshape(logits.shape), logits)
        assert parity.cosine_min > LEAST[precision], (keep, parity)
        assert parity.top1_agreement == 1
        assert parity.max_abs < 1e-4 if precision == "fp32" else parity.max_abs > 1e-4
