"""A browser's runtimes beside the native ones: `python tests/bench_web.py BUNDLE`. On a quiet machine with Chromium.

Each .onnx and .tflite of a bundle in onnxruntime-web or LiteRT.js, and in onnxruntime or ai-edge-litert here, in turns;
the ratio of a round's medians, of which the median and the middle half are told.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bigvit_edge.app.inbox import Inbox
from bigvit_edge.app.offers import list_offers
from bigvit_edge.app.packages import find_packages
from bigvit_edge.app.server import Site
from bigvit_edge.app.web import list_page
from bigvit_edge.export.inference import find_entry
from bigvit_edge.runtime.opening import open_entry
from bigvit_edge.tables import print_rows
from tests.app.chromium import Tab, open_chromium
from tests.app.made import serving

TITLE = ("file", "threads", "native", "browser", "browser / native", "middle half")
WARM_S = 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=0.15, help="of a turn")
    options = parser.parse_args()
    offers, _ = list_offers([options.bundle])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = list_page() | {f"npm/{file}": path for file, path in find_packages().items()}
        with serving(Site(files, offers, Inbox(folder / "results"))) as port, open_chromium(folder) as tab:
            tab.open(f"http://127.0.0.1:{port}/")
            tab.evaluate("import('./browser.js').then(module => { window.host = module.host; return 1 })")
            rows = [
                measure(tab, offer.told, method, offer.path, threads, options)
                for offer in offers.values()
                for method in offer.told["methods"]
                for threads in map(int, options.threads.split(","))
            ]
    print_rows(TITLE, rows)


def measure(
    tab: Tab, told: dict[str, Any], method: dict[str, Any], path: Path, threads: int, options: argparse.Namespace
) -> tuple[str, ...]:
    run = open_entry(path.parent, find_entry(path), threads, method["name"])
    noise = np.random.default_rng(0)
    image = noise.integers(0, 256, run.image, np.uint8) if run.dtype == "uint8" else noise.standard_normal(run.image)
    image = image.astype(run.dtype)
    words = ", ".join(map(json.dumps, (told, method)))
    ready = tab.evaluate(
        f"host.open({words}, {{ threads: {threads} }}).then(one => {{ window.one = one; return one.ready }})"
    )
    assert ready["threads"] == threads

    def time_here(seconds: float) -> list[float]:
        run(image)
        times, end = [], time.perf_counter() + seconds
        while time.perf_counter() < end or len(times) < 3:
            start = time.perf_counter()
            run(image)
            times.append((time.perf_counter() - start) * 1e3)
        return times

    def time_there(seconds: float) -> list[float]:
        found: list[float] = tab.evaluate(f"one.run({seconds}, 3, 0).then(turn => turn.times_ms)")
        return found

    time_here(WARM_S)
    time_there(WARM_S)
    here, there, ratios = [], [], []
    for _ in range(options.rounds):
        one, other = time_here(options.seconds), time_there(options.seconds)
        here += one
        there += other
        ratios.append(statistics.median(other) / statistics.median(one))
    tab.evaluate("one.close()")
    low, middle, high = statistics.quantiles(ratios, n=4)
    name = told["name"] + ("" if method["keep"] is None else f" keep {method['keep']:g}")
    medians = (f"{statistics.median(times):.2f} ms" for times in (here, there))
    return (name, str(threads), *medians, f"{middle:.2f}", f"{low:.2f}–{high:.2f}")


if __name__ == "__main__":
    main()
