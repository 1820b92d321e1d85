"""What was measured, with units, as tables for people."""

import resource
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from bigvit_edge import machine, runtime
from bigvit_edge.artifact import Entry, Manifest, Tensor
from bigvit_edge.errors import InternalError
from bigvit_edge.export.check import Checked
from bigvit_edge.export.convert import Listener
from bigvit_edge.export.coverage import explain_coverage, share_covered
from bigvit_edge.export.full import CALIBRATED
from bigvit_edge.export.gate import list_fallbacks
from bigvit_edge.export.parity import explain_reference, name_standard
from bigvit_edge.export.sensitivity import Sensitivity
from bigvit_edge.interruption import check_interruption
from bigvit_edge.measures import Accuracy, Coverage, Interval, Parity
from bigvit_edge.models.load import Loaded
from bigvit_edge.preprocessing import UINT8
from bigvit_edge.results import Times, describe_times
from bigvit_edge.runtime.opening import open_entry
from bigvit_edge.tables import print_rows, print_step, watch
from bigvit_edge.target import LAYER_PRECISIONS

STARTED = time.monotonic()  # the command line imports this when the work begins
Key = TypeVar("Key", bound=Hashable)
Point = tuple[str, float | None]  # an entry point: the file and the keep ratio
PARITY = ("cosine", "smallest", "centred", "top-1 agrees", "accuracy")  # columns


def measure_latency(runs: Mapping[Key, Callable[[], object]], rounds: int = 30) -> dict[Key, Times]:
    """Time several calls in turn, A B C A B C ....

    Each is warmed up once. Drift of the machine so falls on all alike.
    """
    times: dict[Key, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - start) * 1e3)
    return {name: describe_times(t) for name, t in times.items()}


def measure_bundle(folder: Path, manifest: Manifest, rounds: int = 30) -> dict[Point, Times]:
    """Measure the latency of a bundle's entry points on this machine.

    Files that are only evaluated here are left out: that says nothing of their speed.
    """
    runs = {
        (entry.file, method.keep): partial(
            open_entry(folder, entry, manifest.threads, method.name).run, draw_image(entry.inputs[0])
        )
        for entry in manifest.artifacts
        for method in entry.methods
        if not entry.evaluated
    }
    return measure_latency(runs, rounds)


def draw_image(tensor: Tensor) -> NDArray[Any]:
    """Draw an image for timing; any would do."""
    random = np.random.default_rng(0)
    if tensor.dtype == UINT8:
        return random.integers(256, size=tensor.shape, dtype=np.uint8)
    return random.standard_normal(tensor.shape, dtype=np.float32)


def print_sensitivities(sensitivities: Sequence[Sensitivity], chosen: Mapping[str, str]) -> None:
    """Print the table behind a `mixed` file.

    It has each Linear's SQNR at each precision, and what it became.
    """
    precisions = [p for p in LAYER_PRECISIONS if any(p in s.sqnr_db for s in sensitivities) and p != "fp32"]
    total = sum(s.macs for s in sensitivities) or 1
    rows = (
        (s.layer, f"{s.macs / total:.2%}", *(_decibels(s, p) for p in precisions), chosen[s.layer])
        for s in sensitivities
    )
    print_rows(("Linear", "share of MACs", *(f"{p}, dB" for p in precisions), "chosen"), rows)
    print("dB: signal over quantisation noise of the layer's output when it alone is quantised")


def _decibels(sensitivity: Sensitivity, precision: str) -> str:
    value = sensitivity.sqnr_db.get(precision)
    return "–" if value is None else f"{value:.1f}"


LISTENER = Listener(print_step, print_sensitivities, watch)


