"""The timeline, against the rules of Chrome's trace event format."""

import json
from collections import defaultdict
from dataclasses import replace
from typing import Any

import pytest

from bigvit_edge.profile.timeline import write_timeline
from tests.profile.made import make_profile, make_traced


def check_format(text: str) -> list[dict[str, Any]]:
    """The slices of a trace that keeps to the documented rules: complete events and metadata, nested on each track."""
    trace = json.loads(text)
    assert trace["displayTimeUnit"] in ("ms", "ns")
    named, tracks = set(), defaultdict(list)
    for event in trace["traceEvents"]:
        assert isinstance(event["name"], str)
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name", "thread_sort_index")
            if event["name"] == "thread_name":
                named.add((event["pid"], event["tid"]))
                assert isinstance(event["args"]["name"], str)
            continue
        assert event["ph"] == "X"
        assert event["dur"] >= 0
        assert isinstance(event["args"], dict)
        tracks[event["pid"], event["tid"]].append(event)
    assert named == set(tracks)
    for events in tracks.values():
        assert [event["ts"] for event in events] == sorted(event["ts"] for event in events)
        open_ends: list[int] = []
        for event in events:
            start, end = round(event["ts"] * 1000), round((event["ts"] + event["dur"]) * 1000)  # ns
            while open_ends and open_ends[-1] <= start:
                open_ends.pop()
            assert not open_ends or end <= open_ends[-1]  # inside, or behind
            open_ends.append(end)
            event["depth"] = len(open_ends)
    return [event for events in tracks.values() for event in events]


def test_runs_hold_layers_and_layers_hold_ops() -> None:
    slices = check_format(write_timeline(make_profile(), make_traced()))
    depths = {"run": {1}, "layer": {2}, "mlp": {3}, "routing": {3}, "linear": {3}}
    for category, depth in depths.items():
        assert {each["depth"] for each in slices if each["cat"] == category} == depth
    runs = [each for each in slices if each["name"] == "run 1"]
    assert {each["tid"] for each in runs} == {1, 2, 3}
    assert (runs[0]["ts"], runs[0]["dur"]) == (1000, 101)


def test_an_op_tells_its_work_and_where_it_ran() -> None:
    slices = check_format(write_timeline(make_profile(), make_traced()))
    op = next(each for each in slices if each["name"] == "layers.0.p.mlp" and each["tid"] == 3)
    assert (op["ts"], op["dur"]) == (12, 28.5)
    assert op["args"]["macs"] == 2_000_000
    assert op["args"]["core"] == 2
    assert op["args"]["lane"] == "big"


@pytest.mark.parametrize("shift", [0.0004, 0.0005, 1 / 3])
def test_rounding_breaks_no_nesting(shift: float) -> None:
    traced = make_traced()
    events = tuple(
        replace(event, start_us=event.start_us + shift, duration_us=event.duration_us - shift / 3)
        for event in traced.events
    )
    check_format(write_timeline(make_profile(), replace(traced, events=events)))


def test_the_check_finds_what_overlaps() -> None:
    trace = json.loads(write_timeline(make_profile(), make_traced()))
    first = next(event for event in trace["traceEvents"] if event.get("cat") == "mlp")
    first["dur"] += 20
    with pytest.raises(AssertionError):
        check_format(json.dumps(trace))
