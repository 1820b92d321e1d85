"""What was measured, with units, as tables for people."""

import resource
import statistics
import sys
import time
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from bigvit_edge.artifact import Array, Manifest, Run
from bigvit_edge.devices import local
from bigvit_edge.export.check import Checked
from bigvit_edge.export.convert import load_backend

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Latency:
    """Of one image, in milliseconds: median, 90th percentile, number of runs."""

    p50_ms: float
    p90_ms: float
    runs: int


def measure_latency(runs: Mapping[Key, Run], image: Array, rounds: int = 30) -> dict[Key, Latency]:
    """Time several runners in turn, A B C A B C ..., after one warm-up each, so that drift of the machine falls on all
    alike.
    """
    times: dict[Key, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run(image)
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run(image)
            times[name].append((time.perf_counter() - start) * 1e3)
    return {name: Latency(statistics.median(t), float(np.percentile(t, 90)), rounds) for name, t in times.items()}


def measure_bundle(folder: Path, manifest: Manifest, rounds: int = 30) -> dict[str, Latency]:
    """Latency on this machine of every file of a bundle."""
    runs = {e.file: load_backend(e.format).load(folder / e.file, manifest.threads) for e in manifest.artifacts}
    shape = manifest.artifacts[0].inputs[0].shape
    return measure_latency(runs, draw_image(shape), rounds)


def draw_image(shape: tuple[int, ...]) -> Array:
    """Any image of that shape, for timing: the arithmetic does not depend on it."""
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


@contextmanager
def print_step(name: str) -> Iterator[None]:
    """Time a step and say on stderr how long it took."""
    start = time.perf_counter()
    yield
    print(f"  {name:26} {time.perf_counter() - start:6.1f} s", file=sys.stderr, flush=True)


def print_bundle(manifest: Manifest, latency: Mapping[str, Latency], folder: Path) -> None:
    """The table that ends an export."""
    rows = (
        (
            e.file, e.format, e.precision, f"{e.bytes / 1e6:.2f} MB",
            f"{e.parity.cosine_mean:.5f}", f"{e.parity.cosine_min:.5f}", f"{e.parity.top1_agreement:.1%}",
            f"{e.accuracy.top1:.1%}" if e.accuracy else "–", f"{latency[e.file].p50_ms:.2f} ms",
        )
        for e in manifest.artifacts
    )  # fmt: skip
    head = ("file", "format", "precision", "size", "cosine", "smallest", "top-1 agrees", "accuracy", "latency")
    print_rows(head, rows)
    for line in explain_bundle(manifest, latency, folder):
        print(line)


def explain_bundle(manifest: Manifest, latency: Mapping[str, Latency], folder: Path) -> Iterator[str]:
    """What the table's figures mean and where they come from."""
    first = manifest.artifacts[0]
    keep = "" if manifest.keep is None else f", keep {manifest.keep:g}"
    yield f"{folder}/: {manifest.model}{keep} for target {manifest.target}"
    yield f"cosine (mean and smallest) and top-1 agreement: with PyTorch fp32, on {first.parity.images} images"
    if first.accuracy:
        yield f"accuracy: on the same held-out images, where PyTorch fp32 has {first.accuracy.pytorch_top1:.1%}"
    if not manifest.trained:
        yield "weights: random, so no top-1 is asked, and int8 is held to limits.untrained_cosine alone"
    runs, threads = latency[first.file].runs, manifest.threads
    for e in manifest.artifacts:
        ops = ", ".join(f"{n} {op}" for op, n in Counter(x.op for x in e.leftovers).most_common()) or "none"
        share = sum(x.mac_share for x in e.leftovers)
        yield f"ops outside the delegate, {e.format} {e.precision}: {ops}; {share:.1%} of the multiply-accumulates"
    yield f"latency: median of {runs} interleaved runs, {threads} thread{'s' if threads > 1 else ''}, on this host:"
    yield f"  {local.describe(local.probe())}"
    yield f"peak memory of this export: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB"


def print_checks(files: Sequence[Checked]) -> None:
    """The verdict on each file of a bundle."""
    rows = [
        (
            f.file,
            "bad" if f.faults else "good",
            f"{f.parity.max_abs:.2g}" if f.parity else "–",
            f"{f.parity.cosine_mean:.5f}" if f.parity else "–",
            f"{f.parity.cosine_min:.5f}" if f.parity else "–",
            f"{f.parity.top1_agreement:.1%}" if f.parity else "–",
            f"{f.accuracy.top1:.1%}" if f.accuracy else "–",
        )
        for f in files
    ]
    print_rows(("file", "verdict", "largest difference", "cosine", "smallest", "top-1 agrees", "accuracy"), rows)
    for f in files:
        for fault in f.faults:
            print(f"{f.file}: {fault}")


def print_rows(title: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """A plain table, never narrower than its cells: a figure cut short is no figure."""
    table = Table(*(Column(name, no_wrap=True) for name in title), box=SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    console = Console()
    console.width = max(console.width, Console(width=1000).measure(table).maximum)
    console.print(table)
