"""A sweep's table: a row for each row of a bench, and one for each job that failed or is still to come."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from bigvit_edge.artifact import Manifest, Verified
from bigvit_edge.bench.comparison import bound_median
from bigvit_edge.machine import describe
from bigvit_edge.manifest import read_manifest
from bigvit_edge.measures import Interval, bound_share
from bigvit_edge.results import FAILED, VALID, Answers, Energy, Frames, Result, Row, read_result
from bigvit_edge.sweep.folder import Folder
from bigvit_edge.sweep.jobs import Bench

PENDING = "not run yet"
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # with which a spreadsheet's formulas begin


@dataclass(frozen=True)
class Point:
    """A row of the table; None where something is not known.

    p50_low, p50_high: the 95 % interval of p50. accuracy: on the images of the export, by the file itself; else what
    the device answered; accuracy_of says which. agreement: of top-1 with PyTorch. verdict: the row's, all of them;
    machine: what the device is; file: the result's, in the sweep's folder. frame_ms: from a camera's frame to its
    label, the median; frame_prepare_ms: of it, until the model's input was ready; frame_ratio: to the model alone.
    """

    model: str
    format: str
    precision: str
    keep: float | None
    device: str
    cores: str
    threads: int | None
    p50_ms: float | None = None
    p50_low_ms: float | None = None
    p50_high_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    cpu_ms: float | None = None
    peak_memory_bytes: int | None = None
    file_bytes: int | None = None
    cold_load_ms: float | None = None
    cold_first_ms: float | None = None
    warm_load_ms: float | None = None
    first_ms: float | None = None
    energy_mj: float | None = None
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    accuracy_of: str = ""
    agreement: float | None = None
    verdict: str = ""
    reason: str = ""
    machine: str = ""
    file: str = ""
    frame_ms: float | None = None
    frame_prepare_ms: float | None = None
    frame_ratio: float | None = None

    @property
    def is_valid(self) -> bool:
        """Tell whether its figures may be believed."""
        return self.verdict == VALID

    def name(self) -> str:
        """Name the row apart from others of its device."""
        keep = "" if self.keep is None else f" keep {self.keep:g}"
        return f"{self.model} {self.precision} {self.format}{keep}"


def list_points(folder: Folder, benches: Sequence[Bench], known: dict[str, list[Point]]) -> list[Point]:
    """List the table's rows as the folder now is.

    known: what was read before of benches that are done, by their names.
    """
    for bench in benches:
        if bench.name not in known and folder.is_done(bench):
            known[bench.name] = list(_read_points(folder, bench))
    return [point for bench in benches for point in known.get(bench.name) or [_explain_absence(folder, bench)]]


def write_csv(points: Sequence[Point]) -> str:
    """Write the table as CSV, the units in its header."""
    out = io.StringIO()
    names = [field.name for field in fields(Point)]
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    for point in points:
        writer.writerow({name: _spell(value) for name, value in asdict(point).items()})
    return out.getvalue()


def find_accuracy(method: Verified | None, row: Row) -> tuple[float, Interval, str] | None:
    """Find a row's accuracy, its interval, and on which images."""
    if method is not None and method.accuracy is not None:
        known = method.accuracy
        interval = known.top1_interval or bound_share(known.top1, known.images)
        return known.top1, interval, f"{known.images} images of the export"
    if isinstance(row.answers, Answers):
        answers = row.answers
        where = f"{answers.images} images on the device"
        return answers.top1, bound_share(answers.top1, answers.images), where
    return None


def _read_points(folder: Folder, bench: Bench) -> Iterator[Point]:
    result = read_result(folder.find_result(bench))
    manifest = read_manifest(folder.find_bundle(bench)) if folder.is_done(bench.export) else None
    for row in result.rows:
        yield _describe(bench, row, result, manifest, f"results/{bench.name}.json")


def _explain_absence(folder: Folder, bench: Bench) -> Point:
    reason = folder.read_failure(bench)
    if not reason and (failed := folder.read_failure(bench.export)):
        reason = f"its export failed: {failed}"
    export = bench.export
    return Point(
        _name_model(bench), export.format, export.precision, None, bench.device,
        ",".join(bench.clusters) or "big", bench.threads, verdict=FAILED if reason else PENDING, reason=reason,
    )  # fmt: skip


def _describe(bench: Bench, row: Row, result: Result, manifest: Manifest | None, file: str) -> Point:
    methods = {(e.file, m.keep): m for e in (manifest.artifacts if manifest else ()) for m in e.methods}
    method = methods.get((row.file, row.keep))
    figures: dict[str, Any] = {}
    if row.latency_ms:
        low, high = bound_median(row.turns)
        figures |= {"p50_ms": row.latency_ms.p50, "p50_low_ms": low, "p50_high_ms": high}
        figures |= {"p90_ms": row.latency_ms.p90, "p99_ms": row.latency_ms.p99, "cpu_ms": row.cpu_ms}
    if isinstance(row.frame, Frames) and row.frame.label_ms and row.frame.prepare_ms:
        figures |= {"frame_ms": row.frame.label_ms.p50, "frame_prepare_ms": row.frame.prepare_ms.p50}
        figures["frame_ratio"] = row.frame.ratio
    if row.load:
        figures |= {
            "cold_load_ms": row.load.cold_ms,
            "cold_first_ms": row.load.cold_first_ms,
            "warm_load_ms": row.load.warm_ms,
            "first_ms": row.load.first_ms,
        }
    if row.memory:
        figures["peak_memory_bytes"] = row.memory.peak_bytes
    if isinstance(row.energy, Energy):
        figures["energy_mj"] = row.energy.image_mj
    if accuracy := find_accuracy(method, row):
        share, (low, high), images = accuracy
        figures |= {"accuracy": share, "accuracy_low": low, "accuracy_high": high, "accuracy_of": images}
    if method and method.parity:
        figures["agreement"] = method.parity.top1_agreement
    return Point(
        model=_name_model(bench), format=row.format, precision=row.precision, keep=row.keep, device=result.device,
        cores=row.policy, threads=row.threads, file_bytes=row.bytes, verdict=", ".join(row.verdicts),
        reason="; ".join(row.reasons), machine=describe(result.machine), file=file, **figures,
    )  # fmt: skip


def _name_model(bench: Bench) -> str:
    """A model's name as in its job's, which format and precision follow there."""
    return bench.export.shown.rsplit(" ", 2)[0]


def _spell(value: object) -> str:
    """A cell; text that a spreadsheet would take for a formula is quoted, as is usual, by an apostrophe."""
    if value is None:
        return ""
    if isinstance(value, str):
        line = " ".join(value.split())
        return f"'{line}" if line.startswith(FORMULA) else line
    return repr(value)
