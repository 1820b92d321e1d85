"""The bundle: a folder with the model files and their manifest, written whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from bigvit_edge.artifact import (
    MANIFEST,
    Artifact,
    Entry,
    Manifest,
    Preprocessing,
    Tensor,
    hash_file,
    read_manifest,
    write_manifest,
)
from bigvit_edge.errors import LimitError, UserError
from bigvit_edge.export.check import Reference, find_weights, judge, make_reference, measure
from bigvit_edge.export.convert import Step, convert_model, load_backend
from bigvit_edge.models.load import load_model
from bigvit_edge.models.zoo import Card, find_card
from bigvit_edge.target import Target


def export_bundle(
    name: str,
    target: Target,
    folder: Path,
    *,
    keep: float | None = None,
    weights: Path | None = None,
    force: bool = False,
    step: Step = lambda name: nullcontext(),
) -> Manifest:
    """Convert a model for a target, check every file against PyTorch, and leave the bundle in `folder`.

    UserError on input that cannot work; LimitError if a file misses the target's limits. In both cases nothing is
    written.
    """
    folder = folder.resolve()  # a link stays one, to the new bundle
    check_output(folder, force)
    card = find_card(name)
    for backend in target.formats:
        load_backend(backend)  # a missing package shows now, not after minutes
    with step("reference"):
        source, digest = find_weights(card, weights)
        model = load_model(name, keep, weights)
        reference = make_reference(model, card, target.limits.images)
    with writing(folder, force) as part:
        entries = []
        for artifact in convert_model(model, card.image_size, target, step):
            file = f"{name}_{artifact.precision}{load_backend(artifact.format).SUFFIX}"
            (part / file).write_bytes(artifact.data)
            with step(f"check {artifact.format} {artifact.precision}"):
                entries.append(_describe(artifact, part / file, card, target, reference))
        actual_keep = getattr(model, "keep", None)
        manifest = Manifest(
            name, actual_keep, target.name, source, digest, target.limits, target.threads, tuple(entries)
        )
        _enforce(manifest)
        write_manifest(manifest, part)
    return manifest


def _describe(artifact: Artifact, path: Path, card: Card, target: Target, reference: Reference) -> Entry:
    """Load the written file in its real runtime and say what it does."""
    parity, accuracy = measure(load_backend(artifact.format).load(path, target.threads), reference)
    return Entry(
        file=path.name,
        format=artifact.format,
        precision=artifact.precision,
        sha256=hash_file(path),
        bytes=len(artifact.data),
        inputs=(Tensor("image", (1, 3, card.image_size, card.image_size)),),
        outputs=(Tensor("logits", (1, card.num_classes)),),
        preprocessing=Preprocessing(card.image_size, card.mean, card.std),
        labels=card.labels,
        parity=parity,
        accuracy=accuracy,
        delegates=artifact.delegates,
        leftovers=artifact.leftovers,
        tools=artifact.tools,
    )


def _enforce(manifest: Manifest) -> None:
    faults = [
        f"{entry.file}: {fault}"
        for entry in manifest.artifacts
        for fault in judge(entry.parity, entry.precision, manifest.limits, manifest.trained)
    ]
    if faults:
        raise LimitError("\n".join(faults))


def check_output(folder: Path, force: bool) -> None:
    """UserError unless a bundle may be written here: nothing there, an empty folder, or, with force, a bundle and
    nothing else.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder} is a file", "a folder to make", "choose another -o")
    if folder.is_mount() or folder in (Path.cwd(), *Path.cwd().parents):
        raise UserError(f"{folder} cannot be renamed", "a folder below the working directory", "choose another -o")
    found = sorted(path.name for path in folder.iterdir())
    if not found:
        return
    listed = _list_files(folder)
    if listed is None:
        met = f"{folder} exists and is not a bundle of this version (it holds {', '.join(found[:5])})"
        raise UserError(met, "a new folder", "choose another -o, or move it away")
    if foreign := sorted(set(found) - listed):
        met = f"{folder} holds files that are not the bundle's ({', '.join(foreign[:5])})"
        raise UserError(met, "a bundle alone", "move them away")
    if not force:
        raise UserError(f"{folder} is a bundle already", "a new folder", "add --force to replace it")


def _list_files(folder: Path) -> set[str] | None:
    """The names of a bundle's own files; None if it is no bundle that we can read."""
    try:
        return {MANIFEST, *(entry.file for entry in read_manifest(folder).artifacts)}
    except UserError:
        return None


@contextmanager
def writing(folder: Path, force: bool) -> Iterator[Path]:
    """A temporary folder beside `folder` that takes its place if the block ends well. If it does not (Ctrl-C included)
    all that was made vanishes, and a note on the error says so.
    """
    check_output(folder, force)
    parents = [parent for parent in folder.parents if not parent.exists()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    try:
        yield part
        part.chmod(0o777 & ~_umask())
        check_output(folder, force)  # an export takes minutes; somebody may have come first
        _replace(folder, part)
    except BaseException as e:
        shutil.rmtree(part, ignore_errors=True)
        for parent in parents:
            with suppress(OSError):
                parent.rmdir()
        e.add_note("nothing was written")
        raise


def _replace(folder: Path, part: Path) -> None:
    """Two renames. For the instant between them there is no bundle; there never is half a one."""
    if not folder.exists():
        part.rename(folder)
        return
    old = part.with_suffix(".old")
    folder.rename(old)
    try:
        part.rename(folder)
    except BaseException:
        old.rename(folder)
        raise
    shutil.rmtree(old)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
