"""What of a bundle's files mobile libraries do not take."""

from collections.abc import Sequence

from bigvit_edge.errors import list_few
from bigvit_edge.export.classes import name_classes
from bigvit_edge.target import Target


def list_limits(
    target: Target, keeps: Sequence[float | None], labels: Sequence[str] | None, is_bounded: bool = False
) -> list[str]:
    """List what MediaPipe and Core ML do not take, or read otherwise.

    As notes of an export. is_bounded: the model's answers are in 0..1 and no softmax's.
    """
    notes = []
    scored = [name for name in ("litert", "coreml") if target.gives_probabilities(name)]
    if is_bounded and scored:
        files = " and ".join(scored)
        said = f"the model's answers are all in 0..1, as a sigmoid's: files of {files} have a softmax behind them"
        notes.append(f"{said}, which their libraries' scores want; --input tensor leaves it away")
    if "litert" in scored:
        notes += _list_limits_of_mediapipe(keeps, labels)
    if "coreml" in scored:
        names = name_classes(labels, len(labels or ()))
        renamed = [name for name, label in zip(names, labels or (), strict=True) if name != label]
        if renamed:
            said = "of several classes have their numbers, which Core ML cannot tell apart by one name"
            notes.append(f"in the .mlpackage, labels {said}: {list_few(renamed)}")
    return notes


def _list_limits_of_mediapipe(keeps: Sequence[float | None], labels: Sequence[str] | None) -> list[str]:
    notes = []
    if len(keeps) > 1:
        notes.append(f"MediaPipe takes no .tflite of {len(keeps)} keep ratios, which LiteRT runs: export one for it")
    if broken := [label for label in labels or () if "\n" in label or "\r" in label]:
        notes.append(f"the .tflite's file of labels has a space for each line break, as in {broken[0]!r}")
    return notes
