"""What PyTorch says, on which images, and what a file says of the same."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.functional import interpolate

from bigvit_edge.artifact import Array, Run
from bigvit_edge.demo.digits import held_out, make_batch
from bigvit_edge.errors import UserError
from bigvit_edge.export.image import normalize
from bigvit_edge.export.parity import compare
from bigvit_edge.measures import Accuracy, Parity, bound_share
from bigvit_edge.models.load import Loaded, set_keep
from bigvit_edge.models.zoo import DIGITS

BORROWED = 32  # images for a model that has none of its own: the demo's, enlarged
CALIBRATION = 128
CALIBRATION_SEED = 1_999_999_999  # no training step's, not the held-out images'


@dataclass(frozen=True)
class Reference:
    """What PyTorch in fp32 says: images [n, 3, S, S] as the model takes them, logits [n, classes], labels [n] where the
    model knows them.
    """

    images: Array
    logits: Array
    labels: Array | None


def make_references(model: Loaded, keeps: tuple[float | None, ...], count: int) -> dict[float | None, Reference]:
    """PyTorch's answers at each keep ratio, on held-out demo images; a model that does not know digits gets them
    enlarged, 32 at the most, unlabelled.
    """
    own = model.labels == DIGITS
    batch = held_out()
    count = min(count, len(batch.labels) if own else BORROWED)
    images = _prepare(batch.images[:count], model)
    labels = batch.labels[:count].numpy() if own else None
    references = {}
    for keep in keeps:
        if keep is not None:
            set_keep(model.module, keep)
        with torch.no_grad():
            logits = torch.cat([model.module(torch.from_numpy(image[None])) for image in images]).numpy()
        bad = ~np.isfinite(logits).all(1)
        if bad.any():
            met = _explain_nonfinite(model, images[bad][:1], int(bad.sum()), len(bad))
            raise UserError(met, "finite numbers", "check the weights")
        references[keep] = Reference(images, logits, labels)
    return references


def _explain_nonfinite(model: Loaded, image: Array, count: int, total: int) -> str:
    """Where NaN or infinity first appears in PyTorch for one image [1, 3, S, S] of the `count` that meet it."""
    names = {module: name for name, module in model.module.named_modules() if not list(module.children())}
    found: list[str] = []

    def look(module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, torch.Tensor) and not output.isfinite().all():
            found.append(names[module])

    hooks = [module.register_forward_hook(look) for module in names]
    try:
        with torch.no_grad():
            model.module(torch.from_numpy(image))
    finally:
        for hook in hooks:
            hook.remove()
    where = f", first in {found[0]}" if found and found[0] else ""
    return f"PyTorch's own logits of {model.source} are NaN or infinite on {count} of {total} images{where}"


def draw_calibration(model: Loaded) -> Array:
    """The demo's training images, for a calibration without images of one's own: [n, 3, S, S]."""
    return _prepare(make_batch("train", CALIBRATION, CALIBRATION_SEED).images, model)


def _prepare(images: torch.Tensor, model: Loaded) -> Array:
    if images.shape[-1] != model.image_size:
        images = interpolate(images, size=model.image_size, mode="bilinear", antialias=True)
    return normalize(255 * images.numpy(), model.preprocessing)


def measure(run: Run, reference: Reference) -> tuple[Parity, Accuracy | None]:
    """Run a file on the reference's images, one by one."""
    logits = run_all(run, reference.images)
    return compare(logits, reference.logits), _score(logits, reference)


def run_all(run: Run, images: Array) -> Array:
    """Images [n, 3, S, S], one by one -> logits [n, classes]."""
    return np.concatenate([run(image[None]) for image in images])


def _score(logits: Array, reference: Reference) -> Accuracy | None:
    if reference.labels is None:
        return None
    right, expected = (float((a.argmax(1) == reference.labels).mean()) for a in (logits, reference.logits))
    return Accuracy(right, expected, len(logits), bound_share(right, len(logits)))
