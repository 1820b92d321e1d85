"""What PyTorch says, on which images, and what a file says of the same."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import interpolate

from bigvit_edge.artifact import Pixels, Runner
from bigvit_edge.demo.digits import HELD_OUT_SEED, held_out, make_batch
from bigvit_edge.demo.photographs import draw_photographs
from bigvit_edge.errors import UserError
from bigvit_edge.export.image import make_input
from bigvit_edge.export.pictures import CALIBRATION, Pictures
from bigvit_edge.models.loading import Loaded, set_keep
from bigvit_edge.models.zoo import DIGITS
from bigvit_edge.preprocessing import Preprocessing
from bigvit_edge.signature import Array
from bigvit_edge.tasks import CLASSIFICATION, Answer, Expected, Measured, find_task
from bigvit_edge.tasks.classes import match_classes

BORROWED = 32  # photographs for a model that has no images of its own
CALIBRATION_SEED = 1_999_999_999  # no training step's, not the held-out images'


@dataclass(frozen=True)
class Reference:
    """The answers of PyTorch in fp32.

    pixels [S, S, 3] each, read anew whenever they are iterated, and how the model takes them; expected: its answers,
    and what the images show where somebody says; task: by which these are compared.
    """

    pixels: Iterable[Pixels]
    how: Preprocessing
    expected: Expected
    task: str = CLASSIFICATION

    @property
    def answers(self) -> Array:
        """Read PyTorch's answers [n, ...]."""
        return self.expected.answers

    @property
    def images(self) -> Iterable[Array]:
        """List the images as the model takes them, [3, S, S] each."""
        if isinstance(self.pixels, np.ndarray):
            return make_input(self.pixels, self.how)
        return (make_input(pixels[None], self.how)[0] for pixels in self.pixels)


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
    return {
        keep: Reference(pixels, model.preprocessing, Expected(found, labels), model.task)
        for keep, found in answers.items()
    }


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
    return {
        keep: Reference(stream, model.preprocessing, Expected(found, labels, names), model.task)
        for keep, found in answers.items()
    }, notes + more


def _number_labels(
    pictures: Pictures, model: Loaded
) -> tuple[NDArray[np.int64] | None, Mapping[int, str] | None, list[str]]:
    if not find_task(model.task).LABELLED:
        return None, None, []
    given = [picture.label for picture in pictures.pictures]
    classes = model.answer.shape[-1]
    numbers, notes = match_classes((label for label in given if label is not None), model.labels, classes)
    if not numbers:
        return None, None, notes
    labels = np.array([-1 if label is None else numbers.get(label, -1) for label in given], np.int64)
    return labels, dict(enumerate(model.labels or ())) or {number: name for name, number in numbers.items()}, notes


def _answer(
    model: Loaded, keeps: tuple[float | None, ...], pixels: Iterable[Pixels], most: int
) -> dict[float | None, Array]:
    """Answers [n, ...] at each keep ratio for `most` images at the most, all ratios on the same pass.

    pixels: [S, S, 3] each.
    """
    answers = {keep: np.empty((most, *model.answer.shape[1:]), np.float32) for keep in keeps}
    count, bad, first = 0, 0, None
    for each in pixels:
        (image,) = make_input(each[None], model.preprocessing)
        for keep in keeps:
            if keep is not None:
                set_keep(model.module, keep)
            with torch.no_grad():
                given = torch.tensor(image[None])  # a copy: a model may change its input, which the file is given too
                answers[keep][count] = model.module(given)[0].numpy()
            if not np.isfinite(answers[keep][count]).all():
                bad, first = bad + 1, first or (keep, image)
        count += 1
    if first:
        met = _explain_nonfinite(model, *first, f"{bad} of {count * len(keeps)}")
        raise UserError(met, "finite numbers", "check the weights")
    return {keep: found[:count] for keep, found in answers.items()}


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
    return f"PyTorch's own {model.answer.name} of {model.source} are NaN or infinite on {share} images{where}"


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


def measure(run: Runner | Answer, reference: Reference, how: Preprocessing | None = None) -> Measured:
    """Run a file on the reference's images, one by one.

    how: the file takes them; as the model if None.
    """
    images = (make_input(pixels[None], how or reference.how) for pixels in reference.pixels)
    return find_task(reference.task).measure(run, images, reference.expected)
