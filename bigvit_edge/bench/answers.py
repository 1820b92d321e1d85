"""Top-1 on the device: the same pictures, prepared here, answered there."""

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bigvit_edge.bench.cases import Case
from bigvit_edge.errors import UserError
from bigvit_edge.export.classes import match_classes
from bigvit_edge.export.image import make_input
from bigvit_edge.export.pictures import Picture, find_pictures, leave_out
from bigvit_edge.export.pictures import Pictures as Readable
from bigvit_edge.results import Answers, spell_path

DEMO_COUNT = 200  # of the demo's held-out images
MOST = 1000  # pictures of a user's, evenly spread
# images as the file takes them, their classes [n], what was left out
Prepared = tuple[NDArray[Any], NDArray[np.int64], list[str]]
DIGITS = tuple(map(str, range(10)))  # labels of the models that know the demo's images


@dataclass(frozen=True)
class Pictures:
    """Pictures whose classes are known.

    found: a user's, None for the demo's; classes: the names of all theirs, also of those that were not taken.
    """

    name: str
    found: tuple[Picture, ...] | None = None
    classes: frozenset[str] = frozenset()


class Answering(Protocol):
    """Who answers a file of images."""

    def answer(self, images: Path, logits: Path, count: int) -> None:
        """Write the logits of a file of images to another.

        The images are as the model's file takes them; count: of these.
        """


def find_labelled(folder: Path) -> tuple[Pictures, list[str]]:
    """Find the labelled pictures of a folder; and notes.

    At most MOST, evenly spread. UserError if there are none, or nobody says what they show.
    """
    found, notes = find_pictures(folder)
    labelled = [picture for picture in found if picture.label is not None]
    if not labelled:
        raise UserError(f"{folder} names no classes", "a sub-folder for each, or labels.csv", "see docs/usage.md")
    step = max(1, -(-len(labelled) // MOST))
    classes = frozenset(str(picture.label) for picture in labelled)
    if step > 1:
        notes.append(f"{folder} holds {len(labelled)} pictures: every {step}th is answered")
    return Pictures(spell_path(folder), tuple(labelled[::step]), classes), notes


def judge_answers(case: Case, runner: Answering, pictures: Pictures) -> Answers | str:
    """Judge a file's answers on its device.

    A text says why there is nothing to judge.
    """
    if case.entry is None:
        return "not available: a file without its bundle does not say how pictures are prepared"
    if pictures.found is None and case.entry.labels != DIGITS:
        return "not available: no pictures of this model's classes; --images names some"
    try:
        images, labels, notes = _draw_demo(case) if pictures.found is None else _read(case, pictures)
    except UserError as e:
        return f"not available: {e.met}"
    with tempfile.TemporaryDirectory(prefix="bigvit-edge-") as folder:
        source, target = Path(folder) / "images.f32", Path(folder) / "logits.f32"
        source.write_bytes(np.ascontiguousarray(images, images.dtype.newbyteorder("<")).tobytes())
        runner.answer(source, target, len(images))
        logits = np.fromfile(target, "<f4").reshape(len(images), -1)  # [n, classes]
    if not np.isfinite(logits).all():
        return "its answers are not finite"
    return Answers(float((logits.argmax(1) == labels).mean()), len(images), "; ".join((pictures.name, *notes)))


def _draw_demo(case: Case) -> Prepared:
    """The demo's held-out images."""
    assert case.entry
    try:
        from bigvit_edge.demo.digits import held_out
    except ModuleNotFoundError as e:
        raise UserError(f"{e.name} is not installed", "the demo's", "pip install 'bigvit-edge[demo]'") from e
    batch = held_out()
    images = (255 * batch.images[:DEMO_COUNT]).round().byte().permute(0, 2, 3, 1).numpy()  # [n, S, S, 3]
    if images.shape[1] != case.entry.preprocessing.size:
        raise UserError("the model was exported at another size than the demo's pictures have", "the same")
    return make_input(images, case.entry.preprocessing), batch.labels[:DEMO_COUNT].numpy(), []


def _read(case: Case, pictures: Pictures) -> Prepared:
    """A user's pictures, but those that the file was calibrated on, cannot be read or are of classes it lacks."""
    assert case.entry
    assert pictures.found
    found, notes = leave_out(pictures.found, case.calibrated)
    faults, said = dict[int, str](), Counter[str]()
    readable = Readable(tuple(found), case.entry.preprocessing)
    images = list(readable.read(faults, said))
    kept, told = readable.tell(faults, said)
    classes = case.entry.outputs[0].shape[1]
    numbers, more = match_classes(pictures.classes, case.entry.labels, classes)
    labels = np.array([numbers.get(str(picture.label), -1) for picture in kept.pictures])
    if not (known := labels >= 0).any():
        raise UserError("none of the pictures' classes is the model's", "some that it knows")
    return make_input(np.stack(images)[known], case.entry.preprocessing), labels[known], [*notes, *told, *more]
