"""A bundle is written whole or not at all, and a name or answer that no bundle can hold is refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from bigvit_edge.artifact import Parity
from bigvit_edge.errors import LimitError, UserError
from bigvit_edge.export import bundle
from bigvit_edge.export.bundle import Source, export_bundle
from bigvit_edge.target import Limits, load_target
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