def finish_export(manifest: Manifest, model: Loaded, folder: Path, named: Path) -> None:
    """Time a new bundle's files, and print its table.

    named: what the user calls the folder. Whatever fails here is no fault of the user's: InternalError.
    """
    try:
        check_interruption()  # of a signal that came while the folder was put in its place
        print_bundle(manifest, model, measure_bundle(folder, manifest), named)
        print(end="", flush=True)
    except BaseException as e:
        note = f"the bundle is written whole, in {named}"
        if isinstance(e, BrokenPipeError) or not isinstance(e, Exception):
            e.add_note(note)
            raise
        error = InternalError(f"its table could not be printed ({type(e).__name__}: {e})")
        error.add_note(note)
        raise error from e


def print_bundle(manifest: Manifest, model: Loaded, latency: Mapping[Point, Times], folder: Path) -> None:
    """Print the table that ends an export."""
    rows = (
        (
            e.file, e.format, e.precision, "–" if m.keep is None else f"{m.keep:g}", f"{e.bytes / 1e6:.2f} MB",
            *_parity_cells(m.parity, m.accuracy, "unchecked"),
            _coverage_cell(m.coverage, e.precision),
            f"{latency[e.file, m.keep].p50:.2f} ms" if not e.evaluated else "–",
        )
        for e in manifest.artifacts
        for m in e.methods
    )  # fmt: skip
    print_rows(("file", "format", "precision", "keep", "size", *PARITY, "covers", "latency"), rows)
    for line in explain_bundle(manifest, model, latency, folder):
        print(line)


def explain_bundle(manifest: Manifest, model: Loaded, latency: Mapping[Point, Times], folder: Path) -> Iterator[str]:
    """Explain what the table's figures mean and where they come from."""
    methods = [method for entry in manifest.artifacts for method in entry.methods]
    yield f"{folder}/: {manifest.model} for target {manifest.target}"
    yield from (f"model: {note}" for note in model.notes)
    yield from (
        f"{e.file}: unchecked, its answers are unknown: {e.unchecked}" for e in manifest.artifacts if e.unchecked
    )
    images = next((str(m.parity.images) for m in methods if m.parity), "no")
    yield f"cosine (mean and smallest) and top-1 agreement: with PyTorch fp32, on {images} images"
    yield "centred: cosine of the logits without what those of all images have in common; ranges: 95 % confidence"
    doubts = (
        explain_reference(m.parity, name_standard(e.precision, m), manifest.limits, m.keep)
        for e in manifest.artifacts
        for m in e.methods
        if m.parity
    )
    yield from dict.fromkeys(doubt for doubt in doubts if doubt)
    expected = {m.keep: f"{m.accuracy.pytorch_top1:.1%}" for m in methods if m.accuracy}
    if expected:
        points = ", ".join(share if keep is None else f"{share} at keep {keep:g}" for keep, share in expected.items())
        same = "the same held-out images" if manifest.pictures is None else f"the {manifest.pictures.labelled} labelled"
        yield f"accuracy: on {same}, where PyTorch fp32 has {points}"
    if not manifest.trained:
        yield "weights: random, so no top-1 is asked, and the smallest cosine is held to limits.untrained_cosine"
    yield "covers: share of the multiply-accumulates, and of the weights, that are in the file's precision"
    for entry in manifest.artifacts:
        yield from _explain_layers(entry)
        yield from _explain_coverage(entry)
        yield from _explain_spans(entry)
    yield from _explain_leftovers(manifest.artifacts)
    for entry in manifest.artifacts:
        yield from (f"allowed: {line}" for line in list_fallbacks(entry, manifest.limits))
    if latency:
        runs, threads = next(iter(latency.values())).images, manifest.threads
        yield f"latency: median of {runs} interleaved runs, {threads} thread{'s' if threads > 1 else ''}, on this host:"
        yield f"  {machine.describe(runtime.probe())}"
    if any(entry.evaluated for entry in manifest.artifacts):
        yield "Core ML was evaluated op by op from the saved file, not run: its runtime is Apple's alone, so no latency"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    yield f"this export took {time.monotonic() - STARTED:.0f} s and {peak:.1f} GiB at its peak"


