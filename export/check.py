"""Is a file what PyTorch says it should be? References, parity, and the check of a whole bundle."""

from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import interpolate

from bigvit_edge.artifact import (
    FILE,
    RANDOM,
    SHIPPED,
    Accuracy,
    Array,
    Entry,
    Manifest,
    Parity,
    Run,
    hash_file,
    read_manifest,
)
from bigvit_edge.demo.digits import held_out
from bigvit_edge.errors import UserError
from bigvit_edge.export.convert import load_backend
from bigvit_edge.models.load import load_model
from bigvit_edge.models.zoo import DIGITS, Card, find_card
from bigvit_edge.target import Limits

BORROWED = 32  # images for a model that has none of its own: the demo's, enlarged


@dataclass(frozen=True)
class Reference:
    """What PyTorch in fp32 says: images [n, 3, S, S] as the model takes them, logits [n, classes], labels [n] where the
    model knows them.
    """

    images: Array
    logits: Array
    labels: Array | None


@dataclass(frozen=True)
class Checked:
    """One file's verdict. faults: what is wrong, in words; parity and accuracy are None if it was not run."""

    file: str
    faults: tuple[str, ...]
    parity: Parity | None = None
    accuracy: Accuracy | None = None


def make_reference(model: nn.Module, card: Card, count: int) -> Reference:
    """PyTorch's answers on held-out demo images; a model that does not know digits gets them enlarged, 32 at the most,
    unlabelled.
    """
    own = card.labels == DIGITS
    batch = held_out()
    count = min(count, len(batch.labels) if own else BORROWED)
    images = batch.images[:count]
    if images.shape[-1] != card.image_size:
        images = interpolate(images, size=card.image_size, mode="bilinear", antialias=True)
    images = (images - torch.tensor(card.mean).view(3, 1, 1)) / torch.tensor(card.std).view(3, 1, 1)
    with torch.no_grad():
        logits = torch.cat([model(image.unsqueeze(0)) for image in images])
    return Reference(images.numpy(), logits.numpy(), batch.labels[:count].numpy() if own else None)


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


def judge(parity: Parity, precision: str, limits: Limits, trained: bool = True) -> list[str]:
    """Where a file falls short of its limits, in words; empty if it does not. trained: its weights are not random."""
    asked = []  # what is measured, its value, and the name of the limit that it must not fall below
    if precision == "fp32":
        asked.append(("smallest cosine", parity.cosine_min, "fp32_cosine"))
    elif trained:
        asked.append(("mean cosine", parity.cosine_mean, "int8_cosine"))
        asked.append(("smallest cosine", parity.cosine_min, "int8_cosine_min"))
    else:
        asked.append(("smallest cosine", parity.cosine_min, "untrained_cosine"))
    if trained:
        asked.append(("top-1 agreement", parity.top1_agreement, "top1_agreement"))
    faults = [
        f"{what} {value:.5f}, limit {getattr(limits, name):g} (limits.{name})"
        for what, value, name in asked
        if value < getattr(limits, name)
    ]
    if precision == "fp32" and parity.max_abs > limits.fp32_max_abs:
        faults.append(f"largest difference {parity.max_abs:.2g}, limit {limits.fp32_max_abs:g} (limits.fp32_max_abs)")
    return faults


def check_bundle(folder: Path, weights: Path | None = None) -> list[Checked]:
    """Verify every file's hash, reload it in its real runtime, and compare it with PyTorch.

    weights: the checkpoint the bundle was exported with, if it was. A file whose hash is wrong is not loaded: native
    runtimes trust their input. UserError if the folder is no bundle or the checkpoint is another one.
    """
    manifest = read_manifest(folder)
    card = find_card(manifest.model)
    check_weights(manifest, card, weights)
    model = load_model(manifest.model, manifest.keep, weights)
    reference = make_reference(model, card, manifest.limits.images)
    return [_check_file(folder, entry, manifest, reference) for entry in manifest.artifacts]


def find_weights(card: Card, weights: Path | None) -> tuple[str, str | None]:
    """Where a model's weights come from, and their sha256."""
    if weights is not None:
        return FILE, hash_file(weights) if weights.is_file() else None
    if card.weights is None:
        return RANDOM, None
    with as_file(files("bigvit_edge.demo") / card.weights) as shipped:
        return SHIPPED, hash_file(shipped)


def check_weights(manifest: Manifest, card: Card, weights: Path | None) -> None:
    """UserError unless these are the weights that the bundle was exported with."""
    if weights is not None and not weights.is_file():
        raise UserError(f"no file {weights}", "a checkpoint", "check the path")
    source, digest = find_weights(card, weights)
    if (source, digest) == (manifest.weights, manifest.weights_sha256):
        return
    if manifest.weights == FILE:
        met, do = f"--weights {weights}" if weights else "no --weights", "pass that checkpoint with --weights"
        raise UserError(met, f"the checkpoint of sha256 {manifest.weights_sha256}, which was exported", do)
    if source == FILE:
        raise UserError(
            f"--weights {weights}", f"none: the bundle has the model's {manifest.weights} weights", "leave it out"
        )
    raise UserError("a bundle made with other shipped weights", "this version's", "export the model again")


def verify_file(folder: Path, entry: Entry) -> str | None:
    """What is wrong with a file's bytes, or None."""
    path = folder / entry.file
    if not path.is_file():
        return "the file is missing"
    if (found := hash_file(path)) != entry.sha256:
        return f"the file was changed after the export: sha256 {found[:12]}…, the manifest says {entry.sha256[:12]}…"
    return None


def _check_file(folder: Path, entry: Entry, manifest: Manifest, reference: Reference) -> Checked:
    if fault := verify_file(folder, entry):
        return Checked(entry.file, (fault,))
    try:
        run = load_backend(entry.format).load(folder / entry.file, manifest.threads)
    except UserError as e:
        return Checked(entry.file, (str(e),))
    parity, accuracy = measure(run, reference)
    faults = judge(parity, entry.precision, manifest.limits, manifest.trained)
    return Checked(entry.file, tuple(faults), parity, accuracy)


def _score(logits: Array, reference: Reference) -> Accuracy | None:
    if reference.labels is None:
        return None
    right, expected = (float((a.argmax(1) == reference.labels).mean()) for a in (logits, reference.logits))
    return Accuracy(right, expected, len(logits))
