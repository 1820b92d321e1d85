"""The benchmark app for iPhones and iPads: a Swift package around a bundle's Core ML packages, for Xcode to build."""

import json
import shutil
from dataclasses import replace
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from bigvit_edge.artifact import Entry, Verified, list_versions
from bigvit_edge.errors import UserError
from bigvit_edge.folders import staging
from bigvit_edge.manifest import find_fault, read_manifest
from bigvit_edge.preprocessing import FLOAT32, NCHW, UINT8
from bigvit_edge.runtime.libraries import check_output
from bigvit_edge.runtime.swift_package import write_swift_package
from bigvit_edge.tasks import find_task

TEMPLATES, FORMAT = "ios_app", "coreml"
EXPORT = "bigvit-edge export --target ios -o dist/ios, and name that"
LEAST_IOS = 17  # of what the screen is written with
MODELS = "Sources/BigvitBench/Bundle"


def write_ios_app(output: Path, bundle: Path) -> tuple[str, ...]:
    """Write a Swift package that measures a bundle's Core ML packages.

    Into `output`, new or empty, whole or not at all:

        Package.swift, README.md
        Sources/BenchRecords/       the bench, its verdicts, the result file
        Sources/BigvitBench/        Core ML, the screen; Bundle/: the packages and models.json
        BigvitEdge/                 the core as a Swift package, for pictures and what the machine tells

    Returns notes: what of the bundle was left out. UserError on a bundle without Core ML packages, of another task than
    the classes that the screen shows, or not as exported.
    """
    output = check_output(output)
    manifest = read_manifest(bundle)
    if not find_task(manifest.task).LABELLED:
        raise UserError(
            f"{bundle}, of a model for {manifest.task}", "a classifier, whose classes the app shows", EXPORT
        )
    entries = [entry for entry in manifest.artifacts if entry.format == FORMAT]
    if not entries:
        has = ", ".join(sorted({entry.format for entry in manifest.artifacts})) or "no files"
        raise UserError(f"{bundle} with {has}", "a bundle with Core ML packages", EXPORT)
    for entry in entries:
        if fault := find_fault(bundle, entry):
            raise UserError(f"{bundle / entry.file} {fault}", "a bundle as exported", EXPORT)
    with staging(output, partial(check_output, output)) as part:
        with as_file(files("bigvit_edge.app") / TEMPLATES) as templates:
            shutil.copytree(templates, part, dirs_exist_ok=True)
        package = part / "Package.swift"
        system = max(LEAST_IOS, int(manifest.deployment.removeprefix("iOS")))
        package.write_text(package.read_text().replace("@IOS@", str(system)))
        write_swift_package(part / "BigvitEdge")
        (part / MODELS).mkdir()
        for entry in entries:
            shutil.copytree(bundle / entry.file, part / MODELS / entry.file)
        listed = [_describe(entry, method) for entry in entries for method in entry.methods]
        told = {"tool": list_versions(())["bigvit-edge"], "models": listed}
        (part / MODELS / "models.json").write_text(json.dumps(told, indent=1) + "\n")
    left = [entry.file for entry in manifest.artifacts if entry.format != FORMAT]
    return (f"{', '.join(left)}: left out, which Core ML does not open",) if left else ()


def _describe(entry: Entry, method: Verified) -> dict[str, Any]:
    """As BundledModel in Swift.

    The core prepares tensors: of a package that takes pixels, the app makes those of them again.
    """
    how, levels = entry.preprocessing, None
    if how.dtype == UINT8:
        mean, std = (values[::-1] if how.color == "BGR" else values for values in (how.mean, how.std))
        how = replace(how, dtype=FLOAT32, layout=NCHW, color="RGB", mean=mean, std=std)
        levels = [{"factor": s / how.scale, "offset": m / how.scale} for m, s in zip(mean, std, strict=True)]
    return {
        "subject": {
            "file": entry.file,
            "sha256": entry.sha256,
            "bytes": entry.bytes,
            "precision": entry.precision,
            "method": method.name,
            "keep": method.keep,
            "delegatedShare": max(0.0, 1 - sum(leftover.mac_share for leftover in method.leftovers)),
        },
        "several": len(entry.methods) > 1,
        "input": entry.inputs[0].name,
        "output": entry.outputs[0].name,
        "size": entry.preprocessing.size,
        "preprocessing": json.dumps(how.spell()),
        "levels": levels,
        "labels": list(entry.labels or ()),
    }
