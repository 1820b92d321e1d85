"""What of a bundle's files mobile libraries do not take."""

from collections.abc import Sequence

from bigvit_edge.errors import list_few
from bigvit_edge.export.classes import name_classes
from bigvit_edge.target import Target


def list_limits(target: Target, keeps: Sequence[float | None], labels: Sequence[str] | None) -> list[str]:
    """List what MediaPipe and Core ML do not take, or read otherwise.

    As notes of an export.
    """
    notes = []
    if "litert" in target.formats and target.takes_pixels("litert") and not target.is_native("litert"):
        notes += _list_limits_of_mediapipe(keeps, labels)
    if "coreml" in target.formats and target.takes_pixels("coreml"):
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
