"""A sweep's jobs: exports, and benches of what they make, each with a key of what its outcome depends on.

Of an export: the model, its weights and calibration, the settings, and the versions of the packages and the library of
our own that it is made and verified by. Of a bench: its export, its protocol, and the bve-run that measures it. The
packages are this machine's, which a bench on it loads too; which runtimes another machine has is not known before.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bigvit_edge.artifact import FACTORY, hash_file, list_versions
from bigvit_edge.devices.binaries import identify_bve_run
from bigvit_edge.errors import UserError
from bigvit_edge.export.pictures import find_pictures
from bigvit_edge.extras import BASE, EXTRAS
from bigvit_edge.runtime import LIBRARY, find_library
from bigvit_edge.sweep.settings import Model, Sweep

OF_MODELS = {"timm": ("timm", "torchvision"), "hf": ("transformers", "torchvision")}  # packages, by a name's start
LIBRARIES = {"bve": LIBRARY, "executorch": "libbve_executorch.so", "litert": "libbve_litert.so"}
LONGEST = 60  # letters of a job's name before its key


@dataclass(frozen=True)
class Identity:
    """A model as it was found: what its exports depend on.

    weights: as of the manifest; digest: of the weights and, of a user's own function, its source. keeps: whether it has
    a keep ratio. notes: of what loading it assumed.
    """

    name: str
    weights: str
    digest: str | None
    keeps: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Export:
    """A bundle to make: one model in one format and precision.

    At all keep ratios. shown: its name for people.
    """

    name: str
    shown: str
    model: Model
    format: str
    precision: str
    keeps: tuple[float, ...]
    target: str
    settings: tuple[str, ...]
    images: str | None


@dataclass(frozen=True)
class Bench:
    """A bundle to measure on a device, with its protocol."""

    name: str
    export: Export
    device: str
    clusters: tuple[str, ...]
    threads: int | None
    images: str | None
    rounds: int
    minutes: float
    fps: float
    cool: float | None

    @property
    def shown(self) -> str:
        """Name the job for people."""
        threads = "" if self.threads is None else f", {self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{self.export.shown} on {self.device}{threads}"


Job = Export | Bench


def identify_model(model: Model) -> Identity:
    """Load a model once, for what its exports depend on.

    UserError if it cannot be.
    """
    from bigvit_edge.export.bundle import name_source
    from bigvit_edge.models.load import load, read_keep

    loaded = load(
        model.model, weights=model.weights, weights_key=model.weights_key, image_size=model.image_size,
        num_classes=model.num_classes, heads=model.heads,
    )  # fmt: skip
    digest = loaded.weights_sha256
    if loaded.weights == FACTORY or _is_factory(model.model):
        digest = _hash([digest, _read_source(model.model)])
    keeps = read_keep(loaded.module) is not None
    return Identity(name_source(model.model), loaded.weights, digest, keeps, loaded.notes)


def list_jobs(sweep: Sweep, identities: Sequence[Identity]) -> tuple[list[Export], list[Bench]]:
    """List the jobs of a sweep, in the order of its lists."""
    images = _hash_pictures(sweep.images)
    names = [identity.name for identity in identities]
    exports = []
    for number, (model, identity) in enumerate(zip(sweep.models, identities, strict=True)):
        shown = identity.name if names.count(identity.name) == 1 else f"{identity.name} ({number})"
        keeps = sweep.keeps if identity.keeps else ()
        calibration = _hash_pictures(model.calibration)
        plain = asdict(replace(model, weights=None, calibration=None))  # files count by what they hold
        of_model = OF_MODELS.get(model.model.partition(":")[0], ())
        told_of_model = [plain, identity.weights, identity.digest]
        for format_, precision in ((f, p) for p in sweep.precisions for f in sweep.formats):
            settings = (f"formats={format_}", f"precisions={precision}", *sweep.settings)
            made_by = list_versions((*EXTRAS[BASE], *EXTRAS.get(format_, ()), *of_model)), _hash_library(format_)
            told = [told_of_model, keeps, sweep.target, settings, images, calibration, made_by]
            name = _name(f"{identity.name}_{format_}_{precision}", told)
            called = f"{shown} {format_} {precision}"
            exports.append(Export(name, called, model, format_, precision, keeps, sweep.target, settings, sweep.images))
    benches = []
    for device in sweep.devices:
        program = identify_bve_run(device)
        for export in exports:
            for threads in sweep.threads:
                fields: dict[str, Any] = {
                    "device": device, "clusters": sweep.clusters, "threads": threads, "rounds": sweep.rounds,
                    "minutes": sweep.minutes, "fps": sweep.fps, "cool": sweep.cool,
                }  # fmt: skip
                measured = [export.name, fields, images, program]
                name = _name(f"{export.name[: export.name.rfind('-')]}_{device}", measured)
                benches.append(Bench(name, export, images=sweep.images, **fields))
    return exports, benches


def list_notes(sweep: Sweep, identities: Sequence[Identity]) -> list[str]:
    """List what a user has to know of a sweep's models."""
    notes = [f"{identity.name}: {note}" for identity in identities for note in identity.notes]
    if sweep.keeps:
        notes += [f"{i.name} has no keep ratio: keeps are not for it" for i in identities if not i.keeps]
    return notes


def _name(words: str, told: object) -> str:
    """A file's name: words for people, and a key."""
    return f"{re.sub(r'[^A-Za-z0-9.-]+', '_', words)[:LONGEST]}-{_hash(told)[:12]}"


def _hash(told: object) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _hash_library(format_: str) -> str | None:
    """Of our own library for the format, where there is one."""
    if format_ not in LIBRARIES:
        return None
    try:
        return hash_file(find_library(LIBRARIES[format_]))
    except UserError:
        return None


def _hash_pictures(folder: str | None) -> str | None:
    """Of the bytes and classes of a folder's pictures; UserError if there are none."""
    if folder is None:
        return None
    pictures = find_pictures(Path(folder))[0]
    return _hash([(str(p.path.relative_to(folder)), p.label, hash_file(p.path)) for p in pictures])


def _is_factory(source: str) -> bool:
    from bigvit_edge.models.load import is_factory

    return is_factory(source)


def _read_source(source: str) -> str:
    """The text of the file that a user's function is in."""
    import sys

    file = getattr(sys.modules[source.partition(":")[0]], "__file__", None)
    if file is None:
        raise UserError(f"{source}, whose source is no file", "a function in a file", "put it into one")
    return Path(file).read_bytes().decode(errors="replace")
