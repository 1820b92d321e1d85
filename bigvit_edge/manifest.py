"""Bundles on disk: the manifest read and written, and whether the folder is what was exported."""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any

from bigvit_edge.artifact import MANIFEST, PACKAGES, SAMPLES, Entry, Manifest, hash_file, measure_size
from bigvit_edge.errors import UserError, list_few
from bigvit_edge.folders import check_rights, is_plain, resolve_output

READABLE = (2, 3, 4)  # versions of the layout; what a newer one has besides has a default
MOST_BYTES = 2**26  # of a manifest
MOST_SAMPLE, MOST_EXTRA = 2**20, 2**26  # bytes; all that are shipped are far smaller
AGAIN = "export the model again"
EDITED = f"{MANIFEST} was edited after the export"


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write manifest.json, indented by two, in the order of the fields."""
    data = asdict(manifest)
    data["sha256"] = hash_manifest(data)
    (folder / MANIFEST).write_text(json.dumps(data, indent=2, allow_nan=False) + "\n")


def hash_manifest(data: dict[str, Any]) -> str:
    """Compute the sha256 of a manifest without its own `sha256`, in hex."""
    text = json.dumps({key: value for key, value in data.items() if key != "sha256"}, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Read a bundle's manifest.

    UserError if there is none, or it is not one of ours.
    """
    from pydantic import TypeAdapter, ValidationError  # here, because listing targets and models needs none of it

    path = folder / MANIFEST
    data = _parse_manifest(path)
    if data.get("version") not in READABLE:
        has = f"version {data['version']}" if "version" in data else "no version"
        raise UserError(f"{path} has {has}", f"version {' or '.join(map(str, READABLE))}", AGAIN)
    try:
        return TypeAdapter(Manifest).validate_json(json.dumps(data))
    except ValidationError as e:
        first = e.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole file"
        fault = f"{path} cannot be understood ({where}: {first['msg'].removeprefix('Value error, ')})"
        raise UserError(fault, "a manifest as exported", AGAIN) from e
    except UserError as e:  # from the limits' own check
        raise UserError(f"{path}: {e.met}", e.expected, AGAIN) from e


def _parse_manifest(path: Path) -> dict[str, Any]:
    """The JSON object in the file, all of whose numbers are finite and of at most 64 bits."""
    if not os.path.lexists(path):
        if path.parent.is_file():
            raise UserError(f"{path.parent} is a file", "the folder of a bundle", "name the folder it is in")
        raise UserError(f"no {MANIFEST} in {path.parent}", "a bundle made by bigvit-edge export", "check the path")
    if not is_plain(path) or path.stat().st_size > MOST_BYTES:
        met = f"{path} is a link, a folder, a device, or larger than {MOST_BYTES} bytes"
        raise UserError(met, "a manifest as exported", AGAIN)
    try:
        data = json.loads(
            path.read_bytes(), parse_float=_parse_number, parse_int=_parse_number, parse_constant=_parse_number
        )
        if not isinstance(data, dict):
            raise ValueError(f"the whole file: it is no object but {type(data).__name__}")
    except (ValueError, RecursionError) as e:
        raise UserError(f"{path} cannot be understood ({e})", "a manifest as exported", AGAIN) from e
    return data


def _parse_number(text: str) -> int | float:
    number = float(text)
    if not isfinite(number) or abs(number) >= 2**63:
        raise ValueError(f"the number {text[:20]}")
    return number if set(text) & set(".eE") else int(text)


def check_output(output: Path, force: bool = False) -> Path:
    """Check where a bundle may be written; return the absolute path.

    No change of the working directory moves it. There is nothing yet, an empty folder or, with force, a bundle exactly
    as it was exported. UserError naming what is in the way.
    """
    folder = resolve_output(output)
    found = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    if not found:
        return folder
    try:
        manifest = read_manifest(folder)
    except UserError as e:
        holds = f"it holds {list_few(found)}" if MANIFEST not in found else e.met
        met = f"{folder} exists and is not a bundle of this version ({holds})"
        raise UserError(met, "a new folder", "choose another -o, or move it away") from e
    if changes := list_changes(folder, manifest):
        met = f"{folder} is not the bundle alone, as it was exported: {list_few(changes, by='; ')}"
        raise UserError(met, "nothing in it that would be lost", "choose another -o, or move it away")
    if not force:
        raise UserError(f"{folder} is a bundle already", "a new folder", "add --force to replace it")
    for path in folder.rglob("*"):
        if path.is_dir():
            check_rights(path)
    return folder


