"""A profile, measured: runs without tracing, runs with it, the machine's roof, the kernel's counts."""

import math
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from bigvit_edge.artifact import Array, list_versions
from bigvit_edge.devices import open_device
from bigvit_edge.devices.binaries import install_bve_run
from bigvit_edge.devices.contract import Device
from bigvit_edge.devices.null import Null
from bigvit_edge.devices.occupancy import lock
from bigvit_edge.devices.process import run_words
from bigvit_edge.devices.store import Store
from bigvit_edge.errors import UserError
from bigvit_edge.machine import Machine, parse_machine
from bigvit_edge.profile.core import measure_core
from bigvit_edge.profile.records import Profile, Routing, Traced, check_profile
from bigvit_edge.profile.subject import Subject, draw_picture, open_subject, take_image
from bigvit_edge.runtime import check_options
from bigvit_edge.runtime.limits import Count, Counters, Roof, count_between, measure_roof
from bigvit_edge.runtime.tflite import holds_program
from bigvit_edge.tables import print_step

LOCAL = "local"
WARMUP, TRACED = 10, 20  # runs
PACKAGES = {"onnx": "onnxruntime", "litert": "ai-edge-litert", "executorch": "executorch"}
INSIDE = "our core runs this file inside {0}, and its ops are seen in the same model's .bve: profile that"
WITHOUT = (
    "ExecuTorch's Python package is built without its event tracer (ETDump), so that nothing is told of its ops: what "
    "is measured is the whole run"
)
UNROUTED = "which tokens are chosen is told by our own runtime alone: profile the model's .bve"
ALL = "the keep ratio is 1: every layer's big path treats all patches"
DENSE = "the model is dense: every layer treats all tokens"


@dataclass(frozen=True)
class _Measured:
    """What differs by runtime."""

    runtime: str
    times_ms: tuple[float, ...]
    traced: Traced | None
    roof: Roof | None
    counts: tuple[tuple[Count, ...], ...]
    routing: Routing | None = None
    unrouted: str = UNROUTED
    notes: tuple[str, ...] = ()


def profile_file(
    path: Path, device: str = LOCAL, keep: float | None = None, threads: int = 1, picture: Path | None = None,
    runs: int = 100,
) -> Profile:  # fmt: skip
    """Profile a model file in its own runtime.

    A .bve on any device, by bve-run there; others on this machine. Half of `runs` before the traced ones and half
    after, so that drift falls on both. picture: None for what take_image takes. UserError on what cannot be opened, on
    too many threads, and while another measures on that device.
    """
    check_options(threads, 0, 0)
    if device != LOCAL and path.suffix != ".bve":
        met = f"{path.name} on {device}, while a {path.suffix} is profiled on this machine alone"
        raise UserError(met, "a .bve, which is profiled on any device", f"leave --device out, for {LOCAL}")
    there = open_device(device)
    try:
        if there.launch == Null.launch:
            raise UserError(f"--device {device}, which runs nothing", "a device that does", f"leave it out for {LOCAL}")
        counters = Counters()  # before the runtimes start their threads
        subject = open_subject(path, keep, 1 if path.suffix == ".bve" else threads)  # bve-run opens its own
        image, shown = take_image(subject, picture)
        with Store(there) as store:
            bve_run = install_bve_run(there, store, print_step)
            with lock(there, bve_run):
                machine = _probe(there, bve_run)
                if subject.format == "bve":
                    measured = _measure_core(there, store, bve_run, subject, image, threads, runs)
                else:
                    measured = _measure_here(subject, image, threads, runs, counters)
    finally:
        there.close()
    if measured.traced is not None:
        check_profile(measured.traced)
    return Profile(
        file=path.name, format=subject.format, precision=subject.precision, keep=subject.keep,
        runtime=measured.runtime, threads=threads, device=device, machine=machine, image=shown,
        latency_ms=measured.times_ms, traced=measured.traced, roof=measured.roof,
        counts=_average(measured.counts, runs), routing=measured.routing, unrouted=measured.unrouted,
        leftovers=subject.leftovers, notes=measured.notes,
        command=_write_command(path, device, keep, threads, picture, runs),
    )  # fmt: skip


def _probe(device: Device, bve_run: str) -> Machine:
    return parse_machine(run_words(device, (bve_run, "probe")).out)


def _measure_core(
    device: Device, store: Store, bve_run: str, subject: Subject, image: Array, threads: int, runs: int
) -> _Measured:  # fmt: skip
    told = measure_core(device, store, bve_run, subject.path, image, subject.keep, threads, runs, WARMUP)
    routing, unrouted = None, DENSE if told.tokens == 0 else ALL
    if any(len(selection.patches) < told.tokens - 1 for selection in told.selections):
        picture = draw_picture(image, subject.preprocessing)
        routing = Routing(math.isqrt(told.tokens - 1), told.selections, picture)
    runtime = f"bve {told.version}"
    return _Measured(runtime, told.times_ms, told.traced, told.roof, told.counts, routing, "" if routing else unrouted)


def _measure_here(subject: Subject, image: Array, threads: int, runs: int, counters: Counters) -> _Measured:
    time_runs(subject.runner.run, image, WARMUP)
    times, counts, traced, notes = list[float](), list[tuple[Count, ...]](), None, tuple[str, ...]()
    for part in (runs - runs // 2, runs // 2):
        before = counters.read()
        times += time_runs(subject.runner.run, image, part)
        counts.append(count_between(before, counters.read()))
        if len(counts) == 1:
            traced, notes = _trace(subject, image, threads)
    roof = measure_roof(1) if traced is not None and any(op.macs for op in traced.ops) else None
    package = PACKAGES[subject.format]
    runtime = f"{package} {list_versions([package])[package]}"
    return _Measured(runtime, tuple(times), traced, roof, tuple(counts), notes=notes)


def _trace(subject: Subject, image: Array, threads: int) -> tuple[Traced | None, tuple[str, ...]]:
    """What the runtime tells of its ops; notes."""
    if subject.format == "onnx":
        from bigvit_edge.profile import onnx

        return onnx.trace_file(subject.path, image, WARMUP, TRACED, threads), ()
    if subject.format == "litert":
        if holds_program(subject.path.read_bytes()):
            return None, (INSIDE.format("LiteRT"),)
        from bigvit_edge.profile import litert

        return litert.trace_file(subject.path, image, WARMUP, TRACED, threads, subject.method or ""), ()
    return None, (WITHOUT,)


def time_runs(run: Callable[[Array], Array], image: Array, runs: int) -> list[float]:
    """Time runs, in ms."""
    times = []
    for _ in range(runs):
        start = time.perf_counter_ns()
        run(image)
        times.append((time.perf_counter_ns() - start) / 1e6)
    return times


def _average(counted: tuple[tuple[Count, ...], ...], runs: int) -> tuple[Count, ...]:
    """Of each counter, the count a run."""
    averages = []
    for parts in zip(*counted, strict=True):
        missing = next((part for part in parts if part.count is None), None)
        total = sum(part.count or 0 for part in parts)
        running = min(part.running for part in parts)
        averages.append(missing or replace(parts[0], count=total / runs, running=running))
    return tuple(averages)


def _write_command(path: Path, device: str, keep: float | None, threads: int, picture: Path | None, runs: int) -> str:
    words = ["bigvit-edge", "profile", str(path), "--device", device, "--threads", str(threads), "--runs", str(runs)]
    words += ["--keep", f"{keep:g}"] if keep is not None else []
    words += ["--image", str(picture)] if picture else []
    return shlex.join(words)
