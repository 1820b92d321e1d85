"""What PyTorch says, on which images, and what a file says of the same."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import interpolate

from bigvit_edge.artifact import Array, Pixels, Run, Runner
from bigvit_edge.demo.digits import HELD_OUT_SEED, held_out, make_batch
from bigvit_edge.demo.photographs import draw_photographs
from bigvit_edge.errors import UserError
from bigvit_edge.export.classes import match_classes
from bigvit_edge.export.image import make_input
from bigvit_edge.export.parity import compare
from bigvit_edge.export.pictures import CALIBRATION, Pictures
from bigvit_edge.measures import Accuracy, Confusion, Parity, bound_share
from bigvit_edge.models.load import Loaded, set_keep
from bigvit_edge.models.zoo import DIGITS
from bigvit_edge.preprocessing import Preprocessing

BORROWED = 32  # photographs for a model that has no images of its own
WORST = 10  # classes named in a confusion
CALIBRATION_SEED = 1_999_999_999  # no training step's, not the held-out images'


@dataclass(frozen=True)
class Reference:
    """The answers of PyTorch in fp32.

    pixels [S, S, 3] each, read anew whenever they are iterated, and how the model takes them; logits [n, classes];
    labels [n], -1 where the model has not the class, None where nobody says; names: of classes, by their number.
    """

    pixels: Iterable[Pixels]
    how: Preprocessing
    logits: Array
    labels: NDArray[np.int64] | None
    names: Mapping[int, str] | None = None

    @property
    def images(self) -> Iterable[Array]:
        """List the images as the model takes them, [3, S, S] each."""
        if isinstance(self.pixels, np.ndarray):
            return make_input(self.pixels, self.how)
        return (make_input(pixels[None], self.how)[0] for pixels in self.pixels)


class Measured(NamedTuple):
    """A file's answers against a reference."""

    parity: Parity
    accuracy: Accuracy | None
    confusions: tuple[Confusion, ...]


def make_references(model: Loaded, keeps: tuple[float | None, ...], count: int) -> dict[float | None, Reference]:
    """Compute PyTorch's answers at each keep ratio, on held-out demo images.

    A model that does not know digits gets windows of photographs, 32 at the most, unlabelled. UserError if the answers
    are not finite.
    """
    if knows_digits(model):
        batch = held_out()
        count = min(count, len(batch.labels))
        pixels, labels = _round(batch.images[:count], model), batch.labels[:count].numpy()
    else:
        count, labels = min(count, BORROWED), None
        pixels = _round(draw_photographs("held_out", count, model.image_size, HELD_OUT_SEED), model)
    answers = _answer(model, keeps, pixels, count)
    return {keep: Reference(pixels, model.preprocessing, found, labels) for keep, found in answers.items()}


def answer_pictures(
    model: Loaded, keeps: tuple[float | None, ...], pictures: Pictures
) -> tuple[dict[float | None, Reference], list[str]]:
    """Compute PyTorch's answers on a user's pictures; and notes.

    What to tell: pictures that cannot be read, which are left out, and classes that the model lacks. UserError if too
    many cannot be read, or the answers are not finite.
    """
    faults, said = dict[int, str](), Counter[str]()
    answers = _answer(model, keeps, pictures.rename("PyTorch").read(faults, said), len(pictures))
    pictures, notes = pictures.tell(faults, said)
    labels, names, more = _number_labels(pictures, model)
    stream = pictures.rename("the file")
    how = model.preprocessing
    return {keep: Reference(stream, how, found, labels, names) for keep, found in answers.items()}, notes + more


def _number_labels(
    pictures: Pictures, model: Loaded
) -> tuple[NDArray[np.int64] | None, Mapping[int, str] | None, list[str]]:
    given = [picture.label for picture in pictures.pictures]
    numbers, notes = match_classes((label for label in given if label is not None), model.labels, model.num_classes)
    if not numbers:
        return None, None, notes
    labels = np.array([-1 if label is None else numbers.get(label, -1) for label in given], np.int64)
    return labels, dict(enumerate(model.labels or ())) or {number: name for name, number in numbers.items()}, notes


def _answer(
    model: Loaded, keeps: tuple[float | None, ...], pixels: Iterable[Pixels], most: int
) -> dict[float | None, Array]:
    """Logits [n, classes] at each keep ratio for `most` images at the most, all ratios on the same pass.

    pixels: [S, S, 3] each.
    """
    logits = {keep: np.empty((most, model.num_classes), np.float32) for keep in keeps}
    count, bad, first = 0, 0, None
    for each in pixels:
        (image,) = make_input(each[None], model.preprocessing)
        for keep in keeps:
            if keep is not None:
                set_keep(model.module, keep)
            with torch.no_grad():
                given = torch.tensor(image[None])  # a copy: a model may change its input, which the file is given too
                logits[keep][count] = model.module(given)[0].numpy()
            if not np.isfinite(logits[keep][count]).all():
                bad, first = bad + 1, first or (keep, image)
        count += 1
    if first:
        met = _explain_nonfinite(model, *first, f"{bad} of {count * len(keeps)}")
        raise UserError(met, "finite numbers", "check the weights")
    return {keep: found[:count] for keep, found in logits.items()}


