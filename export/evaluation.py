"""On which images a model and its files are judged, and on which it is calibrated: the demo's or a user's."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bigvit_edge.artifact import Array, Manifest
from bigvit_edge.export.image import make_input
from bigvit_edge.export.pictures import (
    CALIBRATION,
    Picture,
    Pictures,
    Watch,
    choose_evenly,
    digest_pictures,
    leave_out,
    split,
)  # fmt: skip
from bigvit_edge.export.references import Reference, answer_pictures, draw_calibration, knows_digits, make_references
from bigvit_edge.measures import Evaluated
from bigvit_edge.models.load import Loaded

Found = tuple[list[Picture], list[str]]  # as of find_pictures


@dataclass(frozen=True)
class Evaluation:
    """The images that an export is evaluated and calibrated on.

    references: PyTorch's answers at each keep ratio; calibration: images [n, 3, S, S]; digests: of the user's pictures
    that these are, none of the demo's; pictures: what of the user's own is evaluated on; notes: what to tell.
    """

    references: dict[float | None, Reference]
    calibration: Array
    digests: tuple[str, ...] = ()
    pictures: Evaluated | None = None
    notes: tuple[str, ...] = ()


def prepare_evaluation(
    model: Loaded,
    keeps: tuple[float | None, ...],
    count: int,
    found: Found | None,
    calibrates: bool,
    calibration: Path | None,
    watch: Watch,
) -> Evaluation:
    """Prepare what an export is evaluated and calibrated on.

    These are the user's pictures found, or, without them, `count` of the demo's images. calibrates: a file of it needs
    images to be made; calibration: the folder of these; without one, some of the pictures are. No picture is both
    calibrated and evaluated on.
    """
    chosen, rest, notes = list[Picture](), list[Picture](), list[str]()
    if calibration is not None:
        chosen, notes = choose_evenly(calibration)
    elif found is not None and calibrates:
        chosen, rest = split(found[0], watch)
    elif found is not None:
        rest = list(found[0])
    drawn = CALIBRATION if calibrates else 1  # which shows what a part of a model is given
    seen, more = _read_calibration(chosen, model, watch) if chosen else (draw_calibration(model, drawn), [])
    digests, notes = digest_pictures(chosen), [*notes, *more]
    if calibrates and not chosen and not knows_digits(model):
        notes.append(
            f"calibrated on {drawn} windows of borrowed photographs, since no pictures were given: pictures like those "
            "that the model will see, by --images or --calibration, make int8 more exact (docs/precisions.md)"
        )
    if found is None:
        return Evaluation(make_references(model, keeps, count), seen, digests, None, tuple(notes))
    if calibration is not None:
        rest, more = leave_out(found[0], digests, watch)
        notes += more
    references, more = answer_pictures(model, keeps, Pictures(tuple(rest), model.preprocessing, watch))
    pictures = _count_pictures(references, len(seen) if chosen else 0)
    return Evaluation(references, seen, digests, pictures, tuple(dict.fromkeys((*notes, *found[1], *more))))


def _read_calibration(chosen: Sequence[Picture], model: Loaded, watch: Watch) -> tuple[Array, list[str]]:
    """Pictures as the model takes them, [n, 3, S, S], and what to tell of them."""
    faults, said = dict[int, str](), Counter[str]()
    pictures = Pictures(tuple(chosen), model.preprocessing, watch, "calibration")
    images = list(pictures.read(faults, said))
    _, notes = pictures.tell(faults, said)
    return make_input(np.stack(images), model.preprocessing), notes


def _count_pictures(references: dict[float | None, Reference], calibration: int) -> Evaluated:
    reference = next(iter(references.values()))
    labelled = 0 if reference.labels is None else int((reference.labels >= 0).sum())
    return Evaluated(len(reference.logits), labelled, calibration)


def prepare_check(
    model: Loaded, keeps: tuple[float | None, ...], found: Found | None, manifest: Manifest, watch: Watch
) -> tuple[dict[float | None, Reference], list[str]]:
    """Prepare the references for a check of a bundle; and notes.

    They are PyTorch's answers on a user's pictures, without those that it was calibrated on, else on the demo's.
    """
    if found is None:
        return make_references(model, keeps, manifest.limits.images), []
    pictures, notes = leave_out(found[0], manifest.calibrated, watch)
    if manifest.pictures is not None and manifest.pictures.calibration and not manifest.calibrated:
        notes.append("this bundle does not say which pictures it was calibrated on; some of these can be among them")
    references, more = answer_pictures(model, keeps, Pictures(tuple(pictures), model.preprocessing, watch))
    return references, [*found[1], *notes, *more]
