"""What a profile is: the same of every runtime."""

import statistics
from dataclasses import dataclass

from bigvit_edge.artifact import Leftover
from bigvit_edge.errors import UserError
from bigvit_edge.machine import Machine
from bigvit_edge.runtime.limits import Count, Roof

# Kinds of op, whatever a runtime calls its own.
KINDS = (
    "linear", "mlp", "attention", "convolution", "matrix product", "softmax", "normalisation", "activation",
    "elementwise", "quantisation", "routing", "copying", "other",
)  # fmt: skip


@dataclass(frozen=True)
class Op:
    """An op as its runtime runs it.

    layer: 'layers.3', or what else of the model it belongs to. kind: of KINDS; word: the runtime's own. unit: what runs
    it: 'bve', 'XNNPACK', a provider or 'LiteRT' alone, where XNNPACK did not take it. lane: 'big' or 'LITTLE' of a
    big.LITTLE model, else ''. macs, bytes: multiply-accumulates, and weights and activations read and written at least;
    None where the runtime does not tell. type: what it multiplies in (f32, f16, qd8), '' where that is not told.
    """

    name: str
    layer: str
    kind: str
    word: str
    unit: str
    lane: str = ""
    macs: int | None = None
    bytes: int | None = None
    type: str = ""


@dataclass(frozen=True)
class Track:
    """What runs one thing after another.

    A thread's work of one lane; lane is '' where there is but one.
    """

    thread: str
    lane: str = ""

    @property
    def name(self) -> str:
        """Name it as a reader should see it."""
        return f"{self.thread}, {self.lane}" if self.lane else self.thread


@dataclass(frozen=True)
class Event:
    """A piece of work on a track.

    run, op, track: numbers in their lists. start_us, duration_us: microseconds since the first traced run. placed:
    the runtime tells how long it took and not when, so that it stands behind the one before it. core: -1 if not told.
    """

    run: int
    op: int
    track: int
    start_us: float
    duration_us: float
    placed: bool = False
    core: int = -1


@dataclass(frozen=True)
class Span:
    """A traced run: microseconds since the first one began."""

    start_us: float
    duration_us: float


@dataclass(frozen=True)
class Traced:
    """What a runtime told of the traced runs.

    Every event lies in its run, and those of a track follow one another.
    """

    ops: tuple[Op, ...]
    tracks: tuple[Track, ...]
    runs: tuple[Span, ...]
    events: tuple[Event, ...]
    notes: tuple[str, ...] = ()

    def sum_by_op(self) -> list[float]:
        """Sum each op's time in a run.

        In ms, the median of the runs, all threads' together.
        """
        sums = [[0.0] * len(self.runs) for _ in self.ops]
        for event in self.events:
            sums[event.op][event.run] += event.duration_us / 1e3
        return [statistics.median(each) if each else 0.0 for each in sums]


@dataclass(frozen=True)
class Selection:
    """The tokens that a layer's big path treated.

    patches: numbers of the image's patches, in raster order, without the class token.
    """

    layer: str
    patches: tuple[int, ...]


@dataclass(frozen=True)
class Routing:
    """The choice of every layer, on one picture.

    side: patches in a row; picture: it, as the model saw it, a PNG.
    """

    side: int
    selections: tuple[Selection, ...]
    picture: bytes


@dataclass(frozen=True)
class Profile:
    """Where a file's time goes on one device.

    latency_ms: of runs without tracing; traced: of runs with it, None where the runtime tells nothing of its ops, with
    the reason among the notes. counts: the kernel's, of one run without tracing. routing: None, and why: `unrouted`.
    leftovers: what the manifest says of ops outside the intended unit, None for a file without one.
    """

    file: str
    format: str
    precision: str
    keep: float | None
    runtime: str
    threads: int
    device: str
    machine: Machine
    image: str
    latency_ms: tuple[float, ...]
    traced: Traced | None
    roof: Roof | None
    counts: tuple[Count, ...]
    routing: Routing | None
    unrouted: str
    leftovers: tuple[Leftover, ...] | None
    notes: tuple[str, ...]
    command: str


def name_layer(name: str) -> str:
    """Name the layer of an op: 'layers.3' of 'layers.3.p.mlp'.

    Otherwise the name's first part.
    """
    parts = name.split(".")
    for i, part in enumerate(parts[:-1]):
        if parts[i + 1].isdigit() and part in ("layers", "blocks", "stages", "layer", "encoder"):
            return ".".join(parts[: i + 2])
    return parts[0]


def check_profile(traced: Traced) -> None:
    """Check that the runtime told what can be.

    UserError if an event lies outside its run or before the one before it on its track, by more than a clock's tick.
    """
    ends: dict[int, float] = {}
    for event in sorted(traced.events, key=lambda event: (event.track, event.start_us)):
        run = traced.runs[event.run]
        if event.start_us < run.start_us - 1 or event.start_us + event.duration_us > run.start_us + run.duration_us + 1:
            met = f"an event of {traced.ops[event.op].name} outside its run"
            raise UserError(met, "events within their runs", "profile again")
        if event.start_us < ends.get(event.track, 0) - 1:
            met = f"two events at once on {traced.tracks[event.track].name}"
            raise UserError(met, "one after the other", "profile again")
        ends[event.track] = event.start_us + event.duration_us
