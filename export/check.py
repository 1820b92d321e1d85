"""Is a bundle still what was exported? Every file's bytes, and its answers against PyTorch's."""

import sys
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bigvit_edge.artifact import FACTORY, FILE, RANDOM, SHIPPED, Entry, Manifest
from bigvit_edge.errors import UserError, keep_few
from bigvit_edge.export.evaluation import prepare_check
from bigvit_edge.export.parity import explain_reference, judge, name_standard
from bigvit_edge.export.pictures import Watch, find_pictures, unwatched
from bigvit_edge.export.references import Reference, measure
from bigvit_edge.interruption import check_interruption
from bigvit_edge.manifest import AGAIN, EDITED, find_fault, is_edited, list_side_faults, read_manifest
from bigvit_edge.measures import Accuracy, Confusion, Parity
from bigvit_edge.models.blvit import set_dispatch
from bigvit_edge.models.load import Loaded, is_factory, load
from bigvit_edge.models.memory import check_memory
from bigvit_edge.runtime.opening import open_entry
from bigvit_edge.target import LAYER_PRECISIONS

# What the quantised Linears of a precision can be; of mixed, any.
LAYERS = {"fp32": (), "fp16": (), "int8": ("int8",), "int8-static": ("int8-static",), "int4": ("int4", "int8")}


@dataclass(frozen=True)
class Checked:
    """The verdict on one entry point of a file.

    faults: what is wrong, in words; parity and accuracy are None if it was not run. keep: None if the model has none,
    or the file was not opened. notes: what the images could not show, and what of them was left out; confusions: of the
    user's pictures.
    """

    file: str
    keep: float | None
    faults: tuple[str, ...]
    parity: Parity | None = None
    accuracy: Accuracy | None = None
    notes: tuple[str, ...] = ()
    confusions: tuple[Confusion, ...] = ()


def check_bundle(
    folder: Path,
    weights: str | None = None,
    model: str | None = None,
    *,
    weights_key: str | None = None,
    heads: int | None = None,
    images: Path | None = None,
    watch: Watch = unwatched,
) -> list[Checked]:
    """Verify every file of a bundle against its manifest and PyTorch.

    Each file's hash is verified, what the manifest says of it compared with the model and with the file itself, and the
    file reloaded in its real runtime and its answers compared with PyTorch's. A file whose hash is wrong is not loaded:
    native runtimes trust their input. Of samples and extras, those that are not as exported
    are named.

    weights, model: as they were given to the export, if they were; model need not be told again unless it is a factory,
    since a bundle must not choose what code runs. weights_key, heads: instead of the manifest's. images: a folder of
    pictures to compare on, as of export; watch shows how far that is. UserError if the folder is no bundle or the
    weights are others.
    """
    manifest = read_manifest(folder)
    found = None if images is None else find_pictures(images)
    edited = [EDITED] if is_edited(folder, manifest) else []
    try:
        loaded = _load(manifest, weights, model, weights_key, heads)
    except UserError as e:
        if not edited:
            raise
        raise UserError(f"{EDITED}; by what it says: {e.met}", e.expected, AGAIN) from e
    set_dispatch(loaded.module, manifest.dispatch)
    keeps = tuple(dict.fromkeys(method.keep for entry in manifest.artifacts for method in entry.methods))
    check_memory(loaded.module, loaded.image_size)
    with redirect_stdout(sys.stderr):  # what a user's model prints is no part of --json
        references, notes = prepare_check(loaded, keeps, found, manifest, watch)
    files = (_check_file(folder, entry, manifest, loaded, references, edited) for entry in manifest.artifacts)
    samples = [Checked(name, None, (fault,)) for name, fault in list_side_faults(folder, manifest)]
    return [replace(checked, notes=(*checked.notes, *notes)) for methods in files for checked in methods] + samples


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
    if model is not None and model != manifest.model:
        met = f"--model {model}, whose weights are others"
        raise UserError(met, f"{manifest.model}, of which the bundle was made", f"add --model {manifest.model}")
    if manifest.weights == FACTORY:
        met = f"{model}, which gives other weights than at the export"
        do = "let it draw none anew on each call, or load a checkpoint; then export again"
        raise UserError(met, "the same model from each call", do)
    met = f"a bundle made with other {manifest.weights} weights"
    raise UserError(met, f"the same as now ({loaded.weights})", "export the model again")


def list_contradictions(entry: Entry, manifest: Manifest, model: Loaded) -> list[str]:
    """List in words where the manifest contradicts the model, for a file.

    A manifest before version 3 says nothing of crop and interpolation, whatever the model wants.
    """
    own = model.preprocessing
    if manifest.version < 3:
        told = entry.preprocessing
        own = replace(own, crop=told.crop, resize=told.resize, resize_to=told.resize_to)
    pairs: list[tuple[str, object, object]] = [("classes", entry.outputs[0].shape[1], model.num_classes)]
    told = replace(entry.preprocessing, dtype=own.dtype, layout=own.layout)  # which are the file's own
    pairs += [(name, value, getattr(own, name)) for name, value in asdict(told).items()]
    if len(entry.labels or ()) == len(model.labels or ()):
        labels = zip(entry.labels or (), model.labels or (), strict=True)
        pairs += [(f"label of class {i}", told, own) for i, (told, own) in enumerate(labels)]
    elif manifest.version >= 3 or entry.labels:
        pairs.append(("labels", len(entry.labels or ()), len(model.labels or ())))
    said = [f"the manifest says {name} {told}, the model {own}" for name, told, own in pairs if told != own]
    if wrong := sorted({*entry.layers.values()} - {*LAYERS.get(entry.precision, LAYER_PRECISIONS)}):
        said.append(f"the manifest says that Linears of an {entry.precision} file are {', '.join(wrong)}")
    return keep_few(said)


def _check_file(
    folder: Path,
    entry: Entry,
    manifest: Manifest,
    model: Loaded,
    references: dict[float | None, Reference],
    edited: list[str],
) -> list[Checked]:
    if fault := find_fault(folder, entry):
        return [Checked(entry.file, None, (fault,))]
    said = list_contradictions(entry, manifest, model) or edited
    if (entry.preprocessing.size, entry.outputs[0].shape[1]) != (model.image_size, model.num_classes):
        return [Checked(entry.file, None, tuple(said))]
    checks = []
    for method in entry.methods:
        check_interruption()
        try:
            run = open_entry(folder, entry, manifest.threads, method.name)
            parity, accuracy, confusions = measure(run, references[method.keep], entry.preprocessing)
        except UserError as e:
            faults, notes = ([], (f"unchecked: {entry.unchecked}",)) if entry.unchecked else ([str(e)], ())
            checks.append(Checked(entry.file, method.keep, (*said, *faults), notes=notes))
            continue
        standard = name_standard(entry.precision, method)
        faults = said + judge(parity, standard, manifest.limits, manifest.trained, method.keep)
        doubts = [doubt] if (doubt := explain_reference(parity, standard, manifest.limits, method.keep)) else []
        checks.append(Checked(entry.file, method.keep, tuple(faults), parity, accuracy, tuple(doubts), confusions))
    return checks
