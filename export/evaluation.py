"""On which images a model and its files are judged, and on which it is calibrated: the demo's or a user's."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bigvit_edge.artifact import Array
from bigvit_edge.export.calibration import read_images
from bigvit_edge.export.pictures import Picture, Pictures, Watch, split
from bigvit_edge.export.references import Reference, answer_pictures, draw_calibration, make_references
from bigvit_edge.measures import Evaluated
from bigvit_edge.models.load import Loaded

Found = tuple[list[Picture], list[str]]  # as of find_pictures


@dataclass(frozen=True)
class Evaluation:
    """references: PyTorch's answers at each keep ratio; calibration: images [n, 3, S, S]; pictures: what of the user's
    own is in them; notes: what to tell of those.
    """

    references: dict[float | None, Reference]
    calibration: Array
    pictures: Evaluated | None = None
    notes: tuple[str, ...] = ()


def prepare_evaluation(
    model: Loaded,
    keeps: tuple[float | None, ...],
    count: int,
    found: Found | None,
    calibration: Path | None,
    watch: Watch,
) -> Evaluation:
    """For an export: the user's pictures found, or, without them, `count` of the demo's images. calibration: the folder
    to calibrate on; without one, some of the pictures are, and the others evaluated on.
    """
    if found is None:
        seen = draw_calibration(model) if calibration is None else read_images(calibration, model.preprocessing)
        return Evaluation(make_references(model, keeps, count), seen)
    pictures, notes = found
    if calibration is not None:
        seen, kept, rest = read_images(calibration, model.preprocessing), 0, pictures
    else:
        chosen, rest = split(pictures, watch)
        faults, said = dict[int, str](), Counter[str]()
        some = Pictures(tuple(chosen), model.preprocessing, watch, "calibration")
        images = list(some.read(faults, said))
        notes = [*notes, *some.tell(faults, said)[1]]
        seen, kept = np.stack(images), len(images)
    references, more = answer_pictures(model, keeps, Pictures(tuple(rest), model.preprocessing, watch))
    return Evaluation(references, seen, _count_pictures(references, kept), (*notes, *more))


def _count_pictures(references: dict[float | None, Reference], calibration: int) -> Evaluated:
    reference = next(iter(references.values()))
    labelled = 0 if reference.labels is None else int((reference.labels >= 0).sum())
    return Evaluated(len(reference.logits), labelled, calibration)


def prepare_check(
    model: Loaded,
    keeps: tuple[float | None, ...],
    count: int,
    found: Found | None,
    evaluated: Evaluated | None,
    watch: Watch,
) -> tuple[dict[float | None, Reference], list[str]]:
    """For a check of a bundle whose manifest says what was evaluated: PyTorch's answers, and what to tell of pictures.
    Of a user's, those that an export of the same calibrated on are left out.
    """
    if found is None:
        return make_references(model, keeps, count), []
    pictures, notes = found
    if evaluated is not None and evaluated.calibration:
        _, pictures = split(pictures, watch)
    references, more = answer_pictures(model, keeps, Pictures(tuple(pictures), model.preprocessing, watch))
    return references, notes + more
