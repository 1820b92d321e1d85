"""Dense against big.LITTLE at full size, in each format and precision: `make bench`. Run it on a quiet machine.

One thread, pinned to one core; all files are timed in turn, so that drift falls on all alike. Prints medians and their
ratio, beside the ratio of the arithmetic.
"""

import argparse
import os
import tempfile
from pathlib import Path

from bigvit_edge import report
from bigvit_edge.artifact import Run, write_data
from bigvit_edge.devices import local
from bigvit_edge.export.convert import Subject, convert_model, load_backend
from bigvit_edge.export.parity import compare, make_references, run_all
from bigvit_edge.models.load import load
from bigvit_edge.models.zoo import count_macs, find_card
from bigvit_edge.target import load_target, override

FORMATS = ("executorch", "litert", "onnx")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dense", default="vit_s")
    parser.add_argument("--little", default="blvit_s")
    parser.add_argument("--keep", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=50)
    options = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

    with tempfile.TemporaryDirectory() as folder:
        runs: dict[tuple[str, str, str], Run] = {}
        for name in (options.dense, options.little):
            runs |= export(name, options.keep if name == options.little else None, Path(folder))
        shape = (1, 3, find_card(options.dense).image_size, find_card(options.dense).image_size)
        latency = report.measure_latency(runs, report.draw_image(shape), options.rounds)

    rows = []
    for name, format_, precision in runs:
        if name == options.dense:
            dense, little = (latency[n, format_, precision].p50_ms for n in (options.dense, options.little))
            rows.append((format_, precision, f"{dense:.1f} ms", f"{little:.1f} ms", f"{little / dense:.2f}"))
    arithmetic = count_macs(find_card(options.little), options.keep) / count_macs(find_card(options.dense))
    rows.append(("arithmetic", "", "", "", f"{arithmetic:.3f}"))
    report.print_rows(("format", "precision", options.dense, f"{options.little} keep {options.keep}", "ratio"), rows)
    print(f"medians of {options.rounds} interleaved runs, 1 thread, batch 1, random weights")
    print(local.describe(local.probe()))


def export(name: str, keep: float | None, folder: Path) -> dict[tuple[str, str, str], Run]:
    """Every format that runs here in fp32 and int8, each checked against PyTorch before it may be timed."""
    model, target = load(name), override(load_target("android"), [f"formats={','.join(FORMATS)}"])
    reference = make_references(model, (keep,), 4)[keep]
    subject = Subject(model.module, model.image_size, (keep,), reference.images, trained=False, metadata={})
    runs: dict[tuple[str, str, str], Run] = {}
    for artifact, _ in convert_model(subject, target, report.LISTENER):
        backend = load_backend(artifact.format)
        path = folder / f"{name}_{artifact.precision}{backend.SUFFIX}"
        write_data(artifact.data, path)
        run = backend.load(path, threads=1)
        parity = compare(run_all(run, reference.images), reference.logits)
        assert parity.cosine_min > 0.99, f"{path.name} is wrong (cosine {parity.cosine_min}): not timed"
        runs[name, artifact.format, artifact.precision] = run
    return runs


if __name__ == "__main__":
    main()
