from dataclasses import replace

from bigvit_edge.export.libraries import list_limits
from bigvit_edge.target import Target

IMAGES = Target("test", "", ("litert", "onnx"), input="image")
KEEPS = (0.25, 1.0)


def test_what_mediapipe_does_not_take_is_told() -> None:
    (note,) = list_limits(IMAGES, KEEPS, ("a", "b"))
    assert "MediaPipe" in note
    assert "2 keep ratios" in note
    (note,) = list_limits(IMAGES, (None,), ("a", "b\nc"))
    assert r"'b\nc'" in note


def test_files_that_it_takes_whole_or_never_are_not_told_of() -> None:
    assert list_limits(IMAGES, (0.5,), ("a", "b")) == []
    assert list_limits(IMAGES, (None,), None) == []
    for other in (
        replace(IMAGES, input="tensor"), replace(IMAGES, formats=("onnx",)), replace(IMAGES, backend="native"),
    ):  # fmt: skip
        assert list_limits(other, KEEPS, ("a\nb",)) == []


def test_labels_that_core_ml_cannot_tell_apart_are_told() -> None:
    ios = replace(IMAGES, formats=("coreml",))
    (note,) = list_limits(ios, KEEPS, ("crane", "cat", "crane"))
    assert "crane (class 0), crane (class 2)" in note
    assert list_limits(ios, KEEPS, ("crane", "cat")) == list_limits(ios, KEEPS, None) == []
    assert list_limits(replace(ios, input="tensor"), KEEPS, ("a", "a")) == []
