"""A profile, measured: runs without tracing, runs with it, the machine's roof, the kernel's counts."""

import math
import shlex
from dataclasses import replace
from pathlib import Path

from bigvit_edge.artifact import Array, list_versions
from bigvit_edge.errors import UserError
from bigvit_edge.profile.core import time_runs, trace_selections, trace_session
from bigvit_edge.profile.records import Profile, Routing, Traced, check_profile
from bigvit_edge.profile.subject import Subject, draw_picture, open_subject, take_image
from bigvit_edge.runtime import Session, probe
from bigvit_edge.runtime.limits import Count, Counters, count_between, measure_roof
from bigvit_edge.runtime.tflite import holds_program

LOCAL = "local"
WARMUP, TRACED = 10, 20  # runs
PACKAGES = {"bve": "bigvit-edge", "onnx": "onnxruntime", "litert": "ai-edge-litert", "executorch": "executorch"}
INSIDE = "our core runs this file inside {0}, and its ops are seen in the same model's .bve: profile that"
WITHOUT = {
    "executorch": "ExecuTorch's Python package is built without its event tracer (ETDump), so that nothing is told of "
    "its ops: what is measured is the whole run",
}


def profile_file(
    path: Path, device: str = LOCAL, keep: float | None = None, threads: int = 1, picture: Path | None = None,
    runs: int = 100,
) -> Profile:  # fmt: skip
    """Profile a model file in its own runtime.

    Half of `runs` before the traced ones and half after, so that drift falls on both. picture: None for what take_image
    takes. UserError on what cannot be opened, on too many threads, or another device than this one.
    """
    if device != LOCAL:
        raise UserError(f"--device {device}", LOCAL, "run bigvit-edge on that device, or profile here")
    counters = Counters()  # before the runtimes start their threads
    subject = open_subject(path, keep, threads)
    image, shown = take_image(subject, picture)
    time_runs(subject.runner.run, image, WARMUP)
    times, counted = [], []
    for part in (runs - runs // 2, runs // 2):
        before = counters.read()
        times += time_runs(subject.runner.run, image, part)
        counted.append(count_between(before, counters.read()))
        if len(counted) == 1:
            traced, routing, unrouted, notes = _trace(subject, image, threads)
    if traced is not None:
        check_profile(traced)
    known = traced is not None and any(op.macs for op in traced.ops)
    package = PACKAGES[subject.format]
    return Profile(
        file=path.name, format=subject.format, precision=subject.precision, keep=subject.keep,
        runtime=f"{package} {list_versions([package])[package]}", threads=threads, device=device, machine=probe(),
        image=shown, latency_ms=tuple(times), traced=traced, roof=measure_roof(1) if known else None,
        counts=_average(counted, runs), routing=routing, unrouted=unrouted, leftovers=subject.leftovers, notes=notes,
        command=_write_command(path, device, keep, threads, picture, runs),
    )  # fmt: skip


def _trace(
    subject: Subject, image: Array, threads: int
) -> tuple[Traced | None, Routing | None, str, tuple[str, ...]]:  # fmt: skip
    """What the runtime tells of its ops; the tokens chosen, or why none are shown; notes."""
    unrouted = "which tokens are chosen is told by our own runtime alone: profile the model's .bve"
    if subject.format == "bve":
        with Session(subject.path, threads, entry=subject.method) as session:
            time_runs(session.run, image, WARMUP)
            traced = trace_session(session, image, TRACED)
            selections, tokens = trace_selections(session, image)
        if not selections:
            return traced, None, "the model is dense: every layer treats all tokens", ()
        side = math.isqrt(tokens - 1)
        return traced, Routing(side, selections, draw_picture(image, subject.preprocessing)), "", ()
    if subject.format == "onnx":
        from bigvit_edge.profile import onnx

        return onnx.trace_file(subject.path, image, WARMUP, TRACED, threads), None, unrouted, ()
    if subject.format == "litert":
        if holds_program(subject.path.read_bytes()):
            return None, None, unrouted, (INSIDE.format("LiteRT"),)
        from bigvit_edge.profile import litert

        method = subject.method or ""
        return litert.trace_file(subject.path, image, WARMUP, TRACED, threads, method), None, unrouted, ()
    return None, None, unrouted, (WITHOUT[subject.format],)


def _average(counted: list[tuple[Count, ...]], runs: int) -> tuple[Count, ...]:
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
