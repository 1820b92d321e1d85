"""Whether a row may be believed, and if not, why: from its own raw turns."""

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from bigvit_edge.devices.null import Null
from bigvit_edge.machine import Machine
from bigvit_edge.results import FAILED, NOISY, NOT_PINNED, QUOTA, THROTTLED, VALID, Frames, Row, Turn, describe_times

NO_LAUNCH = Null.launch
LEAST_TURNS = 8  # below which neither drift nor spread is told from chance
SLOWED = 1.05  # the last quarter's time of the first's, where the clock fell as well
SLOWED_ALONE = 1.15  # the same, where the clock is not known
DRIFTED = 1.10  # either way, at the same clock
CLOCK_FELL = 0.96  # the last quarter's clock of the first's
CLOCK_LOW = 0.8  # of what the slowest of its cores can, back to back
PACE_MISSED = 0.97  # of the images a second that were asked for
STRAYED = 0.02  # of the CPU time, on cores that were not asked for
TAIL = 1.25  # p90 of p50
SPREAD = 0.10  # of the middle half of the turns' medians, of p50
PI_BITS = {0: "under-voltage", 1: "the clock capped", 2: "throttled", 3: "the soft temperature limit"}
PI_NOW, PI_SINCE = 0xF, 16  # bits that say what is so now; by how much those of since it was started are higher


def judge(row: Row, machine: Machine, throttled_bits: Sequence[int | None] = (), fps: float = 0) -> Row:
    """Judge a row: its distribution, and what speaks against it.

    Its turns are all there. throttled_bits: of a Raspberry Pi's firmware, before and after. fps: the pace asked for, 0
    for none. A row without turns has failed.
    """
    if row.error or not row.turns:
        return replace(row, verdicts=(FAILED,), reasons=(row.error or "it was not run",))
    if row.launch == NO_LAUNCH:
        return replace(row, verdicts=(FAILED,), reasons=("the null device runs nothing: its times are made up",))
    found = [*_find_misplaced(row), *_find_quota(row, machine), *_find_throttling(row, throttled_bits)]
    if not found and not fps:
        found = _find_low_clock(row, machine)
    if not found:  # each of these explains a wide row
        found = [*_find_noise(row.turns, row.warm), *_find_missed_pace(row.turns, fps)]
    first, last = _take_minutes(row.turns)
    return replace(
        row,
        first_minute_ms=first,
        last_minute_ms=last,
        latency_ms=describe_times(row.times_ms()),
        cpu_ms=_take_cpu(row.turns),
        throttled_share=_share_throttled(row.turns),
        frame=_describe_frames(row),
        verdicts=tuple(dict.fromkeys(verdict for verdict, _ in found)) or (VALID,),
        reasons=tuple(reason for _, reason in found),
    )


def _describe_frames(row: Row) -> Frames | str | None:
    """Beside the turns that they followed: whatever the machine did then fell on both."""
    frames = row.frame
    if not isinstance(frames, Frames) or not frames.turns:
        return frames
    label_ms, model_ms = describe_times(frames.label_times_ms), _take_median([row.turns[n] for n in frames.turns])
    return replace(
        frames, label_ms=label_ms, prepare_ms=describe_times(frames.prepare_times_ms), model_ms=model_ms,
        ratio=label_ms.p50 / model_ms,
    )  # fmt: skip


def _find_misplaced(row: Row) -> list[tuple[str, str]]:
    if row.cores_asked is None:
        return []
    asked = set(row.cores_asked)
    if row.cores_allowed and set(row.cores_allowed) != asked:
        return [(NOT_PINNED, f"cores {_list(asked)} were asked for, the system left {_list(row.cores_allowed)}")]
    ran = {int(core) for turn in row.turns for core in turn.cores if core != "-1"}
    spent: dict[int, float] = defaultdict(float)
    for turn in row.turns:
        for core, ms in turn.thread_ms.items():
            spent[int(core)] += ms
    ran |= {core for core, ms in spent.items() if ms > STRAYED * sum(spent.values())}
    if away := ran - asked:
        return [(NOT_PINNED, f"it ran on cores {_list(away)}, asked were {_list(asked)}")]
    return []


def _find_quota(row: Row, machine: Machine) -> list[tuple[str, str]]:
    periods = sum(turn.throttled_periods or 0 for turn in row.turns)
    quota = machine.limits.quota_cores
    if periods:
        grants = "" if quota is None else f" of {quota:g} cores"
        return [(QUOTA, f"the cgroup's quota{grants} stopped it in {periods} periods")]
    return []


