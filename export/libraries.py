"""What of a bundle's files mobile libraries do not take."""

from collections.abc import Sequence

from bigvit_edge.target import Target


def list_limits(target: Target, keeps: Sequence[float | None], labels: Sequence[str] | None) -> list[str]:
    """List what MediaPipe does not take, or reads otherwise.

    As notes of an export.
    """
    if "litert" not in target.formats or not target.takes_pixels("litert") or target.is_native("litert"):
        return []
    notes = []
    if len(keeps) > 1:
        notes.append(f"MediaPipe takes no .tflite of {len(keeps)} keep ratios, which LiteRT runs: export one for it")
    if broken := [label for label in labels or () if "\n" in label or "\r" in label]:
        notes.append(f"the .tflite's file of labels has a space for each line break, as in {broken[0]!r}")
    return notes
