"""Our own runtime's traced runs: when each thread did what, and which tokens were chosen."""

import time
from collections.abc import Callable

import numpy as np

from bigvit_edge.artifact import Array
from bigvit_edge.profile.records import Event, Op, Selection, Span, Traced, Track, name_layer
from bigvit_edge.runtime import Session

KINDS = {
    "linear": "linear", "mlp": "mlp", "attention": "attention", "route": "routing", "patches": "copying",
    "fill": "copying", "list": "other",
}  # fmt: skip
LANES = ("big", "LITTLE")


def trace_session(session: Session, image: Array, runs: int) -> Traced:
    """Trace runs of a session: a track a thread and lane."""
    told = session.inspect()["ops"]
    lanes = len({op["lane"] for op in told}) > 1
    ops = tuple(
        Op(
            op["name"], name_layer(op["name"]), KINDS.get(op["kind"], "other"), op["kind"], "bve",
            LANES[op["lane"]] if lanes else "", op["macs"], op["bytes"], op["type"],
        )
        for op in told
    )  # fmt: skip
    spans, events, tracks, beyond, begun = [], [], dict[Track, int](), 0, 0
    session.trace()
    try:
        for run in range(runs):
            start = time.monotonic_ns()
            session.run(image)
            end = time.monotonic_ns()
            begun = begun or start
            spans.append(Span((start - begun) / 1e3, (end - start) / 1e3))
            found, lost = session.events()
            beyond += lost
            for event in found:
                thread = f"thread {event.thread}" if event.thread else "thread 0 (caller)"
                track = tracks.setdefault(Track(thread, ops[event.op].lane), len(tracks))
                begin, took = (event.start_ns - begun) / 1e3, (event.end_ns - event.start_ns) / 1e3
                events.append(Event(run, event.op, track, begin, took, core=event.core))
    finally:
        session.trace(False)
    notes = [f"{beyond} events were lost: there is room for 65,536 a thread"] if beyond else []
    return Traced(ops, tuple(tracks), tuple(spans), tuple(events), tuple(notes))


def trace_selections(session: Session, image: Array) -> tuple[tuple[Selection, ...], int]:
    """Trace which patches each layer sends to the big path.

    And among how many tokens, the class token included; none among 0 of a dense model.
    """
    session.trace()
    try:
        session.run(image)
        routers = [(number, op) for number, op in enumerate(session.inspect()["ops"]) if "tokens" in op]
        chosen = [(name_layer(op["name"]), session.rows(number)) for number, op in routers]
    finally:
        session.trace(False)
    tokens = max((op["tokens"] for _, op in routers), default=0)
    return tuple(Selection(layer, tuple((rows[1:] - 1).tolist())) for layer, rows in chosen), tokens


def time_runs(run: Callable[[Array], Array], image: Array, runs: int) -> list[float]:
    """Time runs, in ms."""
    times = np.empty(runs)
    for i in range(runs):
        start = time.perf_counter_ns()
        run(image)
        times[i] = (time.perf_counter_ns() - start) / 1e6
    return [float(each) for each in times]
