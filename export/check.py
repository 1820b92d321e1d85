"""Is a bundle still what was exported? Every file's bytes, and its answers against PyTorch's."""

from dataclasses import dataclass
from pathlib import Path

from bigvit_edge.artifact import FILE, RANDOM, SHIPPED, Entry, Manifest
from bigvit_edge.errors import UserError
from bigvit_edge.export.convert import load_backend
from bigvit_edge.export.parity import explain_reference, judge
from bigvit_edge.export.references import Reference, make_references, measure
from bigvit_edge.manifest import find_fault, read_manifest
from bigvit_edge.measures import Accuracy, Parity
from bigvit_edge.models.blvit import set_dispatch
from bigvit_edge.models.load import Loaded, is_factory, load


@dataclass(frozen=True)
class Checked:
    """The verdict on one entry point of a file. faults: what is wrong, in words; parity and accuracy are None if it was
    not run. keep: None if the model has none, or the file was not opened. notes: what the images could not show.
    """

    file: str
    keep: float | None
    faults: tuple[str, ...]
    parity: Parity | None = None
    accuracy: Accuracy | None = None
    notes: tuple[str, ...] = ()


def check_bundle(
    folder: Path,
    weights: str | None = None,
    model: str | None = None,
    *,
    weights_key: str | None = None,
    heads: int | None = None,
) -> list[Checked]:
    """Verify every file's hash, reload it in its real runtime, and compare it with PyTorch.

    weights, model: as they were given to the export, if they were; model need not be told again unless it is a factory,
    since a bundle must not choose what code runs. weights_key, heads: instead of the manifest's. A file whose hash is
    wrong is not loaded: native runtimes trust their input. UserError if the folder is no bundle or the weights are
    others.
    """
    manifest = read_manifest(folder)
    loaded = _load(manifest, weights, model, weights_key, heads)
    set_dispatch(loaded.module, manifest.dispatch)
    keeps = tuple(dict.fromkeys(method.keep for entry in manifest.artifacts for method in entry.methods))
    references = make_references(loaded, keeps, manifest.limits.images)
    return [checked for entry in manifest.artifacts for checked in _check_file(folder, entry, manifest, references)]


def _load(
    manifest: Manifest, weights: str | None, model: str | None, weights_key: str | None, heads: int | None
) -> Loaded:
    if model is None and is_factory(manifest.model):
        met = f"a bundle made from {manifest.model}, which is code of its maker's"
        raise UserError(met, "to be told to run it", f"add --model {manifest.model}")
    if weights is not None and manifest.weights in (SHIPPED, RANDOM):
        expected = f"none: the bundle has the model's {manifest.weights} weights"
        raise UserError(f"--weights {weights}", expected, "leave it out")
    loaded = load(
        model or manifest.model, weights=weights, weights_key=weights_key or manifest.weights_key,
        image_size=manifest.image_size, num_classes=manifest.num_classes, heads=heads or manifest.heads,
    )  # fmt: skip
    if (loaded.weights, loaded.weights_sha256) == (manifest.weights, manifest.weights_sha256):
        return loaded
    if manifest.weights == FILE:
        met = f"--weights {weights}" if weights else f"{loaded.weights} weights"
        expected = f"the checkpoint of sha256 {manifest.weights_sha256}, which was exported"
        raise UserError(met, expected, "pass that checkpoint with --weights")
    met = f"a bundle made with other {manifest.weights} weights"
    raise UserError(met, f"the same as now ({loaded.weights})", "export the model again")


def _check_file(
    folder: Path, entry: Entry, manifest: Manifest, references: dict[float | None, Reference]
) -> list[Checked]:
    if fault := find_fault(folder, entry):
        return [Checked(entry.file, None, (fault,))]
    checks = []
    for method in entry.methods:
        try:
            run = load_backend(entry.format).load(folder / entry.file, manifest.threads, method.name)
        except UserError as e:
            checks.append(Checked(entry.file, method.keep, (str(e),)))
            continue
        parity, accuracy = measure(run, references[method.keep])
        faults = judge(parity, entry.precision, manifest.limits, manifest.trained, method.keep)
        doubt = explain_reference(parity, entry.precision)
        checks.append(Checked(entry.file, method.keep, tuple(faults), parity, accuracy, (doubt,) if doubt else ()))
    return checks
