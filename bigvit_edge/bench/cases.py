"""What is measured: files, alone or of a bundle, each at each of its entry points."""

import json
import os
import struct
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from bigvit_edge.artifact import MANIFEST, Entry, Verified, find_format, hash_file, measure_size
from bigvit_edge.errors import UserError, list_few
from bigvit_edge.manifest import find_fault, read_manifest
from bigvit_edge.results import spell_path
from bigvit_edge.runtime import tflite
from bigvit_edge.runtime.outside_data import OutsideDataError, explain_failure, refuse_outside_data

APPLE = "Core ML runs on Apple's systems alone"


@dataclass(frozen=True)
class Case:
    """One entry point of one file.

    name: the file's own, after as much of its folders as tells it from the others. entry: of the manifest, None of a
    file alone, of which only its format is known. native: it needs our core inside its runtime. calibrated: on which
    pictures, by digest. runs_nowhere: why no device that is known here could run it, "" if one could.
    """

    name: str
    path: Path
    sha256: str
    bytes: int
    format: str
    entry: Entry | None = None
    method: Verified | None = None
    native: bool = False
    model: str = ""
    runs_nowhere: str = ""
    calibrated: tuple[str, ...] = ()

    @property
    def keep(self) -> float | None:
        """Tell the keep ratio, if it has one."""
        return self.method.keep if self.method else None

    @property
    def delegated_share(self) -> float | None:
        """Tell the share of the multiply-accumulates that the intended unit takes."""
        if self.method is None:
            return None
        return max(0.0, 1 - sum(leftover.mac_share for leftover in self.method.leftovers))

    def spell_preprocessing(self) -> str:
        """Spell as JSON how pictures are prepared.

        "" where only the file's own runtime can say.
        """
        if self.entry:
            return json.dumps(self.entry.preprocessing.spell())
        if self.format != "litert":
            return ""
        try:
            return tflite.read_strings(self.path.read_bytes()).get("preprocessing", "")
        except (OSError, struct.error, IndexError, ValueError):  # whoever runs it says so
            return ""


def list_cases(paths: list[Path], keep: float | None = None) -> list[Case]:
    """List the cases of bundles and files, in their order.

    keep: only entry points of that ratio. UserError on what is neither a bundle nor a model file, on one that is not as
    exported, on one that comes twice or has data in other files, and where nothing is left.
    """
    cases = _name([case for path in paths for case in _list_path(path)])
    for path in dict.fromkeys(case.path for case in cases if case.format == "onnx"):
        _refuse_outside_data(path)
    if keep is not None:
        has = sorted({case.keep for case in cases if case.keep is not None})
        cases = [case for case in cases if case.keep == keep]
        if not cases:
            expected = f"one of {', '.join(f'{ratio:g}' for ratio in has)}" if has else "none: no model has a ratio"
            raise UserError(f"--keep {keep:g}", expected, "leave it out, or export with it")
    return cases


def _name(cases: list[Case]) -> list[Case]:
    """Files of one name are told apart by their folders', from the right."""
    counts = Counter((case.path.resolve(), case.method and case.method.name) for case in cases)
    if again := next((path for (path, _), count in counts.items() if count > 1), None):
        raise UserError(f"{again} twice", "each file once", "name it once")
    places = {case.path: case.path.absolute().parts for case in cases}
    named = []
    for case in cases:
        parts, others = places[case.path], set(places.values()) - {places[case.path]}
        count = next(n for n in range(1, len(parts) + 1) if all(other[-n:] != parts[-n:] for other in others))
        named.append(replace(case, name=spell_path("/".join(parts[-count:]))))
    return named


def _refuse_outside_data(path: Path) -> None:
    """As its loader does; what is no model at all is its runtime's to say."""
    try:
        refuse_outside_data(path.read_bytes())
    except OutsideDataError as e:
        raise explain_failure(path, e) from e
    except (OSError, ValueError):
        return


def _list_path(path: Path) -> list[Case]:
    if not os.path.lexists(path):
        raise UserError(f"no {path}", "a bundle or a model file", "check the path")
    if os.path.lexists(path / MANIFEST):
        return [case for entry in read_manifest(path).artifacts for case in _list_entry(path, entry)]
    if os.path.lexists(path.parent / MANIFEST):
        entries = {entry.file: entry for entry in read_manifest(path.parent).artifacts}
        if path.name in entries:
            return _list_entry(path.parent, entries[path.name])
    if path.is_dir():
        holds = list_few(sorted(item.name for item in path.iterdir())) or "nothing"
        raise UserError(f"{path}, a folder of {holds}", "a bundle or a model file", "check the path")
    format_ = find_format(path)
    return [Case(path.name, path, hash_file(path), path.stat().st_size, format_)]


def _list_entry(folder: Path, entry: Entry) -> list[Case]:
    if fault := find_fault(folder, entry):
        raise UserError(f"{folder / entry.file}: {fault}", "the file as exported", "export the model again")
    manifest, path = read_manifest(folder), folder / entry.file
    native = manifest.backend == "native" and entry.format in ("litert", "executorch")
    nowhere = APPLE if entry.evaluated else ""
    alone = Case(path.name, path, entry.sha256, measure_size(path), entry.format, entry, None, native, manifest.model)
    alone = replace(alone, runs_nowhere=nowhere, calibrated=tuple(manifest.calibrated))
    return [replace(alone, method=method) for method in entry.methods]
