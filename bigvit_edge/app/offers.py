"""The models that a page is offered: of the files that the user named, those that a browser runs."""

import json
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bigvit_edge.bench.cases import Case, list_cases
from bigvit_edge.errors import UserError, list_few
from bigvit_edge.preprocessing import Preprocessing
from bigvit_edge.profile.subject import parse_preprocessing
from bigvit_edge.runtime import tflite
from bigvit_edge.runtime.outside_data import refuse_outside_data

RUNTIMES = {"onnx": "onnxruntime-web", "litert": "LiteRT.js"}
MAGIC = b"TFL3"  # at the fifth byte of a .tflite
OURS = "its ops are our core's, which no browser has"


@dataclass(frozen=True)
class Offer:
    """A model file as the page is told of it.

    told: JSON, as a host's models() has it. stamp: size and time of change when its hash was computed.
    """

    path: Path
    told: dict[str, Any]
    stamp: tuple[int, int]

    def is_same(self) -> bool:
        """Tell whether the file is still the one that was hashed."""
        try:
            return self.stamp == _stamp(self.path)
        except OSError:
            return False


def list_offers(paths: Sequence[Path]) -> tuple[dict[str, Offer], list[str]]:
    """List what a browser runs of bundles and files, by id.

    And what is left out, with why. UserError on what is no model file, and where nothing is left.
    """
    offers: dict[str, Offer] = {}
    left_out: dict[str, str] = {}
    cases: dict[str, list[Case]] = {}
    for case in list_cases(list(paths)):
        cases.setdefault(case.name, []).append(case)
    for name, group in cases.items():
        number, stamp = str(len(offers)), _stamp(group[0].path)
        try:
            offers[number] = Offer(group[0].path, _tell(number, group), stamp)
        except _NotRunError as e:
            left_out[name] = str(e)
    if not offers:
        met = list_few([f"{name}: {why}" for name, why in left_out.items()], by="; ")
        raise UserError(met, "an .onnx or a .tflite, which browsers run", "export with --format onnx,litert")
    return offers, [f"{name} is left out: {why}" for name, why in left_out.items()]


class _NotRunError(Exception):
    """Why no browser runs a file."""


def _tell(number: str, cases: Sequence[Case]) -> dict[str, Any]:
    case, entry = cases[0], cases[0].entry
    if case.format not in RUNTIMES:
        raise _NotRunError(f"no browser runs {case.format}")
    if case.native:
        raise _NotRunError(OURS)
    told = {
        "id": number, "name": case.name, "format": case.format, "bytes": case.bytes, "sha256": case.sha256,
        "bundle": case.model,
    }  # fmt: skip
    if entry is None:
        return told | (_read_tflite if case.format == "litert" else _read_onnx)(case.path)
    methods = [(case.method.name, case.method.keep) for case in cases if case.method]
    return told | _describe(entry.precision, methods, entry.preprocessing, entry.labels)


def _read_onnx(path: Path) -> dict[str, Any]:
    """Of one alone nothing is known but that it is one."""
    try:
        refuse_outside_data(path.read_bytes())
    except ValueError as e:
        raise _NotRunError("it is no .onnx, or a damaged one") from e
    return _describe("", [(None, None)])


def _read_tflite(path: Path) -> dict[str, Any]:
    """Of one alone, what it says of itself."""
    data = path.read_bytes()
    try:
        if data[4:8] != MAGIC:
            raise ValueError("other bytes")
        if tflite.holds_program(data):
            raise _NotRunError(OURS)
        if foreign := tflite.list_custom_ops(data):
            ops = ", ".join(name.decode(errors="replace") for name in foreign)
            raise _NotRunError(f"{RUNTIMES['litert']} has no op {ops}")
        words, names = tflite.read_strings(data), (*tflite.list_methods(data),)
        labels = json.loads(words.get("labels", "null"))
    except (struct.error, IndexError, ValueError, RecursionError) as e:
        raise _NotRunError("it is no .tflite, or a damaged one") from e
    preprocessing = parse_preprocessing(words.get("preprocessing"))
    is_list = isinstance(labels, list) and all(isinstance(label, str) for label in labels)
    return _describe(
        words.get("precision", ""), [(name, None) for name in names or (None,)], preprocessing,
        labels if is_list else None,
    )  # fmt: skip


def _describe(
    precision: str, methods: Sequence[tuple[str | None, float | None]], preprocessing: Preprocessing | None = None,
    labels: Sequence[str] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """methods: names and keep ratios. What a browser's back end takes, nobody says."""
    return {
        "precision": precision, "methods": [{"name": n, "keep": keep, "delegated_share": None} for n, keep in methods],
        "preprocessing": preprocessing and asdict(preprocessing), "labels": labels,
    }  # fmt: skip


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
