"""One program, every door to it: bve-run, Session, ExecuTorch and LiteRT give the same bits from the same bytes."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("executorch")
pytest.importorskip("ai_edge_litert")

from bigvit_edge.artifact import Array, Artifact
from bigvit_edge.export.convert import Subject, convert_model
from bigvit_edge.export.references import draw_calibration
from bigvit_edge.models.load import load
from bigvit_edge.runtime import Session, executorch, litert
from bigvit_edge.target import load_target, override
from tests.native import run_program

KEEPS: Mapping[str, tuple[float | None, ...]] = {"blvit_demo": (1.0, 0.5, 0.25), "vit_demo": (None,)}
SETTINGS = ["backend=native", "formats=bve,executorch,litert", "precisions=fp32,fp16,int8"]
SUFFIXES = {"bve": ".bve", "executorch": ".pte", "litert": ".tflite"}
PRECISIONS = ("fp32", "fp16", "int8")
Files = dict[tuple[str, str], Path]  # of a format and a precision


@pytest.fixture(scope="module", params=KEEPS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Files]:
    folder, model = tmp_path_factory.mktemp("doors"), load(request.param)
    subject = Subject(model.module, model.image_size, KEEPS[request.param], draw_calibration(model)[:32], True, {})
    return request.param, {
        (artifact.format, artifact.precision): write(artifact, folder)
        for artifact, _ in convert_model(subject, override(load_target("android"), SETTINGS))
    }


def write(artifact: Artifact, folder: Path) -> Path:
    assert isinstance(artifact.data, bytes)
    path = folder / f"{artifact.precision}{SUFFIXES[artifact.format]}"
    path.write_bytes(artifact.data)
    return path


def run_alone(path: Path, keep: float | None, image: Array) -> Array:
    """bve-run's answer."""
    raw = path.with_suffix(".f32")
    raw.write_bytes(image.tobytes())
    arguments = ["--input", raw] if keep is None else ["--keep", f"{keep:g}", "--input", raw]
    run = run_program("bve-run", "run", path, *arguments)
    assert run.returncode == 0, run.stderr
    return np.array([json.loads(run.stdout)["logits"]], np.float32)


DOORS: dict[str, Callable[[Files, str, float | None, Array], Array]] = {
    "bve-run": lambda files, precision, keep, image: run_alone(files["bve", precision], keep, image),
    "executorch": lambda files, precision, keep, image: executorch.load(files["executorch", precision], keep=keep).run(
        image
    ),
    "litert": lambda files, precision, keep, image: litert.load(files["litert", precision], keep=keep).run(image),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_door_gives_the_bits_of_session(precision: str, door: str, exported: tuple[str, Files]) -> None:
    name, files = exported
    answers = []
    for keep in KEEPS[name]:
        session = Session(files["bve", precision], keep=keep)
        image = np.random.default_rng(0).standard_normal(session.shape, dtype=np.float32)
        answers.append(session.run(image))
        assert np.array_equal(DOORS[door](files, precision, keep, image), answers[-1])
    assert len({answer.tobytes() for answer in answers}) == len(answers)  # each ratio answers otherwise


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_file_has_the_same_program_once(precision: str, exported: tuple[str, Files]) -> None:
    _, files = exported
    program = files["bve", precision].read_bytes()
    for name in ("executorch", "litert"):
        data = files[name, precision].read_bytes()
        assert data.count(program) == 1, name
        assert data.index(program) % 64 == 0, name
        assert len(data) - len(program) < 16 * 1024, name
