"""Profiles made by hand."""

from dataclasses import replace
from io import BytesIO
from typing import Any

from PIL import Image

from bigvit_edge.artifact import Leftover
from bigvit_edge.machine import read_platform
from bigvit_edge.profile.records import Event, Op, Profile, Routing, Selection, Span, Traced, Track
from bigvit_edge.runtime.limits import Count, Roof

NASTY = "<script>alert('1')</script>\"&"


def make_picture() -> bytes:
    file = BytesIO()
    Image.new("RGB", (16, 16), "red").save(file, "PNG")
    return file.getvalue()


def make_traced() -> Traced:
    """Two runs of three ops in two layers, on two tracks of the caller and one of a helper."""
    ops = (
        Op("layers.0.p.mlp", "layers.0", "mlp", "mlp", "bve", "big", 2_000_000, 40_000, "qd8"),
        Op("layers.0.router", "layers.0", "routing", "route", "bve", "LITTLE", 1_000, 4_000, "f32"),
        Op(f"layers.1.{NASTY}", "layers.1", "linear", "linear", "bve", "big", 500_000, 20_000, "qd8"),
    )
    tracks = (Track("thread 0 (caller)", "big"), Track("thread 0 (caller)", "LITTLE"), Track("thread 1", "big"))
    spans = tuple(Span(run * 1000.0, 100.0 + run) for run in range(2))
    events = []
    for run, span in enumerate(spans):
        for op, track, start, took in ((1, 1, 5, 2), (0, 0, 10, 30), (0, 2, 12, 28.5), (2, 0, 50, 20.25)):
            events.append(Event(run, op, track, span.start_us + start, took, core=track))
    return Traced(ops, tracks, spans, tuple(events), ("a note",))


def make_profile(**changes: Any) -> Profile:
    profile = Profile(
        file=f"tiny_int8{NASTY}.bve", format="bve", precision="int8", keep=0.5, runtime="bigvit-edge 0.1.0", threads=2,
        device="local", machine=read_platform("lib", "why"), image="noise", latency_ms=(0.1, 0.11, 0.12, 0.5),
        traced=make_traced(), roof=Roof(1, {"f32": 59.0, "f16": 0.0, "qd8": 236.0}, 2**18, 38.0, 2**26, 20.0),
        counts=(Count("page faults", "", 3.0), Count("cycles", "cpu", None, 0.0, "no such counter here")),
        routing=Routing(2, (Selection("layers.0", (0, 3)), Selection("layers.1", (1, 2))), make_picture()), unrouted="",
        leftovers=(Leftover("TOPK_V2", "layers.0", 0.01, f"because {NASTY}"),), notes=(NASTY,),
        command="bigvit-edge profile 'a b.bve'",
    )  # fmt: skip
    return replace(profile, **changes)
