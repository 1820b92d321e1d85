"""Traced runs as Chrome's trace events, which Perfetto opens: run > layer > op on each track.

The format: "Trace Event Format" of the Chromium project; its JSON object form, complete events (ph X) alone, and
metadata (ph M) for the names. Times are in microseconds.
"""

import json
from collections import defaultdict
from itertools import groupby
from typing import Any

from bigvit_edge.profile.records import Event, Profile, Traced

PROCESS = 1


def write_timeline(profile: Profile, traced: Traced) -> str:
    """Write traced runs as JSON for Perfetto or chrome://tracing.

    Each track has its events in the order of their starts, an outer one before those inside it.
    """
    events = [_name("process_name", 0, f"{profile.file} in {profile.runtime}")]
    for number, track in enumerate(traced.tracks):
        events.append(_name("thread_name", number + 1, track.name))
        sorting = {"name": "thread_sort_index", "ph": "M", "pid": PROCESS, "tid": number + 1}
        events.append({**sorting, "args": {"sort_index": number}})
    by_place = defaultdict[tuple[int, int], list[Event]](list)
    for event in sorted(traced.events, key=lambda event: event.start_us):
        by_place[event.track, event.run].append(event)
    for (place, run), inside in sorted(by_place.items()):
        events += _list_slices(traced, place, run, inside)
    told = {
        "file": profile.file, "runtime": profile.runtime, "threads": profile.threads, "device": profile.device,
        "command": profile.command, "notes": list(traced.notes),
    }  # fmt: skip
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms", "otherData": told}, allow_nan=False)


def _list_slices(traced: Traced, track: int, run: int, events: list[Event]) -> list[dict[str, Any]]:
    """A run on one track: the run itself, its layers as they follow one another, and in these their ops."""
    span, end = traced.runs[run], max(event.start_us + event.duration_us for event in events)
    # the caller waits for the run from its begin to its end; of other tracks it is as long as what they do
    start = span.start_us if track == 0 else events[0].start_us
    end = max(end, span.start_us + span.duration_us) if track == 0 else end
    slices = [_slice(f"run {run}", "run", track, min(start, events[0].start_us), end, {})]
    for layer, each in groupby(events, key=lambda event: traced.ops[event.op].layer):
        ops = list(each)
        last = ops[-1].start_us + ops[-1].duration_us
        slices.append(_slice(layer, "layer", track, ops[0].start_us, last, {}))
        slices += [_write_op(traced, event) for event in ops]
    return slices


def _write_op(traced: Traced, event: Event) -> dict[str, Any]:
    op = traced.ops[event.op]
    told: dict[str, Any] = {"kind": op.kind, "op": op.word, "unit": op.unit}
    known = {"lane": op.lane, "macs": op.macs, "bytes": op.bytes, "type": op.type}
    told |= {key: value for key, value in known.items() if value not in (None, "")}
    if event.core >= 0:
        told["core"] = event.core
    if event.placed:
        told["start"] = "not told by the runtime: behind the one before it"
    return _slice(op.name, op.kind, event.track, event.start_us, event.start_us + event.duration_us, told)


def _slice(name: str, category: str, track: int, start: float, end: float, told: dict[str, Any]) -> dict[str, Any]:
    begin = round(start, 3)  # nanoseconds: begin and end are rounded, so that what is inside stays inside
    return {
        "name": name, "cat": category, "ph": "X", "pid": PROCESS, "tid": track + 1, "ts": begin,
        "dur": round(round(end, 3) - begin, 3), "args": told,
    }  # fmt: skip


def _name(what: str, track: int, name: str) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": PROCESS, "tid": track, "args": {"name": name}}
