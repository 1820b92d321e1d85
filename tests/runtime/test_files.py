"""Files of every version of the format that was ever written: each opens, and answers as it did when it was made."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from bigvit_edge.artifact import Array
from bigvit_edge.export.program import from_bytes
from bigvit_edge.runtime import Session

FOLDER = Path(__file__).parent / "files"
FILES = sorted(FOLDER.glob("*.bve"))
TOLERANCES = {
    "fp32": 1e-5,
    "fp16": 1e-3,
    "int8": 2e-2,
}  # logits are below 1; other CPUs sum in another order


@cache
def read_answers(version: str) -> dict[str, Array]:
    with np.load(FOLDER / f"{version}_answers.npz") as answers:
        return dict(answers)


def test_there_is_a_file_of_each_model_and_precision() -> None:
    kinds = {f"{model}_{kind}" for model in ("vit", "blvit") for kind in ("fp32", "fp16", "int8_dot", "int8_i8mm")}
    assert {path.stem.partition("_")[2] for path in FILES if path.stem.startswith("version1")} == kinds


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_answers_as_it_did(path: Path) -> None:
    version, _, kind = path.stem.partition("_")
    answers = read_answers(version)
    names = [name for name in answers if name.startswith(path.stem)]
    assert len(names) == (2 if kind.startswith("blvit") else 1)
    for name in names:
        keep = name.removeprefix(path.stem).removeprefix("_").replace("_", ".")
        with Session(path, keep=float(keep) if keep else None) as session:
            session.verify()
            answer = session.run(answers["image"])
        assert np.abs(answer - answers[name]).max() < TOLERANCES[kind.split("_")[1]]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_is_read_by_python_too(path: Path) -> None:
    program = from_bytes(path.read_bytes())
    assert program.precision == path.stem.split("_")[2]
    assert [entry.keep for entry in program.entries] == ([1.0, 0.5] if "blvit" in path.stem else [None])
