"""`bigvit-edge profile`: what is measured, written and told."""

import base64
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bigvit_edge.errors import UserError
from bigvit_edge.profile.measurement import LOCAL, profile_file
from bigvit_edge.profile.page import write_page
from bigvit_edge.profile.records import Profile
from bigvit_edge.profile.summary import measure_cost, sum_by_kind, sum_by_layer
from bigvit_edge.profile.timeline import write_timeline
from bigvit_edge.results import describe_times
from bigvit_edge.tables import print_rows

LEAST_RUNS, MOST_RUNS = 2, 100_000


def run_profile(
    path: Path, device: str = LOCAL, keep: float | None = None, threads: int = 1, picture: Path | None = None,
    runs: int = 100, html: Path | None = None, trace: Path | None = None,
) -> Profile:  # fmt: skip
    """Profile a model file, and write what is asked for.

    html, trace: files that are not there yet, each written whole. UserError as of profile_file, on such a file that is
    there, and on a trace of a file whose runtime tells nothing of its ops.
    """
    if not LEAST_RUNS <= runs <= MOST_RUNS:
        raise UserError(f"--runs {runs}", f"{LEAST_RUNS} to {MOST_RUNS}")
    if threads < 1:
        raise UserError(f"--threads {threads}", "1 or more")
    targets = [target for target in (html, trace) if target is not None]
    for target in targets:
        _check_target(target)
    if len(targets) == 2 and targets[0].resolve() == targets[1].resolve():
        raise UserError(f"--html and --trace {trace}, the same file", "two files", "choose another for one")
    profile = profile_file(path, device, keep, threads, picture, runs)
    if trace is not None and profile.traced is None:
        met = f"--trace of {path.name}, of whose ops nothing is told"
        raise UserError(met, "a .bve, .onnx or .tflite", f"leave --trace out: {profile.notes[0]}")
    if html is not None:
        _write(html, write_page(profile))
    if trace is not None and profile.traced is not None:
        _write(trace, write_timeline(profile, profile.traced))
    return profile


def _check_target(target: Path) -> None:
    if os.path.lexists(target):
        raise UserError(f"{target} is there already", "a new file", "choose another, or move it away")
    if not os.access(target.absolute().parent, os.W_OK | os.X_OK):
        met = f"{target}, in a folder that is not there or that you cannot write to"
        raise UserError(met, "a folder of yours", "make it, or choose another")


def _write(target: Path, text: str) -> None:
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")  # names that are no text
        part.replace(target)
    except OSError as e:
        raise UserError(f"{target}: {e.strerror}", "room for it", "choose another place") from e
    finally:
        part.unlink(missing_ok=True)


def print_profile(profile: Profile, written: Sequence[Path | None]) -> None:
    """Print latency, then time by layer and by kind."""
    times = describe_times(profile.latency_ms)
    print(f"{profile.file} in {profile.runtime}, {profile.threads} threads, {len(profile.latency_ms)} runs:")
    print(f"p50 {times.p50:.3f} ms, p90 {times.p90:.3f}, p99 {times.p99:.3f}; image: {profile.image}")
    cost = measure_cost(profile)
    if profile.traced is not None and cost is not None:
        total, count = sum(profile.traced.sum_by_op()), len(profile.traced.runs)
        added = f"tracing adds {cost:+.1%} to the fastest run"
        print(f"all ops together {total:.3f} ms, medians of {count} traced runs; {added}")
        for title, shares in (("layer", sum_by_layer(profile.traced)), ("kind of op", sum_by_kind(profile.traced))):
            print_rows((title, "ms", "share"), ((s.name, f"{s.ms:.3f}", f"{s.share:.1%}") for s in shares))
    for note in [*profile.notes, *(profile.traced.notes if profile.traced else ())]:
        print(f"note: {note}")
    for path in written:
        if path is not None:
            print(f"written: {path}")


def write_json(profile: Profile) -> str:
    """Write a profile as JSON, its picture as base64 of a PNG."""
    return json.dumps(asdict(profile), indent=2, allow_nan=False, default=lambda data: base64.b64encode(data).decode())
