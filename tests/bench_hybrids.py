"""int8 of whole hybrids and convolutional networks, beside fp32 in the same runtime: `python tests/bench_hybrids.py`.

Models of timm at full size, with weights drawn as if trained (tests/conformance): what an op costs does not depend on
them, what rounding costs does, so accuracy is tests/bench_int8.py's to say. Latencies are interleaved medians of one
thread, seconds those of the whole conversion, calibration included.
"""

import argparse
import os
import tempfile
import time
from datetime import date
from pathlib import Path

import torch

from bigvit_edge import machine, report, runtime, tables
from bigvit_edge.artifact import Artifact, Run, write_data
from bigvit_edge.demo.photographs import draw_photographs
from bigvit_edge.export.convert import Subject, convert_model, load_backend
from bigvit_edge.export.coverage import share_covered
from bigvit_edge.export.image import normalize
from bigvit_edge.models.load import load
from bigvit_edge.target import load_target, override
from tests.conformance import models

MODELS = "mobilenetv4_hybrid_medium,fastvit_t8,repvit_m0_9,efficientvit_b0,convnext_atto"
FORMATS = "executorch,litert,onnx"
PRECISIONS = ("fp32", "int8")
CALIBRATION = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--formats", default=FORMATS)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument(
        "--calibration", type=int, default=CALIBRATION, help="pictures; latencies do not depend on them"
    )
    options = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    models.cut_short = lambda model: 0  # as they are
    rows = []
    for name in options.models.split(","):
        model = load(f"tests.conformance.models:{name}")
        images = draw_photographs("train", options.calibration, model.image_size, 0)
        calibration = normalize(255 * images.numpy(), model.preprocessing)
        subject = Subject(model.module, model.image_size, (None,), calibration, True, {})
        for format_ in options.formats.split(","):
            row = measure_model(subject, format_, options.rounds)
            rows.append((name, format_, *row))
            print(*rows[-1], flush=True)
    tables.print_rows(("model", "runtime", "fp32", "int8", "faster", "size", "in int8", "conversions", "took"), rows)
    print(f"took: seconds of int8 over those of fp32; medians of {options.rounds} rounds, {date.today()}")
    print(machine.describe(runtime.probe()))


def measure_model(subject: Subject, name: str, rounds: int) -> tuple[str, ...]:
    runs: dict[str, Run] = {}
    artifacts: dict[str, Artifact] = {}
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for precision in PRECISIONS:
            start = time.perf_counter()
            target = override(load_target("host"), [f"formats={name}", f"precisions={precision}"])
            ((artifacts[precision], _),) = convert_model(subject, target)
            seconds[precision] = time.perf_counter() - start
            path = Path(folder) / f"{precision}{load_backend(name).SUFFIX}"
            write_data(artifacts[precision].data, path)
            runs[precision] = load_backend(name).load(path, 1, None)
        times = report.measure_latency(runs, subject.calibration[:1], rounds)
    fp32, int8 = (times[precision].p50 for precision in PRECISIONS)
    (method,) = artifacts["int8"].methods
    return (
        f"{fp32:.2f} ms", f"{int8:.2f} ms", f"{fp32 / int8:.2f}",
        f"{len(artifacts['int8'].data) / len(artifacts['fp32'].data):.2f}",
        f"{share_covered(method.coverage, 'int8')[0]:.1%}", str(method.conversions),
        f"{seconds['int8'] / seconds['fp32']:.1f}",
    )  # fmt: skip


if __name__ == "__main__":
    main()
