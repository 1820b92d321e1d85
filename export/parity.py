"""Does a file say what PyTorch says? Reference answers, the comparison with them, and the verdict."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import interpolate

from bigvit_edge.artifact import Accuracy, Array, Parity, Run
from bigvit_edge.demo.digits import held_out, make_batch
from bigvit_edge.export.image import normalize
from bigvit_edge.models.load import Loaded, set_keep
from bigvit_edge.models.zoo import DIGITS
from bigvit_edge.target import Limits

BORROWED = 32  # images for a model that has none of its own: the demo's, enlarged
CALIBRATION = 128
LOW_KEEP = 0.5
CALIBRATION_SEED = 1_999_999_999  # no training step's, not the held-out images'

# Which limit the mean cosine of a precision is held to, and its share of equal top-1 if not top1_agreement.
COSINES = {
    "fp16": "fp16_cosine",
    "int8": "int8_cosine",
    "int8-static": "static_cosine",
    "int4": "int4_cosine",
    "mixed": "mixed_cosine",
}
AGREEMENTS = {"int8-static": "static_agreement", "int4": "int4_agreement"}


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
            logits = torch.cat([model.module(torch.from_numpy(image[None])) for image in images])
        references[keep] = Reference(images, logits.numpy(), labels)
    return references


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


def compare(logits: Array, expected: Array) -> Parity:
    """Two sets of logits [n, classes]. A file that answers with NaN agrees with nothing."""
    if not np.isfinite(logits).all():
        return Parity(float("inf"), 0.0, 0.0, 0.0, len(logits))
    a, b = logits.astype(np.float64), expected.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = np.divide((a * b).sum(1), norms, out=np.zeros(len(a)), where=norms > 0)
    agree = a.argmax(1) == b.argmax(1)
    return Parity(float(np.abs(a - b).max()), float(cosine.min()), float(cosine.mean()), float(agree.mean()), len(a))


def judge(parity: Parity, precision: str, limits: Limits, trained: bool = True, keep: float | None = None) -> list[str]:
    """Where a file falls short of its limits, in words; empty if it does not. trained: its weights are not random."""
    if precision == "fp32":
        asked = [("smallest cosine", parity.cosine_min, "fp32_cosine")]
    elif trained:
        asked = [("mean cosine", parity.cosine_mean, COSINES[precision])]
        if precision != "int4":
            asked.append(("smallest cosine", parity.cosine_min, "cosine_min"))
    else:
        asked = [("smallest cosine", parity.cosine_min, "untrained_cosine")]
    if trained:
        asked.append(("top-1 agreement", parity.top1_agreement, AGREEMENTS.get(precision, "top1_agreement")))
    slack = limits.low_keep_slack if precision != "fp32" and keep is not None and keep < LOW_KEEP else 1
    faults = []
    for what, value, name in asked:
        least = 1 - (1 - getattr(limits, name)) * slack
        if value < least:
            names = f"limits.{name}" + (", limits.low_keep_slack" if slack != 1 else "")
            faults.append(f"{what} {value:.5f}, limit {least:g} ({names})")
    if precision == "fp32" and parity.max_abs > limits.fp32_max_abs:
        faults.append(f"largest difference {parity.max_abs:.2g}, limit {limits.fp32_max_abs:g} (limits.fp32_max_abs)")
    return faults


def _score(logits: Array, reference: Reference) -> Accuracy | None:
    if reference.labels is None:
        return None
    right, expected = (float((a.argmax(1) == reference.labels).mean()) for a in (logits, reference.logits))
    return Accuracy(right, expected, len(logits))
