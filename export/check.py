"""Is a file what PyTorch says it should be? References, parity, and the check of a whole bundle."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import interpolate

from bigvit_edge.artifact import (
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
        return Parity(float("inf"), 0.0, 0.0, len(logits))
    a, b = logits.astype(np.float64), expected.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = np.divide((a * b).sum(1), norms, out=np.zeros(len(a)), where=norms > 0)
    agree = a.argmax(1) == b.argmax(1)
    return Parity(float(np.abs(a - b).max()), float(cosine.min()), float(agree.mean()), len(a))


def judge(parity: Parity, precision: str, limits: Limits, trained: bool = True) -> list[str]:
    """Where a file falls short of its limits, in words; empty if it does not. trained: its weights are not random."""
    key = "fp32_cosine" if precision == "fp32" else "int8_cosine" if trained else "untrained_cosine"
    cosine, faults = getattr(limits, key), []
    if precision == "fp32" and parity.max_abs > limits.fp32_max_abs:
        faults.append(f"largest difference {parity.max_abs:.2g}, limit {limits.fp32_max_abs:g} (limits.fp32_max_abs)")
    if parity.cosine_min < cosine:
        faults.append(f"smallest cosine {parity.cosine_min:.5f}, limit {cosine:g} (limits.{key})")
    if trained and parity.top1_agreement < limits.top1_agreement:
        agreement = f"{parity.top1_agreement:.2%}, limit {limits.top1_agreement:.2%}"
        faults.append(f"top-1 agreement {agreement} (limits.top1_agreement)")
    return faults


def check_bundle(folder: Path, weights: Path | None = None) -> list[Checked]:
    """Verify every file's hash, reload it in its real runtime, and compare it with PyTorch.

    weights: the checkpoint the bundle was exported with, if it was. A file whose hash is wrong is not loaded: native
    runtimes trust their input. UserError if the folder is no bundle or the checkpoint is another one.
    """
    manifest = read_manifest(folder)
    check_weights(manifest, weights)
    model, card = load_model(manifest.model, manifest.keep, weights), find_card(manifest.model)
    reference = make_reference(model, card, manifest.limits.images)
    return [_check_file(folder, entry, manifest, reference) for entry in manifest.artifacts]


def check_weights(manifest: Manifest, weights: Path | None) -> None:
    """UserError unless this is the checkpoint that the manifest names."""
    named = manifest.weights not in (SHIPPED, RANDOM)
    if named and weights is None:
        raise UserError(
            "no --weights",
            f"the checkpoint this bundle was exported with (sha256 {manifest.weights})",
            "pass --weights FILE",
        )
    if weights is not None and (not weights.is_file() or hash_file(weights) != manifest.weights):
        raise UserError(f"--weights {weights}", f"the bundle's own weights ({manifest.weights})", "check the path")


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
    run = load_backend(entry.format).load(folder / entry.file, manifest.threads)
    parity, accuracy = measure(run, reference)
    faults = judge(parity, entry.precision, manifest.limits, manifest.trained)
    return Checked(entry.file, tuple(faults), parity, accuracy)


def _score(logits: Array, reference: Reference) -> Accuracy | None:
    if reference.labels is None:
        return None
    right, expected = (float((a.argmax(1) == reference.labels).mean()) for a in (logits, reference.logits))
    return Accuracy(right, expected, len(logits))
