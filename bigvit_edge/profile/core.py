"""Our own runtime's profile: bve-run on the device says when each thread did what, and which tokens were chosen."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigvit_edge.artifact import Array
from bigvit_edge.devices.contract import Device, DeviceError
from bigvit_edge.devices.process import run_words
from bigvit_edge.devices.store import Store
from bigvit_edge.profile.records import Event, Op, Selection, Span, Traced, Track, name_layer
from bigvit_edge.runtime import explain
from bigvit_edge.runtime.limits import Count, Roof, count_between, parse_roof

KINDS = {
    "linear": "linear", "mlp": "mlp", "attention": "attention", "route": "routing", "patches": "copying",
    "fill": "copying", "list": "other",
}  # fmt: skip
LANES = ("big", "LITTLE")
LONGEST_S = 3600  # of all runs


@dataclass(frozen=True)
class Measured:
    """What bve-run measures of a file.

    counts: of the two halves of the runs without tracing. selections: by layer, () of a dense model; tokens: among how
    many they chose, 0 there.
    """

    version: str
    times_ms: tuple[float, ...]
    traced: Traced
    selections: tuple[Selection, ...]
    tokens: int
    counts: tuple[tuple[Count, ...], ...]
    roof: Roof


def measure_core(
    device: Device, store: Store, bve_run: str, path: Path, image: Array, keep: float | None, threads: int, runs: int,
    warmup: int,
) -> Measured:  # fmt: skip
    """Measure a .bve by bve-run on a device.

    UserError with what bve-run says if it cannot; DeviceError if the device is lost, or says what cannot be understood.
    """
    with tempfile.TemporaryDirectory() as folder:
        pixels = Path(folder) / "image.f32"
        pixels.write_bytes(image.astype("<f4").tobytes())
        words = [bve_run, "profile", store.place(path), "--input", store.place(pixels)]
        words += ["--threads", str(threads), "--runs", str(runs), "--warmup", str(warmup)]
        words += ["--keep", f"{keep:g}"] if keep else []
        done = run_words(device, words, LONGEST_S)
    if done.status:
        said = done.err.strip().splitlines() or [f"status {done.status}"]
        raise explain(said[-1].removeprefix("bve-run: "))
    try:
        return read_measured(json.loads(done.out))
    except (ValueError, KeyError, TypeError, IndexError) as e:
        met = f"what bve-run on {device.name} says cannot be understood ({e})"
        raise DeviceError(met, "that of this version", "see $BVE_RUN, or install bigvit-edge again") from e


def read_measured(told: dict[str, Any]) -> Measured:
    """Read what `bve-run profile` prints."""
    ops = told["session"]["ops"]
    rows = [(ops[number], chosen) for number, chosen in told["traced"]["rows"]]
    return Measured(
        version=str(told["machine"]["version"]),
        times_ms=tuple(map(float, told["times_ms"])),
        traced=_read_traced(told["traced"], ops),
        selections=tuple(_read_selection(op, chosen) for op, chosen in rows),
        tokens=max((op["tokens"] for op, _ in rows), default=0),
        counts=tuple(count_between(before, after) for before, after in told["counts"]),
        roof=parse_roof(told["roof"]),
    )


def _read_selection(op: dict[str, Any], rows: list[int]) -> Selection:
    return Selection(name_layer(op["name"]), tuple(row - 1 for row in rows if row))  # 0 is the class token


def _read_traced(told: dict[str, Any], ops: list[dict[str, Any]]) -> Traced:
    """A track a thread and lane; lanes are told apart where the model has two."""
    lanes = len({op["lane"] for op in ops}) > 1
    read = tuple(
        Op(
            op["name"], name_layer(op["name"]), KINDS.get(op["kind"], "other"), op["kind"], "bve",
            LANES[op["lane"]] if lanes else "", op["macs"], op["bytes"], op["type"],
        )
        for op in ops
    )  # fmt: skip
    begun = told["runs"][0][0]
    spans = tuple(Span((start - begun) / 1e3, (end - start) / 1e3) for start, end in told["runs"])
    events, tracks = list[Event](), dict[Track, int]()
    for run, op, thread, core, start, end in told["events"]:
        name = f"thread {thread}" if thread else "thread 0 (caller)"
        track = tracks.setdefault(Track(name, read[op].lane), len(tracks))
        events.append(Event(run, op, track, (start - begun) / 1e3, (end - start) / 1e3, core=core))
    lost = told["lost"]
    notes = (f"{lost} events were lost: there is room for 65,536 a thread",) if lost else ()
    return Traced(read, tuple(tracks), spans, tuple(events), notes)