def _explain_layers(entry: Entry) -> Iterator[str]:
    """What the layers of a file are, where they are not all alike, and how often values are converted between them."""
    kinds = Counter(entry.layers.values())
    if len(kinds) > 1 or entry.precision == "mixed":
        yield (
            f"layers of {entry.file}: " + ", ".join(f"{n} {kind}" for kind, n in kinds.items()) + ", the others float"
        )
    if counts := [method.conversions for method in entry.methods if method.conversions]:
        yield f"{entry.file}: {max(counts)} conversions between float and what computes in int8 on ranges"


def _explain_spans(entry: Entry) -> Iterator[str]:
    """How many values of an int8-full file have a range, and how many only calibration bounds."""
    for method in entry.methods:
        if method.spans:
            seen = sum(span.bound == CALIBRATED for span in method.spans)
            yield (
                f"{entry.file}: {len(method.spans)} values in int8, {seen} of them bounded by calibration alone; "
                "manifest.json lists their ranges"
            )


def _explain_coverage(entry: Entry) -> Iterator[str]:
    """Which entry points of a file are mostly in float, whatever it is called."""
    for line in dict.fromkeys(explain_coverage(method.coverage, entry.precision) for method in entry.methods):
        if line:
            yield f"{entry.file}: {line}"


def _coverage_cell(coverage: Sequence[Coverage], precision: str) -> str:
    macs, weights = share_covered(coverage, precision)
    return f"{macs:.1%}, {weights:.1%}" if coverage else "–"


def _explain_leftovers(entries: Iterable[Entry]) -> Iterator[str]:
    """What stayed outside the unit that each file is meant for; files of which the same is true together."""
    outside: dict[str, list[str]] = {}
    for entry in entries:
        for method in entry.methods:
            ops = ", ".join(f"{n} {op}" for op, n in Counter(x.op for x in method.leftovers).most_common()) or "none"
            share = sum(x.mac_share for x in method.leftovers)
            name = entry.file if len(entry.methods) == 1 else f"{entry.file} {method.name}"
            outside.setdefault(f"{ops}; {share:.1%} of the multiply-accumulates", []).append(name)
    for text, names in outside.items():
        yield f"ops outside the delegate: {text}"
        yield f"  in {', '.join(names)}"


def _parity_cells(parity: Parity | None, accuracy: Accuracy | None, otherwise: str = "–") -> tuple[str, ...]:
    if parity is None:
        return (otherwise, *["–"] * (len(PARITY) - 1))
    return (
        f"{parity.cosine_mean:.5f}", f"{parity.cosine_min:.5f}",
        "–" if parity.centred_cosine is None else f"{parity.centred_cosine:.5f}",
        _share_cell(parity.top1_agreement, parity.top1_interval),
        _share_cell(accuracy.top1, accuracy.top1_interval) if accuracy else "–",
    )  # fmt: skip


def _share_cell(share: float, interval: Interval | None) -> str:
    """Such as 99.5% (98.8–99.8)."""
    return f"{share:.1%}" + (f" ({interval[0] * 100:.1f}–{interval[1] * 100:.1f})" if interval else "")


def print_checks(files: Sequence[Checked]) -> None:
    """Print the verdict on each entry point of a bundle's files."""
    rows = [
        (
            f.file,
            "–" if f.keep is None else f"{f.keep:g}",
            "bad" if f.faults else "good" if f.parity else "unchecked",
            f"{f.parity.max_abs:.2g}" if f.parity else "–",
            *_parity_cells(f.parity, f.accuracy),
        )
        for f in files
    ]
    print_rows(("file", "keep", "verdict", "largest difference", *PARITY), rows)
    for f in files:
        for fault in f.faults:
            print(f"{f.file}{'' if f.keep is None else f', keep {f.keep:g}'}: {fault}")
    for note in dict.fromkeys(note for f in files for note in f.notes):
        print(f"note: {note}")
