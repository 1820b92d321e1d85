"""One picture through one exported file: what a person tries first."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bigvit_edge.artifact import MANIFEST, Entry, Verified
from bigvit_edge.entry_points import choose_entry
from bigvit_edge.errors import UserError, list_few, suggest
from bigvit_edge.export.image import make_input, prepare
from bigvit_edge.manifest import find_fault, read_manifest
from bigvit_edge.runtime.opening import open_entry
from bigvit_edge.tasks import Row, find_task


@dataclass(frozen=True)
class Answer:
    """The answer to one picture.

    rows: as the model's task has them, under its headings; notes: what of the picture was assumed or changed.
    """

    headings: tuple[str, ...]
    rows: Sequence[Row]
    notes: tuple[str, ...]


def answer_picture(file: Path, image: Path, keep: float | None = None) -> Answer:
    """Answer a picture by a file of a bundle.

    The manifest says how to prepare it. keep: which of the file's keep ratios, if it has several; the largest when
    None.

    UserError if the file is no part of a bundle, is not as exported or as the manifest says, or has no such keep ratio,
    if the picture cannot be read, or the answer is no number.
    """
    entry = find_entry(file)
    task = find_task(read_manifest(file.parent).task)
    method = choose_method(entry, keep).name
    prepared = prepare(image, entry.preprocessing)
    run = open_entry(file.parent, entry, method=method)
    answer = task.read_answer(run, make_input(prepared.pixels[None], entry.preprocessing))
    if count := int((~np.isfinite(answer)).sum()):
        met = f"{file} answers {image} with {count} of {answer.size} {task.OUTPUTS[0]} that are not finite"
        raise UserError(met, "numbers", "see what bigvit-edge check says of the bundle")
    rows = task.list_rows(answer, entry.labels)
    return Answer(task.HEADINGS, rows, tuple(f"{image}: {note}" for note in prepared.notes))


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
    methods = {method.name: method for method in sorted(entry.methods, key=lambda method: -(method.keep or 0))}
    return methods[choose_entry(entry.file, {name: one.keep for name, one in methods.items()}, keep=keep)]
