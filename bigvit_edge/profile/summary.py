"""What a profile says in few figures: by layer, by kind, and by the part that ops play in every layer."""

import re
import statistics
from collections import defaultdict
from dataclasses import dataclass

from bigvit_edge.profile.records import Op, Profile, Traced
from bigvit_edge.runtime.limits import Roof


@dataclass(frozen=True)
class Share:
    """A name and its time.

    ms: of a run; share: of all ops' time, in 0..1.
    """

    name: str
    ms: float
    share: float


@dataclass(frozen=True)
class Role:
    """Ops that play one part in every layer, together.

    name: as 'p.mlp'. macs and bytes: of all of them; type: what they multiply in.
    """

    name: str
    ms: float
    macs: int
    bytes: int
    type: str

    @property
    def rate(self) -> float:
        """10^9 multiply-accumulates a second of a thread."""
        return self.macs / self.ms / 1e6

    @property
    def intensity(self) -> float:
        """Multiply-accumulates for each byte."""
        return self.macs / self.bytes


@dataclass(frozen=True)
class Bar:
    """A layer's place in one run.

    start_ms, end_ms: from its first op's start to its last op's end, after the run's begin. lane: '' where there is but
    one.
    """

    layer: str
    lane: str
    start_ms: float
    end_ms: float
    busy_ms: float


def sum_by_kind(traced: Traced) -> list[Share]:
    """Sum the ops' time by kind, the longest first."""
    return _sum_by(traced, [op.kind for op in traced.ops], by_time=True)


def sum_by_layer(traced: Traced) -> list[Share]:
    """Sum the ops' time by layer, in the model's order."""
    return _sum_by(traced, [op.layer for op in traced.ops], by_time=False)


def _sum_by(traced: Traced, names: list[str], by_time: bool) -> list[Share]:
    sums = dict.fromkeys(names, 0.0)
    for name, ms in zip(names, traced.sum_by_op(), strict=True):
        sums[name] += ms
    total = sum(sums.values()) or 1.0
    shares = [Share(name, ms, ms / total) for name, ms in sums.items()]
    return sorted(shares, key=lambda share: -share.ms) if by_time else shares


def list_slowest(traced: Traced, count: int) -> list[tuple[Op, Share]]:
    """List the ops that take longest."""
    times = traced.sum_by_op()
    total = sum(times) or 1.0
    shares = [(op, Share(op.name, ms, ms / total)) for op, ms in zip(traced.ops, times, strict=True)]
    return sorted(shares, key=lambda pair: -pair[1].ms)[:count]


def sum_by_role(traced: Traced) -> list[Role]:
    """Sum the multiplying ops by part, the longest first.

    Left out are those whose work or time is not told.
    """
    sums = defaultdict[tuple[str, str], list[float]](lambda: [0.0, 0, 0])
    for op, ms in zip(traced.ops, traced.sum_by_op(), strict=True):
        if op.macs and op.bytes and op.type:
            each = sums[_name_role(op), op.type]
            for i, value in enumerate((ms, op.macs, op.bytes)):
                each[i] += value
    roles = [Role(name, ms, int(macs), int(bytes_), type_) for (name, type_), (ms, macs, bytes_) in sums.items() if ms]
    return sorted(roles, key=lambda role: -role.ms)


def _name_role(op: Op) -> str:
    """'p.mlp' of 'layers.3.p.mlp'; 'Fully Connected' of 'Fully Connected #17'."""
    inside = op.name.removeprefix(op.layer).lstrip("./")
    return re.sub(r" #\d+$", "", inside) or op.name


def find_peak(roof: Roof, type_: str) -> float:
    """Find the peak of a type.

    float32's, where the machine has no instruction for it.
    """
    return roof.gmac_per_s.get(type_) or roof.gmac_per_s["f32"]


def place_layers(traced: Traced) -> tuple[list[Bar], float]:
    """Place each layer in the run of median length.

    The shorter of the middle two of an even number. And say how long that took, in ms.
    """
    lengths = [run.duration_us for run in traced.runs]
    run = lengths.index(statistics.median_low(lengths))
    begun = traced.runs[run].start_us
    bars = dict[tuple[str, str], Bar]()
    for event in sorted((event for event in traced.events if event.run == run), key=lambda event: event.start_us):
        op = traced.ops[event.op]
        start, took = (event.start_us - begun) / 1e3, event.duration_us / 1e3
        old = bars.get((op.layer, op.lane))
        first, end, busy = (old.start_ms, old.end_ms, old.busy_ms) if old else (start, start, 0.0)
        bars[op.layer, op.lane] = Bar(op.layer, op.lane, first, max(end, start + took), busy + took)
    order = list(dict.fromkeys(layer for layer, _ in bars))
    placed = sorted(bars.values(), key=lambda bar: (order.index(bar.layer), bar.lane != "big"))
    return placed, lengths[run] / 1e3


def measure_cost(profile: Profile) -> float | None:
    """Measure by what share tracing lengthens the fastest run.

    The fastest, because what else the machine does falls on few runs alike. None where nothing was traced.
    """
    if profile.traced is None:
        return None
    return min(run.duration_us for run in profile.traced.runs) / 1e3 / min(profile.latency_ms) - 1
