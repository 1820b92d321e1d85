"""Threads as phones have them: `python tests/bench_threads.py`. On a quiet machine of two cores or more.

Images one after the other, at a camera's pace and at 5 a second; alone, with another process busy on one of the cores,
and with one core at two fifths of its speed. Each runtime and number of threads is a process of its own, so that no
pool watches while another runs; they take turns, a few images each. One thread has the first core to itself; the busy
core is the last. Medians, p90 over p50, and CPU time an image.

--openvino: a Python interpreter with the packages openvino and nncf, which quantises the model for that runtime.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

OURS = "bve"
MODELS = {"vit_s": None, "blvit_s": 0.5}  # name -> keep ratio
PAUSES_MS = (0, 33, 200)
LOADS = ("alone", "busy", "slow")
SLOW = 0.4  # of its speed that a slow core has left
PERIOD_S = 1e-3  # of what slows it
SESSIONS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--formats", default="executorch,litert,onnx", help="of the others; may be empty")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pauses", default=",".join(map(str, PAUSES_MS)))
    parser.add_argument("--loads", default=",".join(LOADS))
    parser.add_argument("--images", type=int, default=8, help="of a turn")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--openvino", help="an interpreter")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for model in options.models.split(","):
            measure_model(model, options, Path(folder))


def measure_model(model: str, options: argparse.Namespace, folder: Path) -> None:
    from bigvit_edge import machine, runtime, tables

    files = export(model, [OURS, *filter(None, options.formats.split(","))], folder)
    if options.openvino:
        files["openvino"] = export(model, ["onnx"], folder, "fp32")["onnx"]
    cores = sorted(os.sched_getaffinity(0))
    for load in options.loads.split(","):
        children = {
            (name, threads): Child(name, path, threads, cores, MODELS[model], options.openvino)
            for name, path in files.items()
            for threads in (1, options.threads)
            if load == "alone" or name == OURS
        }
        rows = []
        with load_core(load, cores) as share:
            for pause in map(int, options.pauses.split(",")):
                for _ in range(options.rounds):
                    for child in children.values():
                        child.run(options.images, pause)
                rows += [describe(pause, key, child.take()) for key, child in children.items()]
        for child in children.values():
            child.close()
        print(f"{model}, int8, {load}" + (f": the last core has {share:.0%} of its speed" if share < 1 else ""))
        tables.print_rows(("pause", "runtime", "threads", "p50", "p90 / p50", "CPU an image"), rows)
    shares = [compare_sessions(files[OURS], options.threads, MODELS[model]) for _ in range(3)]
    print(f"{SESSIONS} sessions at once, to one after the other: {min(shares):.2f} to {max(shares):.2f}")
    print(f"{options.rounds} turns of {options.images} images, {date.today()}")
    print(machine.describe(runtime.probe()), flush=True)


def compare_sessions(path: Path, threads: int, keep: float | None) -> float:
    """The time of many sessions' images at once, to that of one session after the other."""
    import numpy as np

    from bigvit_edge.runtime import Session

    sessions = [Session(path, threads=threads, keep=keep) for _ in range(SESSIONS)]
    image = np.zeros(sessions[0].shape, np.float32)

    def work(session: Session) -> None:
        for _ in range(12):
            session.run(image)

    for session in sessions:
        session.run(image)
    start = time.perf_counter()
    for session in sessions:
        work(session)
    between = time.perf_counter()
    callers = [threading.Thread(target=work, args=(session,)) for session in sessions]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    return (time.perf_counter() - between) / (between - start)


def export(model: str, formats: list[str], folder: Path, precision: str = "int8") -> dict[str, Path]:
    """Write a model's files, by format."""
    from bigvit_edge import report
    from bigvit_edge.artifact import write_data
    from bigvit_edge.export.convert import Subject, convert_model, load_backend
    from bigvit_edge.export.references import make_references
    from bigvit_edge.models.load import load
    from bigvit_edge.target import load_target, override

    loaded = load(model)
    keeps = (MODELS[model],)
    images = make_references(loaded, keeps, 4)[keeps[0]].images
    target = override(load_target("host"), [f"formats={','.join(formats)}", f"precisions={precision}"])
    subject = Subject(loaded.module, loaded.image_size, keeps, images, trained=False, metadata={})
    files = {}
    for artifact, _ in convert_model(subject, target, report.LISTENER):
        files[artifact.format] = folder / f"{model}_{precision}{load_backend(artifact.format).SUFFIX}"
        write_data(artifact.data, files[artifact.format])
    return files


