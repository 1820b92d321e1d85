"""One picture through one exported file: what a person tries first."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bigvit_edge.artifact import MANIFEST, Entry, Verified
from bigvit_edge.errors import UserError, list_few, suggest
from bigvit_edge.export.image import make_input, prepare
from bigvit_edge.manifest import find_fault, read_manifest
from bigvit_edge.runtime.opening import open_entry

MOST_LABEL = 80  # letters of a label in a table


@dataclass(frozen=True)
class Guess:
    """A class and its softmax probability in 0..1."""

    label: str
    probability: float

    def as_cells(self) -> tuple[str, str]:
        """Write it as cells, the label in MOST_LABEL letters at most."""
        label = self.label if len(self.label) <= MOST_LABEL else f"{self.label[: MOST_LABEL - 1]}…"
        return label, f"{self.probability:.2%}"


@dataclass(frozen=True)
class Answer:
    """The answer to one picture.

    Guesses, best first; notes: what of the picture was assumed or changed.
    """

    guesses: list[Guess]
    notes: tuple[str, ...]


def classify(file: Path, image: Path, keep: float | None = None, top: int = 5) -> Answer:
    """Classify a picture by a file of a bundle.

    Returns the most probable classes, best first; the manifest says how to prepare the picture. keep: which of the
    file's keep ratios, if it has several; the largest when None.

    UserError if the file is no part of a bundle, is not as exported or as the manifest says, or has no such keep ratio,
    if the picture cannot be read, or the answer is no number.
    """
    entry = find_entry(file)
    method = choose_method(entry, keep).name
    prepared = prepare(image, entry.preprocessing)
    run = open_entry(file.parent, entry, method=method)
    logits = run(make_input(prepared.pixels[None], entry.preprocessing))[0].astype(np.float64)  # [classes]
    if count := int((~np.isfinite(logits)).sum()):
        met = f"{file} answers {image} with {count} of {len(logits)} logits that are not finite"
        raise UserError(met, "numbers", "see what bigvit-edge check says of the bundle")
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    best = np.argsort(-probabilities, kind="stable")[:top]
    guesses = [Guess(entry.labels[i] if entry.labels else f"class {i}", float(probabilities[i])) for i in best]
    return Answer(guesses, tuple(f"{image}: {note}" for note in prepared.notes))


def find_entry(file: Path) -> Entry:
    """Find the manifest's entry of a model file, its bytes verified."""
    if not os.path.lexists(file):
        raise UserError(f"no file {file}", "a model file of a bundle", "see the bundle's manifest.json")
    if os.path.lexists(file / MANIFEST):
        names = [entry.file for entry in read_manifest(file).artifacts]
        raise UserError(f"{file}, a bundle", f"one of its files: {list_few(names)}", "name that")
    if not os.path.lexists(file.parent / MANIFEST):
        raise UserError(f"{file} lies alone: no {MANIFEST} beside it", "a file in its bundle", "name it there")
    entries = {entry.file: entry for entry in read_manifest(file.parent).artifacts}
    if file.name not in entries:
        raise UserError(
            f"{file.name} is not in its manifest", f"one of {', '.join(entries)}", suggest(file.name, entries)
        )
    if fault := find_fault(file.parent, entries[file.name]):
        raise UserError(f"{file}: {fault}", "the file as exported", "export the model again")
    return entries[file.name]


def choose_method(entry: Entry, keep: float | None) -> Verified:
    """Choose the entry point of a keep ratio, the largest when None.

    UserError if the file has none of that ratio.
    """
    if keep is None:
        return max(entry.methods, key=lambda method: method.keep or 0)
    for method in entry.methods:
        if method.keep == keep:
            return method
    has = ", ".join(f"{method.keep:g}" for method in entry.methods if method.keep is not None)
    raise UserError(
        f"--keep {keep:g} for {entry.file}", f"one of {has}" if has else "no keep ratio: the model is dense",
        "export the model with that --keep" if has else "leave it out",
    )  # fmt: skip
