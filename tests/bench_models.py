"""Dense against big.LITTLE at full size, in each runtime: `make bench`. Run it on a quiet machine.

One thread; all files are timed in turn by `bigvit-edge bench`, so that drift falls on all alike, and the result is left
in results/. Each is checked against PyTorch before it may be timed. Prints medians, the ratio to the dense model in the
same runtime, and the ratio of our own format to the fastest of the others, beside the ratio of the arithmetic.
"""

import argparse
import tempfile
from pathlib import Path

from bigvit_edge import report, tables
from bigvit_edge.bench import pages
from bigvit_edge.bench.command import make_plan, run_bench
from bigvit_edge.export.bundle import Source, export_bundle
from bigvit_edge.models.zoo import count_macs, find_card
from bigvit_edge.target import Target, load_target, override
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
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    settings = [f"formats={options.formats}", f"precisions={options.precisions}"]
    target = override(load_target("host"), settings)

    with tempfile.TemporaryDirectory() as folder:
        bundles = [
            export(options.dense, (), target, Path(folder)),
            export(options.little, parse_keeps(options.keep), target, Path(folder)),
        ]
        plan = make_plan(rounds=options.rounds, threads=1, energy=False)
        with pages.watching() as progress:
            result, path = run_bench(bundles, "local", plan, progress=progress)

    times = {(row.precision, row.format, row.keep): row.latency_ms.p50 for row in result.rows if row.latency_ms}
    for precision in options.precisions.split(","):
        print_table(precision, {key: ms for key, ms in times.items() if key[0] == precision}, options)
    pages.print_result(result, path)


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


def export(name: str, keeps: tuple[float, ...], target: Target, folder: Path) -> Path:
    """A model's bundle, whose files were compared with PyTorch: none is timed that is wrong."""
    bundle = folder / name
    export_bundle(Source(name), target, bundle, keeps=keeps, listener=report.LISTENER)
    return bundle


if __name__ == "__main__":
    main()
