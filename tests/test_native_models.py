"""Whole models in the native core, on this machine and on each ARM CPU, against PyTorch."""

import json
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
from tests.native import CPUS, HOST, run_program

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
        found = []
        for image in images:
            raw = tmp_path / "image.f32"
            raw.write_bytes(image.tobytes())
            arguments = ("run", files / f"{precision}.bve", "--keep", f"{keep:g}", "--input", raw)
            run = run_program("bve-run", *arguments, machine=machine)
            assert run.returncode == 0, run.stderr
            found.append(json.loads(run.stdout)["logits"])
        parity = compare(np.array(found, np.float32), logits)
        assert parity.cosine_min > LEAST[precision], (keep, parity)
        assert parity.top1_agreement == 1
        assert parity.max_abs < 1e-4 if precision == "fp32" else parity.max_abs > 1e-4