def _find_throttling(row: Row, bits: Sequence[int | None]) -> list[tuple[str, str]]:
    before, after = (bits[0] or 0, bits[-1] or 0) if bits else (0, 0)
    words = (before & PI_NOW) | (after & PI_NOW) | ((after & ~before) >> PI_SINCE)
    told = [name for bit, name in PI_BITS.items() if words & 1 << bit]
    found = [(THROTTLED, f"the firmware says: {', '.join(told)}")] if told else []
    if len(row.turns) < LEAST_TURNS:
        return found
    quarter = len(row.turns) // 4
    first, last = row.turns[:quarter], row.turns[-quarter:]
    slower = _take_median(last) / _take_median(first)
    clocks = _take_clock(first), _take_clock(last)
    if clocks[0] and clocks[1]:
        fell = clocks[1] / clocks[0]
        if slower > SLOWED and fell < CLOCK_FELL:
            return [*found, (THROTTLED, f"{slower:.2f} times the time at the end, at {fell:.2f} of the clock")]
    elif slower > SLOWED_ALONE:
        return [*found, (THROTTLED, f"{slower:.2f} times the time at the end; the clock is not known")]
    return found


def _share_throttled(turns: Sequence[Turn]) -> float | None:
    """The share of the time, of turns whose clock fell from the first quarter's; None where it is not known."""
    if len(turns) < LEAST_TURNS:
        return None
    usual = _take_clock(turns[: len(turns) // 4])
    spans = [(_take_clock((turn,)), turn.end_ns - turn.start_ns) for turn in turns]
    known = sum(ns for clock, ns in spans if clock)
    if not usual or not known:
        return None
    return sum(ns for clock, ns in spans if clock and clock < CLOCK_FELL * usual) / known


def _find_low_clock(row: Row, machine: Machine) -> list[tuple[str, str]]:
    """A device that was held back from the first turn to the last."""
    most = [core.max_khz for core in machine.cores if core.number in (row.cores_asked or ()) and core.max_khz]
    clock = _take_clock(row.turns)
    if not most or not clock or clock >= CLOCK_LOW * min(most) / 1e3:
        return []
    could = f"{min(most) / 1e3:.0f} MHz that its cores can"
    return [(THROTTLED, f"it ran at {clock:.0f} of the {could}: a governor, heat or a power limit holds them")]


def _find_missed_pace(turns: Sequence[Turn], fps: float) -> list[tuple[str, str]]:
    if not fps:
        return []
    seconds = sum(turn.end_ns - turn.start_ns for turn in turns) / 1e9
    pace = sum(len(turn.times_ms) for turn in turns) / seconds if seconds else fps
    return [(NOISY, f"{pace:.3g} images a second, of {fps:g} asked for")] if pace < PACE_MISSED * fps else []


def _find_noise(turns: Sequence[Turn], warm: bool) -> list[tuple[str, str]]:
    if not warm:
        return [(NOISY, "its times had not settled when warming up ended")]
    times = describe_times([ms for turn in turns for ms in turn.times_ms])
    if times.p90 > TAIL * times.p50:
        return [(NOISY, f"p90 is {times.p90 / times.p50:.2f} times p50")]
    medians = [statistics.median(turn.times_ms) for turn in turns]
    if len(medians) < LEAST_TURNS:
        return [(NOISY, f"{len(medians)} turns are too few to tell")]
    low, _, high = statistics.quantiles(medians, n=4)
    if high - low > SPREAD * times.p50:
        return [(NOISY, f"the middle half of its turns differs by {(high - low) / times.p50:.0%}")]
    quarter = len(turns) // 4
    drift = _take_median(turns[-quarter:]) / _take_median(turns[:quarter])
    if not 1 / DRIFTED <= drift <= DRIFTED:
        return [(NOISY, f"{drift:.2f} times the time at the end, at the same clock")]
    return []


def _take_minutes(turns: Sequence[Turn]) -> tuple[float | None, float | None]:
    """The medians of the first and of the last minute, of a row that took two or more in one go."""
    start, end, minute = turns[0].start_ns, turns[-1].end_ns, 60 * 10**9
    if len({turn.part for turn in turns}) > 1 or end - start < 2 * minute:
        return None, None
    first = [turn for turn in turns if turn.end_ns - start <= minute]
    last = [turn for turn in turns if end - turn.start_ns <= minute]
    return (_take_median(first), _take_median(last)) if first and last else (None, None)


def _take_median(turns: Sequence[Turn]) -> float:
    return statistics.median(ms for turn in turns for ms in turn.times_ms)


def _take_cpu(turns: Sequence[Turn]) -> float | None:
    """CPU time an image; None where a turn does not tell."""
    spent = [turn.cpu_ms * len(turn.times_ms) for turn in turns if turn.cpu_ms is not None]
    return sum(spent) / sum(len(turn.times_ms) for turn in turns) if len(spent) == len(turns) else None


def _take_clock(turns: Sequence[Turn]) -> float | None:
    clocks = [mhz for turn in turns for mhz in turn.clock_mhz if mhz]
    return statistics.median(clocks) if clocks else None


def _list(cores: set[int] | tuple[int, ...]) -> str:
    return ", ".join(map(str, sorted(cores)))
