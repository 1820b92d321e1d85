"""What each part of int8 convolutions is worth: `python tests/bench_ablation.py`.

The trained network of bench_int8.py, emulated in PyTorch with one part of what convolutions.py and calibration.py do
alone, with all but one, with none and with all. Noise is what int8 adds to the logits, against how these differ between
images, in dB; agreement is of the top-1 with fp32. The network and the pictures are bench_int8.py's.
"""

import argparse
import math
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import date
from unittest.mock import patch

import numpy as np
import torch

from bigvit_edge import machine, runtime, tables
from bigvit_edge.artifact import Array
from bigvit_edge.export import calibration, convolutions
from bigvit_edge.export.convert import Subject, capture, place, quantize, rewrite
from bigvit_edge.export.quantization import insert_quantization
from bigvit_edge.target import load_target, override
from tests.bench_int8 import CALIBRATION, SIZE, draw, load_network

TARGET = override(load_target("host"), ["formats=executorch", "precisions=int8"])
# how each part is taken away
WITHOUT = {
    "ranges": (calibration, "choose_range", lambda seen, quant: (seen.low, seen.high)),
    "biases": (convolutions, "_match_means", lambda made, exact, clip: torch.zeros(made.shape[1])),
    "rounding": (convolutions, "INPUTS", 0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=420)
    options = parser.parse_args()
    torch.set_num_threads(1)
    module = load_network()
    subject = Subject(module, SIZE, (None,), draw("train", CALIBRATION, 0), trained=True, metadata={})
    images = np.concatenate([draw("train", options.images // 2, 1), draw("held_out", options.images // 2, 2)])
    with torch.no_grad():
        expected = np.concatenate([module(torch.from_numpy(image[None])).numpy() for image in images])
    rows = []
    for parts in list_ablations():
        logits = answer(subject, images, set(WITHOUT) - set(parts))
        rows.append((", ".join(parts) or "none", *describe(logits, expected)))
        print(*rows[-1], flush=True)
    tables.print_rows(("parts", "top-1 agrees", "noise"), rows)
    print(f"{len(images)} windows of photographs, {CALIBRATION} others to calibrate on, {date.today()}")
    print(machine.describe(runtime.probe()))


def list_ablations() -> Iterator[tuple[str, ...]]:
    """None, each alone, all but each, all."""
    yield ()
    yield from ((part,) for part in WITHOUT)
    yield from (tuple(other for other in WITHOUT if other != part) for part in WITHOUT)
    yield tuple(WITHOUT)


def answer(subject: Subject, images: Array, without: set[str]) -> Array:
    """The emulation's logits, the network quantised without some parts."""
    with ExitStack() as stack:
        for part in without:
            where, name, by = WITHOUT[part]
            stack.enter_context(patch.object(where, name, by))
        graph = rewrite(capture(subject.module, SIZE))
        chosen = quantize([graph], "int8", TARGET, subject, lambda *_: None)
        (graph,) = place(chosen, TARGET, subject)["executorch"]
    run = insert_quantization(graph).module(check_guards=False)
    with torch.no_grad():
        return np.concatenate([run(torch.from_numpy(image[None])).numpy() for image in images])


def describe(logits: Array, expected: Array) -> tuple[str, str]:
    varied = expected - expected.mean(0)
    noise = 10 * math.log10(float(np.square(logits - expected).sum()) / float(np.square(varied).sum()))
    return f"{(logits.argmax(1) == expected.argmax(1)).mean():.1%}", f"{noise:.1f} dB"


if __name__ == "__main__":
    main()