def list_changes(folder: Path, manifest: Manifest) -> list[str]:
    """List in words how a bundle's folder differs from the export.

    Named are files, folders and links that are not its own, files of its own that are others now, and a manifest that
    was edited.
    """
    entries = {entry.file: entry for entry in manifest.artifacts}
    names = sorted(path.name for path in folder.iterdir())
    own = (MANIFEST, *entries, *manifest.extras, *([SAMPLES] if manifest.samples else []))
    foreign = [f"{name} is not the bundle's" for name in names if name not in own]
    changed = [f"{name}: {fault}" for name, entry in entries.items() if (fault := find_fault(folder, entry))]
    changed += [f"{name}: {fault}" for name, fault in list_side_faults(folder, manifest)]
    if manifest.samples and is_folder(folder / SAMPLES):
        within = sorted(f"{SAMPLES}/{path.name}" for path in (folder / SAMPLES).iterdir())
        foreign += [f"{name} is not the bundle's" for name in within if name not in manifest.samples]
    empty = [
        f"{path.relative_to(folder)} is an empty folder"
        for name in entries
        for path in sorted((folder / name).rglob("*"))
        if not path.is_symlink() and path.is_dir() and not any(path.iterdir())
    ]
    words = [f"{MANIFEST} has {word}" for word in _list_unknown(_parse_manifest(folder / MANIFEST), asdict(manifest))]
    if not words and is_edited(folder, manifest):
        words = [EDITED]
    return foreign + changed + empty + words


def is_edited(folder: Path, manifest: Manifest) -> bool:
    """Tell whether the manifest on disk differs from the one exported.

    False of one without a hash of its own: nobody knows.
    """
    return manifest.sha256 not in (None, hash_manifest(_parse_manifest(folder / MANIFEST)))


def _list_unknown(data: Any, known: Any, where: str = "") -> Iterator[str]:
    """The keys in JSON data that were not read from it."""
    if isinstance(data, dict) and isinstance(known, dict):
        for key, value in data.items():
            if key in known:
                yield from _list_unknown(value, known[key], f"{where}{key}.")
            else:
                yield f"{where}{key}"
    elif isinstance(data, list) and isinstance(known, list | tuple):
        for i, (one, other) in enumerate(zip(data, known, strict=True)):
            yield from _list_unknown(one, other, f"{where}{i}.")


def find_fault(folder: Path, entry: Entry) -> str | None:
    """Find what is wrong with a file's kind, size or bytes.

    None if nothing is.
    """
    path, package = folder / entry.file, entry.format in PACKAGES
    if fault := _find_other_kind(path, package):
        return fault
    try:
        size = measure_size(path)
        if size != entry.bytes:
            return f"the file was changed after the export: {size} bytes, the manifest says {entry.bytes}"
    except UserError as e:
        return e.met
    return _find_other_bytes(path, entry.sha256)


def list_side_faults(folder: Path, manifest: Manifest) -> list[tuple[str, str]]:
    """List the samples and extras that were changed, and how."""
    faults = []
    for name, sha256 in {**manifest.samples, **manifest.extras}.items():
        path = folder / name
        fault = None if name in manifest.extras or is_folder(folder / SAMPLES) else f"{SAMPLES} is no folder"
        fault = fault or _find_other_kind(path, False)
        if not fault and (size := measure_size(path)) > (MOST_EXTRA if name in manifest.extras else MOST_SAMPLE):
            fault = f"the file was changed after the export: {size} bytes"
        if fault := fault or _find_other_bytes(path, sha256):
            faults.append((name, fault))
    return faults


def is_folder(path: Path) -> bool:
    """Tell whether this is a folder itself, and no link to one."""
    return path.is_dir() and not path.is_symlink()


def _find_other_kind(path: Path, package: bool) -> str | None:
    if not os.path.lexists(path):
        return "the file is missing"
    kind = (
        "a link" if path.is_symlink() else "a folder" if path.is_dir() else "a file" if is_plain(path) else "a device"
    )
    expected = "a folder" if package else "a file"
    return None if kind == expected else f"{kind} is in its place, where {expected} was exported"


def _find_other_bytes(path: Path, sha256: str) -> str | None:
    try:
        found = hash_file(path)
    except UserError as e:
        return e.met
    if found == sha256:
        return None
    return f"the file was changed after the export: sha256 {found[:12]}…, the manifest says {sha256[:12]}…"
