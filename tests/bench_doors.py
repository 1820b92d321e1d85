"""Our core behind the doors of ExecuTorch and LiteRT, at full size: `python tests/bench_doors.py`. On a quiet machine.

Latency: the same model through our own Session, through each door, and as each runtime runs it without us, all timed in
turn on one core, one thread, each checked against PyTorch first. Start and memory: each file in a process of its own,
five times, the framework imported before the clock starts.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

import bench_models
from amx import refuse_amx

from bigvit_edge import machine, report, runtime, tables
from bigvit_edge.artifact import Run
from bigvit_edge.models.load import load
from bigvit_edge.words import parse_keeps

OURS = "bve"
# name of a row -> settings of its target
WAYS = {
    OURS: ["formats=bve"],
    "ExecuTorch, our core": ["formats=executorch", "backend=native"],
    "ExecuTorch, XNNPACK": ["formats=executorch"],
    "ExecuTorch, XNNPACK, bve::dispatch": ["formats=executorch", "dispatch=kernel"],
    "LiteRT, our core": ["formats=litert", "backend=native"],
    "LiteRT, XNNPACK": ["formats=litert"],
}
NATIVE = [name for name in WAYS if name == OURS or name.endswith("our core")]
PROCESSES = 5
# What a process of its own does: import the framework, load our library, open the file at each keep ratio, run it.
CHILD = """
import json, sys, time
import numpy as np
way, path, *keeps = sys.argv[1:]
if "ExecuTorch" in way:
    from bigvit_edge.runtime import executorch as door
elif "LiteRT" in way:
    import ai_edge_litert.interpreter
    from bigvit_edge.runtime import litert as door
else:
    import bigvit_edge.runtime as door
def read(field):
    lines = open("/proc/self/smaps_rollup").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":")) / 1e3
start = time.perf_counter()
door.load_library()
library = time.perf_counter()
before = read("Rss"), read("Anonymous")
opening = time.perf_counter()
ratios = [float(keep) for keep in keeps]
programs = [(door.Session if way == "bve" else door.load)(path, keep=ratios[0])]
load = getattr(programs[0], "load", lambda keep: door.Session(path, keep=keep))  # on the same weights where it can
programs += [load(keep) for keep in ratios[1:]]
opened = time.perf_counter()
for program in programs:
    program.run(np.zeros(program.shape, np.float32))
ran = time.perf_counter()
print(json.dumps({
    "library": (library - start) * 1e3, "open": (opened - opening) * 1e3, "first": (ran - opened) * 1e3,
    "rss": read("Rss") - before[0], "own": read("Anonymous") - before[1],
}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="blvit_s")
    parser.add_argument("--keep", default="0.5", help="of the latencies")
    parser.add_argument("--keeps", default="0.25,0.5,0.75,1", help="of the files whose memory is measured")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--ways", help="comma-separated numbers of the rows, from 0; all if not given")
    parser.add_argument("--no-amx", action="store_true", help="as on a CPU without Intel's AMX, which no phone has")
    options = parser.parse_args()
    if options.no_amx:
        refuse_amx()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    ways = list(WAYS) if options.ways is None else [list(WAYS)[int(n)] for n in options.ways.split(",")]

    with tempfile.TemporaryDirectory() as folder:
        files = {way: export(way, options, options.keep, Path(folder)) for way in ways}
        runs = {way: run for way, (_, run) in files.items()}
        size = load(options.model).image_size
        latency = report.measure_latency(runs, report.draw_image((1, 3, size, size)), options.rounds)
        print_latency({way: found.p50 for way, found in latency.items()})
        for keeps in (options.keep, options.keeps):
            if keeps != options.keep:
                files = {way: export(way, options, keeps, Path(folder)) for way in ways if way in NATIVE}
            rows = [measure_start(way, path, keeps) for way, (path, _) in files.items() if way in NATIVE]
            head = ("file", "MB", "library, ms", "open, ms", "first image(s), ms", "RSS, MB", "of it not the file, MB")
            print(f"keep {keeps}, each opened and run once; median of {PROCESSES} processes")
            tables.print_rows(head, rows)
    amx = ", AMX refused" if options.no_amx else ""
    print(
        f"{options.model} {options.precision}, batch 1, random weights; latency: medians of {options.rounds} runs{amx}"
    )
    print(f"{date.today()}; {machine.describe(runtime.probe())}")


def export(way: str, options: argparse.Namespace, keeps: str, folder: Path) -> tuple[Path, Run]:
    """One file, and its entry point of the last keep ratio."""
    place = Path(tempfile.mkdtemp(dir=folder))
    settings = [*WAYS[way], f"precisions={options.precision}"]
    runs = bench_models.export(options.model, parse_keeps(keeps), settings, place)
    (path,) = place.iterdir()
    return path, list(runs.values())[-1]


def print_latency(times: dict[str, float]) -> None:
    """Each way's median, to our own runtime's, and what our core saves in the runtime of that row."""
    rows = []
    for way, ms in times.items():
        ours = times.get(f"{way.split(',')[0]}, our core", ms)
        rows.append((way, f"{ms:.2f} ms", f"{ms / times[OURS]:.3f}" if OURS in times else "–", f"{ms / ours:.2f}"))
    tables.print_rows(("way", "latency", "to bve", "to our core behind the same door"), rows)


def measure_start(way: str, path: Path, keeps: str) -> tuple[str, ...]:
    """Medians over processes of their own: loading the library, opening the file at each ratio, its first images."""
    command = [sys.executable, "-c", CHILD, way, str(path), *keeps.split(",")]
    found = [
        json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
        for _ in range(PROCESSES)
    ]
    medians = [statistics.median(one[key] for one in found) for key in ("library", "open", "first", "rss", "own")]
    return way, f"{path.stat().st_size / 1e6:.2f}", *(f"{value:.1f}" for value in medians)


if __name__ == "__main__":
    main()
