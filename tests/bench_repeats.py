"""What a bench is worth: `python tests/bench_repeats.py FILE...`. On a quiet machine; a minute each ten benches.

Benches the same files one bench after the other. Prints how far the medians of two in a row are apart, and what
measuring costs: the time of a turn that is no image's (clock readings, counts of cores, looks at stdin), of an image's.
"""

import argparse
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from itertools import pairwise
from pathlib import Path

from bigvit_edge import machine, runtime
from bigvit_edge.bench.command import make_plan, run_bench
from bigvit_edge.results import Result
from bigvit_edge.tables import print_rows

WITHIN = 0.03


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--benches", type=int, default=21)
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    plan = replace(make_plan(rounds=options.rounds, energy=False), pictures=None)
    with tempfile.TemporaryDirectory() as folder:
        results = [
            run_bench(options.files, "local", plan, Path(folder) / f"{n}.json")[0] for n in range(options.benches)
        ]
    print_rows(
        (
            "file",
            "p50",
            "furthest apart",
            f"within {WITHIN:.0%}",
            "where both are valid",
            "verdicts",
            "measuring costs",
        ),
        describe(results),
    )
    print(f"{options.benches} benches of {options.rounds} rounds, {date.today()}")
    print(machine.describe(runtime.probe()))


def describe(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """A row for each file: pairs of benches in a row, and the share of a turn beside its images."""
    rows = defaultdict(list)
    for result in results:
        for row in result.rows:
            rows[row.name()].append(row)
    told = []
    for name, repeats in rows.items():
        measured = [(row.latency_ms.p50, row.verdicts == ("valid",)) for row in repeats if row.latency_ms]
        apart = [abs(b / a - 1) for (a, _), (b, _) in pairwise(measured)]
        believed = [abs(b / a - 1) for (a, good), (b, too) in pairwise(measured) if good and too]
        medians = [p50 for p50, _ in measured]
        costs = [(turn.end_ns - turn.start_ns) / 1e6 / sum(turn.times_ms) - 1 for row in repeats for turn in row.turns]
        valid = sum(row.verdicts == ("valid",) for row in repeats)
        told.append(
            (
                name, f"{statistics.median(medians):.2f} ms", f"{max(apart):.1%}",
                f"{sum(x <= WITHIN for x in apart)} of {len(apart)}",
                f"{sum(x <= WITHIN for x in believed)} of {len(believed)}", f"{valid} of {len(repeats)} valid",
                f"{statistics.median(costs):.2%}",
            )
        )  # fmt: skip
    return told


if __name__ == "__main__":
    main()
