"""Files of every version of the format that was ever written: each opens, and answers as it did when it was made."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from bigvit_edge.artifact import Array
from bigvit_edge.export.program import Program, from_bytes
from bigvit_edge.runtime import Session

FOLDER = Path(__file__).parent / "files"
FILES = sorted(FOLDER.glob("*.bve"))
TOLERANCES = {
    "fp32": 1e-5,
    "fp16": 1e-3,
    "int8": 2e-2,
}  # logits are about 1 at most; other CPUs sum in another order
PRECISIONS = ("fp32", "fp16", "int8_dot", "int8_i8mm")
# Of version 2 what came with it: two inputs and outputs, a constant row list, an epsilon that version 1 had not.
KINDS = {
    "version1": {f"{model}_{precision}" for model in ("vit", "blvit") for precision in PRECISIONS},
    "version2": {"blvit_fp32", "blvit_int8_dot", "ports_fp32"},
}


@cache
def read_answers(version: str) -> dict[str, Array]:
    with np.load(FOLDER / f"{version}_answers.npz") as answers:
        return dict(answers)


def read_program(path: Path) -> Program:
    return from_bytes(path.read_bytes())


@pytest.mark.parametrize("version", KINDS)
def test_there_is_a_file_of_each_model_and_precision(version: str) -> None:
    assert {path.stem.partition("_")[2] for path in FILES if path.stem.startswith(version)} == KINDS[version]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_answers_as_it_did(path: Path) -> None:
    """Each entry's outputs are saved under the file's name, the keep ratio if there is one, and the output's name where
    there are several; its inputs under their own."""
    version, _, kind = path.stem.partition("_")
    answers, entries = read_answers(version), read_program(path).entries
    for entry in entries:
        keep = "" if entry.keep is None else f"_{entry.keep:g}".replace(".", "_")
        with Session(path, keep=entry.keep) as session:
            session.verify()
            given = session.run({name: answers[name] for name in session.inputs})
        for name, answer in given.items():
            saved = answers[path.stem + keep + (f"_{name}" if len(given) > 1 else "")]
            assert answer.shape == saved.shape
            assert np.abs(answer - saved).max() < TOLERANCES[kind.split("_")[1]]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_is_read_by_python_too(path: Path) -> None:
    program = read_program(path)
    assert program.precision == path.stem.split("_")[2]
    assert [entry.keep for entry in program.entries] == ([1.0, 0.5] if "blvit" in path.stem else [None])


def test_the_files_of_version_2_have_what_came_with_it() -> None:
    several = read_program(FOLDER / "version2_ports_fp32.bve")
    assert [port.name for port in several.entries[0].ports] == ["left", "right", "turned", "doubled"]
    assert "rows" in [weight.name for weight in several.weights]
    for kind in ("fp32", "int8_dot"):
        ops = read_program(FOLDER / f"version2_blvit_{kind}.bve").entries[0].ops
        epsilons = {op.call.epsilon for op in ops if hasattr(op.call, "epsilon")}
        assert max(epsilons) == pytest.approx(1e-3)
