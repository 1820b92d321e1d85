"""The bundle: a folder with the model files and their manifest, written whole or not at all."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import isfinite
from pathlib import Path

from bigvit_edge.artifact import (
    RANDOM,
    Array,
    Artifact,
    Entry,
    Manifest,
    Tensor,
    Verified,
    hash_file,
    measure_size,
    write_data,
)
from bigvit_edge.errors import InternalError, LimitError, UserError
from bigvit_edge.export.calibrated import convolves
from bigvit_edge.export.convert import (
    SILENT,
    Listener,
    Subject,
    convert_model,
    describe_input,
    list_refusals,
    load_backend,
)
from bigvit_edge.export.evaluation import prepare_evaluation
from bigvit_edge.export.gate import list_fallbacks
from bigvit_edge.export.hf_configs import write_configs
from bigvit_edge.export.inlay import list_inlays
from bigvit_edge.export.libraries import list_limits
from bigvit_edge.export.parity import judge, name_standard
from bigvit_edge.export.pictures import CALIBRATION, find_pictures
from bigvit_edge.export.references import Reference, are_probabilities, measure
from bigvit_edge.export.samples import write_samples
from bigvit_edge.folders import staging
from bigvit_edge.manifest import check_output, write_manifest
from bigvit_edge.models.blvit import set_dispatch
from bigvit_edge.models.hf_models import HF
from bigvit_edge.models.load import Loaded, load, read_keep, set_keep
from bigvit_edge.models.memory import check_memory
from bigvit_edge.preprocessing import Preprocessing
from bigvit_edge.target import Target, load_target

MOST_NAME = 200  # bytes of a file's name before the keep ratio, precision and format


@dataclass(frozen=True)
class Source:
    """The model to export, and folders of pictures.

    model: as load takes it. The pictures are to calibrate on, and to evaluate on (the demo's when None). Without the
    first, some of the second are calibrated on instead.
    """

    model: str
    weights: str | None = None
    image_size: int | None = None
    num_classes: int | None = None
    calibration: Path | None = None
    weights_key: str | None = None
    heads: int | None = None
    images: Path | None = None


def export_bundle(
    source: Source,
    target: Target,
    folder: Path,
    *,
    keeps: tuple[float, ...] = (),
    force: bool = False,
    allow_fallback: bool = False,
    unchecked: bool = False,
    listener: Listener = SILENT,
) -> tuple[Manifest, Loaded]:
    """Export a model for a target as a bundle in `folder`.

    Converts it at each keep ratio (its own if none is given) and checks every file against PyTorch. allow_fallback: go
    on where too much falls back; unchecked: keep a file whose answers cannot be evaluated here.

    UserError on input that cannot work; LimitError if a file misses the target's limits. In both cases nothing is
    written.
    """
    folder = check_output(folder, force)
    target.list_cells()
    _check_name(source.model)
    with staging(folder, partial(check_output, folder, force)) as part:  # now: what cannot be written shows first
        found = None if source.images is None else find_pictures(source.images)
        for name in target.list_modules():
            load_backend(name)  # a missing package shows now, not after minutes
        with listener.step("reference"):
            model = load(
                source.model, weights=source.weights, weights_key=source.weights_key, image_size=source.image_size,
                num_classes=source.num_classes, heads=source.heads,
            )  # fmt: skip
            model, target = _leave_out(model, target)
            check_memory(model.module, model.image_size, CALIBRATION)
            ratios = _set_keeps(model, keeps)
            calibrates = _check_calibration(model, target, source)
            evaluation = prepare_evaluation(
                model, ratios, target.limits.images, found, calibrates, source.calibration, listener.watch
            )
            limits = list_limits(target, ratios, model.labels, _is_bounded(evaluation.references))
            model = replace(model, notes=(*model.notes, *evaluation.notes, *limits))
            subject = _make_subject(model, ratios, evaluation.calibration)
            set_dispatch(model.module, target.dispatch)
        entries = []
        for artifact, layers in convert_model(subject, target, listener):
            path = part / _name_file(model, artifact, subject)
            write_data(artifact.data, path)
            with listener.step(f"check {artifact.format} {artifact.precision}"):
                entries.append(_describe(artifact, path, layers, model, target, evaluation.references, unchecked))
        manifest = Manifest(
            model=source.model, image_size=source.image_size, num_classes=source.num_classes, target=target.name,
            dispatch=target.dispatch, backend=target.backend, deployment=target.deployment, quant=target.quant,
            weights=model.weights, weights_sha256=model.weights_sha256, limits=target.limits, threads=target.threads,
            artifacts=tuple(entries), weights_key=source.weights_key, heads=source.heads,
            pictures=evaluation.pictures, calibrated=evaluation.digests, input=target.input,
        )  # fmt: skip
        _enforce(manifest, allow_fallback)
        extras, notes = write_configs(entries, part)
        model = replace(model, notes=(*model.notes, *notes))
        manifest = replace(manifest, samples=write_samples(entries, part), extras=extras)
        write_manifest(manifest, part)
    return manifest, model


def _is_bounded(references: Mapping[float | None, Reference]) -> bool:
    """Whether PyTorch answers with shares, of which a softmax makes others: a sigmoid's, and not a softmax's own."""
    answers = [reference.logits for reference in references.values()]
    shares = all(((found >= 0) & (found <= 1)).all() for found in answers)
    return shares and not all(are_probabilities(found) for found in answers)


def _leave_out(model: Loaded, target: Target) -> tuple[Loaded, Target]:
    """The target without those of its preset's formats that cannot hold the model, of which the model's notes tell.
    UserError if they were asked for."""
    refusals = list_refusals(target, model.module)
    rest = tuple(name for name in target.formats if name not in refusals)
    if not refusals:
        return model, target
    kind = type(model.module)
    met = f"{model.source} ({kind.__module__}.{kind.__qualname__}) in {', '.join(refusals)}"
    if len(ours := list_inlays(model.module)) > 1:
        met += f", with {len(ours)} of ours in it ({', '.join(ours)})"
    expected = "a ViT or big.LITTLE ViT of this package"
    if refusals != ["bve"]:
        expected += ", or a model around one of them"
    if not rest or target.formats != load_target(target.name).formats:
        other = "add --set backend=xnnpack" if target.backend == "native" else "take another format, such as litert"
        raise UserError(met, expected, other)
    note = f"left out {met}, which takes {expected}"
    return replace(model, notes=(*model.notes, note)), replace(target, formats=rest)


def _check_calibration(model: Loaded, target: Target, source: Source) -> bool:
    """Whether a file is made by what the model sees on images. UserError on images for that where none is."""
    calibrates = target.calibrates() or (target.has_integers() and convolves(model.module, model.image_size))
    if source.calibration is not None and not calibrates:
        met = f"--calibration {source.calibration} for {', '.join(target.precisions)}"
        expected = "int8-static, int8-full, mixed, int8 for our core, or integers for a model with convolutions"
        raise UserError(met, expected, "leave it out")
    return calibrates


def _set_keeps(model: Loaded, keeps: tuple[float, ...]) -> tuple[float | None, ...]:
    for keep in keeps:
        set_keep(model.module, keep)
    return keeps or (read_keep(model.module),)


def _make_subject(model: Loaded, ratios: tuple[float | None, ...], calibration: Array) -> Subject:
    metadata = {
        "model": name_source(model.source),
        "labels": json.dumps(model.labels),
        **model.about,
    }
    trained = model.weights != RANDOM
    return Subject(model.module, model.image_size, ratios, calibration, trained, metadata, model.preprocessing)


def name_source(source: str) -> str:
    """Name a model as its files do.

    A path has its file's name without ending; hf: the folder's name.
    """
    if source.startswith(HF):
        return Path(source.removeprefix(HF)).resolve().name
    return source.removeprefix("timm:") if ":" in source or not Path(source).is_file() else Path(source).stem


def _name_stem(source: str) -> str:
    return re.sub(r"\W+", "_", name_source(source))


def _check_name(source: str) -> None:
    """UserError where a file named after the model would be named too long."""
    if (count := len(os.fsencode(_name_stem(source)))) > MOST_NAME:
        met = f"{source}, after which files are named, of {count} bytes"
        raise UserError(met, f"a name of at most {MOST_NAME}", "rename it")


def _name_file(model: Loaded, artifact: Artifact, subject: Subject) -> str:
    """Such as blvit_s_int8.pte; the keep ratio is in it only where one model becomes several files."""
    stem = _name_stem(model.source)
    apart = len(artifact.methods) < len(subject.keeps)
    keep = f"_{artifact.methods[0].keep:g}".replace(".", "") if apart else ""
    return f"{stem}{keep}_{artifact.precision}{load_backend(artifact.format).SUFFIX}"


def _describe(
    artifact: Artifact, path: Path, layers: Mapping[str, str], model: Loaded, target: Target,
    references: Mapping[float | None, Reference], unchecked: bool,
) -> Entry:  # fmt: skip
    """Load the written file in its real runtime, or an evaluator, and say what it does. UserError if that cannot be
    said and unchecked is not set."""
    how = describe_input(model.preprocessing, artifact.format, target)
    image = Tensor(artifact.input, how.shape, how.dtype)
    logits = Tensor(artifact.output, (1, model.num_classes))
    methods, reason = _verify(artifact, path, image, logits, how, target, references)
    if reason and not unchecked:
        met = f"{path.name} cannot be checked here ({reason})"
        raise UserError(
            met, "a file whose answers can be compared with PyTorch", "--unchecked keeps it nevertheless, marked so"
        )
    return Entry(
        file=path.name,
        format=artifact.format,
        precision=artifact.precision,
        sha256=hash_file(path),
        bytes=measure_size(path),
        inputs=(image,),
        outputs=(logits,),
        preprocessing=how,
        labels=model.labels,
        methods=methods,
        layers=dict(layers),
        tools=artifact.tools,
        evaluated=artifact.evaluated,
        unchecked=reason,
    )


def _verify(
    artifact: Artifact, path: Path, image: Tensor, logits: Tensor, how: Preprocessing, target: Target,
    references: Mapping[float | None, Reference],
) -> tuple[tuple[Verified, ...], str]:  # fmt: skip
    """The entry points against PyTorch, and '' or, of a file that is only evaluated here, why that cannot be."""
    backend, methods, reason = load_backend(artifact.format), [], artifact.unchecked
    for method in artifact.methods if not reason else ():
        try:
            run = backend.load(path, target.threads, method.name)
            said = run.image, run.dtype, run.logits, run.output
            if said != (image.shape, image.dtype, logits.shape, logits.name):
                raise InternalError(f"{path.name} says {said} of itself, and was written for {image} -> {logits}")
            found = measure(run, references[method.keep], how)
        except UserError as e:  # the path is that of a folder which is about to vanish
            reason = e.met.replace(str(path), path.name)
            if not artifact.evaluated:
                raise UserError(reason, e.expected, f"leave {artifact.format} out of --set formats=") from e
            break
        methods.append(Verified(**vars(method), **found._asdict()))
    if reason:
        methods = [Verified(**vars(method), parity=None, accuracy=None) for method in artifact.methods]
    return tuple(methods), reason


def _enforce(manifest: Manifest, allow_fallback: bool) -> None:
    """LimitError on a file past its limits, or, unless that is allowed, on one of which too much falls back."""
    infinite = [
        f"{entry.file}, {method.name}: answers that are not finite"
        for entry in manifest.artifacts
        for method in entry.methods
        if method.parity
        and not isfinite(method.parity.max_abs)  # which no limit may allow, since no manifest can say it
    ]
    faults = infinite or [
        f"{entry.file}{'' if method.keep is None else f', keep {method.keep:g}'}: {fault}"
        for entry in manifest.artifacts
        for method in entry.methods
        if method.parity
        for fault in judge(
            method.parity, name_standard(entry.precision, method), manifest.limits, manifest.trained, method.keep
        )
    ]
    fallbacks = (
        [] if allow_fallback else [line for e in manifest.artifacts for line in list_fallbacks(e, manifest.limits)]
    )
    if fallbacks:
        fallbacks.append("--allow-fallback exports it nevertheless; --max-fallback sets the share")
    if faults or fallbacks:
        raise LimitError("\n".join(faults + fallbacks))
