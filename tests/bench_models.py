"""Dense against big.LITTLE at full size, in each runtime: `make bench`. Run it on a quiet machine.

One thread, pinned to one core; all files are timed in turn, so that drift falls on all alike. Each is checked against
PyTorch before it may be timed. Prints medians, the ratio to the dense model in the same runtime, and the ratio of our
own format to the fastest of the others, beside the ratio of the arithmetic.
"""

import argparse
import os
import tempfile
from datetime import date
from pathlib import Path

from bigvit_edge import machine, report, runtime, tables
from bigvit_edge.artifact import Run, write_data
from bigvit_edge.export.convert import Subject, convert_model, load_backend
from bigvit_edge.export.parity import compare
from bigvit_edge.export.references import make_references, run_all
from bigvit_edge.models.blvit import set_dispatch
from bigvit_edge.models.load import load
from bigvit_edge.models.zoo import count_macs, find_card
from bigvit_edge.target import load_target, override
from bigvit_edge.words import parse_keeps

OURS = "bve"
FORMATS = ("executorch", "litert", "onnx", OURS)

Key = tuple[str, str, float | None]  # precision, format, keep ratio (None: the dense model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dense", default="vit_s")
    parser.add_argument("--little", default="blvit_s")
    parser.add_argument("--keep", default="0.25,0.5,0.75,1", help="keep ratios")
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--precisions", default="fp32,int8")
    parser.add_argument("--rounds", type=int, default=50)
    options = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    settings = [f"formats={options.formats}", f"precisions={options.precisions}"]
    keeps = parse_keeps(options.keep)

    with tempfile.TemporaryDirectory() as folder:
        runs = {
            **export(options.dense, (None,), settings, Path(folder)),
            **export(options.little, keeps, settings, Path(folder)),
        }
        size = find_card(options.dense).image_size
        latency = report.measure_latency(runs, report.draw_image((1, 3, size, size)), options.rounds)

    times = {key: found.p50_ms for key, found in latency.items()}
    for precision in options.precisions.split(","):
        print_table(precision, {key: ms for key, ms in times.items() if key[0] == precision}, options)
    print(f"medians of {options.rounds} interleaved runs, 1 thread, batch 1, random weights, {date.today()}")
    print(machine.describe(runtime.probe()))


def print_table(precision: str, times: dict[Key, float], options: argparse.Namespace) -> None:
    """A row for each keep ratio, a column for each runtime; ratios are to the dense model's row, the last column's to
    the fastest peer of the same row and of the dense row."""
    formats = options.formats.split(",")
    peers = [name for name in formats if name != OURS]
    dense_macs = count_macs(find_card(options.dense))
    fastest_dense = min((times[precision, name, None] for name in peers), default=None)
    rows = []
    for keep in dict.fromkeys(keep for _, _, keep in times):
        cells = []
        for name in formats:
            ms, dense = times[precision, name, keep], times[precision, name, None]
            cells.append(f"{ms:.1f} ms" if keep is None else f"{ms:.1f} ms ({ms / dense:.2f})")
        macs = dense_macs if keep is None else count_macs(find_card(options.little), keep)
        label = options.dense if keep is None else f"{options.little} {keep:g}"
        if OURS in formats and fastest_dense is not None:
            ours = times[precision, OURS, keep]
            fastest = min(times[precision, name, keep] for name in peers)
            cells.append(f"{ours / fastest:.2f} / {ours / fastest_dense:.2f}")
        rows.append((label, *cells, f"{macs / dense_macs:.3f}"))
    last = [f"{OURS} / fastest peer, / its dense"] if OURS in formats and peers else []
    tables.print_rows((precision, *formats, *last, "arithmetic"), rows)


def export(name: str, keeps: tuple[float | None, ...], settings: list[str], folder: Path) -> dict[Key, Run]:
    """A model's files, opened at each keep ratio."""
    model, target = load(name), override(load_target("host"), settings)
    references = make_references(model, keeps, 4)
    set_dispatch(model.module, target.dispatch)
    images = references[keeps[0]].images
    subject = Subject(model.module, model.image_size, keeps, images, trained=False, metadata={})
    runs: dict[Key, Run] = {}
    for artifact, _ in convert_model(subject, target, report.LISTENER):
        backend = load_backend(artifact.format)
        path = folder / f"{name}_{artifact.precision}_{len(runs)}{backend.SUFFIX}"
        write_data(artifact.data, path)
        for method in artifact.methods:
            run = backend.load(path, threads=1, method=method.name)
            reference = references[method.keep]
            parity = compare(run_all(run, reference.images), reference.logits)
            right = parity.max_abs <= 1e-4 if artifact.precision == "fp32" else parity.cosine_min > 0.99
            assert right, f"{path.name} is wrong ({parity}): not timed"
            runs[artifact.precision, artifact.format, method.keep] = run
    return runs


if __name__ == "__main__":
    main()
