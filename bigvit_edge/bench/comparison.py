"""Two results beside each other: whether they differ, by how much, and whether they may be compared at all."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bigvit_edge.measures import Interval
from bigvit_edge.results import VALID, Frames, Result, Row, Turn

RESAMPLES = 4000
CONFIDENCE = 0.95
SEED = 0
LEAST_TURNS = 20  # below which the interval is too narrow: 6 of 60 pairs of 8 turns that are alike seem to differ
BENCHES_DIFFER = 0.03  # two benches of one file, by what moves between them and not within: tests/bench_repeats.py
CLOCK_DIFFERS = 0.03  # of the clocks at which two rows ran


@dataclass(frozen=True)
class Ratio:
    """The ratio of two medians, after to before.

    interval: in which it lies with 95 % confidence.
    """

    value: float
    interval: Interval

    @property
    def differs(self) -> bool:
        """Tell whether 1 lies outside of the interval."""
        low, high = self.interval
        return not low <= 1 <= high


@dataclass(frozen=True)
class Compared:
    """Two rows and the ratio of their medians.

    obstacles: why they may not be compared, () if they may.
    """

    before: Row
    after: Row
    ratio: Ratio
    obstacles: tuple[str, ...]

    @property
    def differs(self) -> bool:
        """Tell whether they differ more than benches of one file."""
        return self.ratio.differs and abs(1 - self.ratio.value) > BENCHES_DIFFER


def compare(before: Result, after: Result) -> tuple[list[Compared], list[str]]:
    """Compare the rows of two results; and what has no partner.

    Partners have the same file name, entry point, policy and threads. Where two results hold one row each, these are
    partners whatever they are called.
    """
    partners = _pair(before.rows, after.rows)
    pairs = [(one, other) for one, other in partners if one.turns and other.turns]
    paired = {id(row) for pair in pairs for row in pair}
    alone = [
        f"{side}: {row.name()}" + (f" ({row.error})" if row.error else "")
        for side, result in (("before", before), ("after", after))
        for row in result.rows
        if id(row) not in paired
    ]
    return [
        Compared(one, other, bound_ratio(one.turns, other.turns), tuple(find_obstacles(before, after, one, other)))
        for one, other in pairs
    ], alone


def bound_ratio(before: Sequence[Turn], after: Sequence[Turn]) -> Ratio:
    """Bound the ratio of two medians by a bootstrap.

    Whole turns are drawn, with replacement, as their images are alike for reasons of the moment: drawing images would
    promise more than there is (block bootstrap; Efron and Tibshirani 1993, chapter 8). Percentiles of RESAMPLES draws.
    """
    random = np.random.default_rng(SEED)
    sides = [[np.array(turn.times_ms) for turn in turns] for turns in (before, after)]
    medians = [float(np.median(np.concatenate(side))) for side in sides]
    drawn = [_draw_medians(side, random) for side in sides]
    low, high = np.quantile(drawn[1] / drawn[0], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Ratio(medians[1] / medians[0], (float(low), float(high)))


def bound_median(turns: Sequence[Turn]) -> Interval:
    """Bound the median of turns in milliseconds, as bound_ratio does."""
    drawn = _draw_medians([np.array(turn.times_ms) for turn in turns], np.random.default_rng(SEED))
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def find_obstacles(before: Result, after: Result, one: Row, other: Row) -> list[str]:
    """Find why two rows are not comparable, in words."""
    told = [
        ("other devices", before.device, after.device),
        ("other machines", before.machine.cpu or before.machine.board, after.machine.cpu or after.machine.board),
        ("other threads", one.threads, other.threads),
        ("other cores", one.cores_allowed, other.cores_allowed),
        ("other precisions", one.precision, other.precision),
        ("other keep ratios", one.keep, other.keep),
        ("other paces", before.protocol.fps, after.protocol.fps),
        ("other ways to start", one.launch, other.launch),
    ]
    found = [f"{what}: {a} and {b}" for what, a, b in told if a != b]
    clocks = [_take_clock(row.turns) for row in (one, other)]
    if clocks[0] and clocks[1] and abs(clocks[1] / clocks[0] - 1) > CLOCK_DIFFERS:
        found.append(f"other clocks: {clocks[0]:.0f} and {clocks[1]:.0f} MHz")
    for side, row in (("before", one), ("after", other)):
        if len(row.turns) < LEAST_TURNS:
            found.append(f"{side} has {len(row.turns)} turns: fewer than {LEAST_TURNS} bound no median")
        if row.verdicts and row.verdicts != (VALID,):
            found.append(f"{side} is {', '.join(row.verdicts)}: {'; '.join(row.reasons)}")
    found += [f"{side} is a part of a bench" for side, r in (("before", before), ("after", after)) if not r.complete]
    return found


def take_frame_ms(row: Row) -> float | None:
    """Take the median from a frame to its label.

    Of too few turns to bound it; None where there is none.
    """
    return row.frame.label_ms.p50 if isinstance(row.frame, Frames) and row.frame.label_ms else None


def _pair(before: Sequence[Row], after: Sequence[Row]) -> list[tuple[Row, Row]]:
    known = {row.name(): row for row in before}
    pairs = [(known[row.name()], row) for row in after if row.name() in known]
    if not pairs and len(before) == len(after) == 1:
        return [(before[0], after[0])]
    return pairs


def _draw_medians(turns: list[NDArray[np.float64]], random: np.random.Generator) -> NDArray[np.float64]:
    """Medians of RESAMPLES draws of as many turns.

    By weights of the sorted times: a draw is how often each turn was taken.
    """
    times = np.concatenate(turns)
    order = np.argsort(times)
    owner = np.repeat(np.arange(len(turns)), [len(turn) for turn in turns])[order]
    ordered = times[order]
    counts = random.multinomial(len(turns), np.full(len(turns), 1 / len(turns)), RESAMPLES)  # [R, turns]
    medians = np.empty(RESAMPLES)
    for i, count in enumerate(counts):
        total = np.cumsum(count[owner])
        medians[i] = ordered[np.searchsorted(total, (total[-1] + 1) / 2)]
    return medians


def _take_clock(turns: Sequence[Turn]) -> float | None:
    clocks = [mhz for turn in turns for mhz in turn.clock_mhz if mhz]
    return float(np.median(clocks)) if clocks else None