def _explain_nonfinite(model: Loaded, keep: float | None, image: Array, share: str) -> str:
    """Where NaN or infinity first appears in PyTorch for one image [3, S, S] of those that meet it."""
    if keep is not None:
        set_keep(model.module, keep)
    names = {module: name for name, module in model.module.named_modules() if not list(module.children())}
    found: list[str] = []

    def look(module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, torch.Tensor) and not output.isfinite().all():
            found.append(names[module])

    hooks = [module.register_forward_hook(look) for module in names]
    try:
        with torch.no_grad():
            model.module(torch.from_numpy(image[None]))
    finally:
        for hook in hooks:
            hook.remove()
    where = f", first in {found[0]}" if found and found[0] else ""
    return f"PyTorch's own logits of {model.source} are NaN or infinite on {share} images{where}"


def knows_digits(model: Loaded) -> bool:
    """Tell whether the demo's images are the model's own."""
    return model.labels == DIGITS


def draw_calibration(model: Loaded, count: int = CALIBRATION) -> Array:
    """Draw the demo's training images to calibrate on, or photographs.

    For a calibration without images of one's own: [n, 3, S, S], photographs for a model that does not know digits.
    """
    if knows_digits(model):
        images = make_batch("train", count, CALIBRATION_SEED).images
    else:
        images = draw_photographs("train", count, model.image_size, CALIBRATION_SEED)
    return make_input(_round(images, model), model.preprocessing)


def _round(images: torch.Tensor, model: Loaded) -> Pixels:
    """[n, S, S, 3] of images [n, 3, s, s] in 0..1."""
    if images.shape[-1] != model.image_size:
        images = interpolate(images, size=model.image_size, mode="bilinear", antialias=True)
    levels: Pixels = (255 * images).round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()
    return levels


def measure(run: Run, reference: Reference, how: Preprocessing | None = None) -> Measured:
    """Run a file on the reference's images, one by one.

    how: the file takes them; as the model if None. A file of probabilities is compared by what its softmax is given;
    where that cannot be asked for by their logarithms, both sides about their mean over the classes, since these do not
    say by what number all logits of an image could be larger; where PyTorch answers with probabilities, by those.
    """
    if isinstance(run, Runner) and run.probabilities and are_probabilities(reference.logits):
        run = run.run
    logits = run_all(run, (make_input(pixels[None], how or reference.how) for pixels in reference.pixels))
    said, expected = logits, reference.logits
    if isinstance(run, Runner) and run.probabilities and run.read_logits is None:
        said, expected = (values - values.mean(1, keepdims=True) for values in (logits, expected))
    return Measured(compare(said, expected), _score(logits, reference), _confuse(logits, reference))


def are_probabilities(answers: Array) -> bool:
    """Tell whether answers [n, classes] are those of a softmax."""
    return bool((answers >= 0).all() and np.allclose(answers.sum(1), 1, atol=1e-3))


def run_all(run: Run, images: Iterable[NDArray[Any]]) -> Array:
    """Run images one by one.

    They are as the file takes them, [1, ...] each; returns logits [n, classes].
    """
    return np.concatenate([run(image) for image in images])


def _score(logits: Array, reference: Reference) -> Accuracy | None:
    if reference.labels is None:
        return None
    labelled = reference.labels >= 0
    labels = reference.labels[labelled]
    right, expected = (float((values.argmax(1)[labelled] == labels).mean()) for values in (logits, reference.logits))
    return Accuracy(right, expected, len(labels), bound_share(right, len(labels)))


def _confuse(logits: Array, reference: Reference) -> tuple[Confusion, ...]:
    """The classes of which most pictures, by their share, are taken for others."""
    labels, names = reference.labels, reference.names
    if labels is None or names is None:
        return ()
    found = []
    for number in np.unique(labels[labels >= 0]).tolist():
        said = logits.argmax(1)[labels == number]
        wrong, times = np.unique(said[said != number], return_counts=True)
        if len(wrong):
            other = int(wrong[times.argmax()])
            right = int((said == number).sum())
            name = names.get(number, f"class {number}"), names.get(other, f"class {other}")
            found.append(Confusion(name[0], len(said), right, name[1], int(times.max())))
    return tuple(sorted(found, key=lambda c: (c.right / c.images, -c.images))[:WORST])