def describe(pause: int, key: tuple[str, int], answers: list[dict[str, Any]]) -> tuple[str, ...]:
    times = sorted(ms for answer in answers for ms in answer["ms"])
    p50, p90 = statistics.median(times), times[int(0.9 * len(times))]
    cpu = statistics.median(answer["cpu_ms"] for answer in answers)
    return f"{pause} ms", key[0], str(key[1]), f"{p50:.1f} ms", f"{p90 / p50:.2f}", f"{cpu:.1f} ms"


class Child:
    """A runtime with a file open, in a process of its own."""

    def __init__(
        self, name: str, path: Path, threads: int, cores: list[int], keep: float | None, openvino: str | None
    ) -> None:
        interpreter = openvino if name == "openvino" else sys.executable
        allowed = ",".join(map(str, cores if threads > 1 else cores[:1]))
        words = [str(interpreter), __file__, "--child", name, str(path), str(threads), allowed, str(keep or 0)]
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.answers: list[dict[str, Any]] = []
        assert self._read() == "ready", f"{name} did not start: {' '.join(words)}"

    def run(self, images: int, pause_ms: int) -> None:
        assert self.process.stdin
        print(images, pause_ms, file=self.process.stdin, flush=True)
        self.answers.append(self._read())

    def take(self) -> list[dict[str, Any]]:
        taken, self.answers = self.answers, []
        return taken

    def close(self) -> None:
        self.process.communicate()

    def _read(self) -> Any:
        assert self.process.stdout
        line = self.process.stdout.readline()
        return json.loads(line) if line else None


@contextmanager
def load_core(load: str, cores: list[int]) -> Iterator[float]:
    """Make the last core as busy as asked; which share of its speed is left, measured."""
    if load == "alone":
        yield 1.0
        return
    taken = 1 - SLOW if load == "slow" else 1.0
    for _ in range(6):
        process = subprocess.Popen([sys.executable, __file__, "--busy", str(cores[-1]), str(taken)])
        try:
            time.sleep(0.5)
            share = measure_speed(cores[-1]) / measure_speed(cores[0])
            if load == "slow" and abs(share - SLOW) > 0.02:
                taken -= SLOW - share
                continue
            yield share
            return
        finally:
            process.kill()
            process.wait()
    raise SystemExit(f"{share:.0%} of core {cores[-1]} are left, expected {SLOW:.0%}: nothing else may run on it")


def measure_speed(core: int) -> float:
    """How often a loop runs in a second on that core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    count, end = 0, time.perf_counter() + 2
    while time.perf_counter() < end:
        count += 1
    os.sched_setaffinity(0, before)
    return count / 2


def keep_busy(core: int, taken: float) -> None:
    """Take a core: all of it as any program would, or a share of every period before all others."""
    os.sched_setaffinity(0, {core})
    while taken == 1:
        pass
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    while True:
        end = time.perf_counter() + taken * PERIOD_S
        while time.perf_counter() < end:
            pass
        time.sleep((1 - taken) * PERIOD_S)


def answer(name: str, path: str, threads: int, allowed: str, keep: float) -> None:
    """What a child does: open a file, then run as many images as each line says, after as long a pause each."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # for some libraries talk there
    os.sched_setaffinity(0, set(map(int, allowed.split(","))))
    run = open_file(name, path, threads, keep)
    run()
    print(json.dumps("ready"), file=out, flush=True)
    for line in sys.stdin:
        images, pause_ms = map(int, line.split())
        run()
        before, took = resource.getrusage(resource.RUSAGE_SELF), []
        for _ in range(images):
            if pause_ms:
                time.sleep(pause_ms / 1e3)
            start = time.perf_counter()
            run()
            took.append((time.perf_counter() - start) * 1e3)
        after = resource.getrusage(resource.RUSAGE_SELF)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(json.dumps({"ms": took, "cpu_ms": cpu * 1e3 / images}), file=out, flush=True)


def open_file(name: str, path: str, threads: int, keep: float) -> Any:
    import numpy as np

    image = np.random.default_rng(0).standard_normal((1, 3, 224, 224), dtype=np.float32)
    if name == OURS:
        from bigvit_edge.runtime import Session

        session = Session(path, threads=threads, keep=keep or None)
        return lambda: session.run(image)
    if name == "openvino":
        import nncf  # type: ignore[import-not-found]
        import openvino  # type: ignore[import-not-found]

        model = nncf.quantize(openvino.Core().read_model(path), nncf.Dataset([image]))
        compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": threads})
        return lambda: compiled([image])
    from bigvit_edge.export.convert import load_backend

    runner = load_backend(name).load(Path(path), threads)
    return lambda: runner(image)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        answer(sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5], float(sys.argv[6]))
    elif sys.argv[1:2] == ["--busy"]:
        keep_busy(int(sys.argv[2]), float(sys.argv[3]))
    else:
        main()
