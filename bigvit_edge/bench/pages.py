"""Results and comparisons as text for people."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress as Bar

from bigvit_edge.bench.comparison import BENCHES_DIFFER, Compared, bound_ratio, take_frame_ms
from bigvit_edge.bench.measurement import Progress
from bigvit_edge.machine import describe
from bigvit_edge.results import FAILED, VALID, Answers, Energy, Frames, Load, Result, Row, spell_path
from bigvit_edge.tables import print_rows, print_step, spell_line

MOST_CACHED = 0.05  # of a file, that a cold load may find in the system's cache
TITLE = (
    "file", "keep", "cores", "threads", "p50", "p90", "p99", "frame to label", "CPU an image", "cold load + first",
    "warm load + first", "peak memory", "size", "delegated", "top-1", "energy", "verdict",
)  # fmt: skip


def print_result(result: Result, path: Path) -> None:
    """Print a bench's table, and what its figures mean."""
    print_rows(TITLE, (_list_cells(row) for row in result.rows))
    for line in explain_result(result):
        print(spell_line(line))
    print(f"all of it, raw times too: {spell_line(spell_path(path))}")


def explain_result(result: Result) -> Iterator[str]:
    """Explain a result's figures, in lines."""
    yield f"device: {result.device}, {describe(result.machine)}"
    for row in result.rows:
        yield from (f"{row.name()}: {row.verdicts[0]}: {reason}" for reason in row.reasons)
    p = result.protocol
    pace = f"at {p.fps:g} images a second" if p.fps else "back to back"
    count = f"{p.minutes:g} minutes" if p.minutes else f"{p.rounds} rounds"
    yield f"times: of images {pace}, {count} of turns of at least {p.turn_s:g} s and {p.turn_images} images, one"
    yield "  file after the other, each in a process of its own; warmed up before, by " + _list_warmup(result.rows)
    for runtime, launch in dict.fromkeys((row.runtime, row.launch) for row in result.rows if row.runtime):
        yield f"{runtime}: started by {launch}"
    yield from _explain_frames(result.rows)
    yield from _explain_loads(result.rows)
    yield from _explain_places(result.rows)
    if share := _find_busy_share(result.rows):
        yield f"images and frames ran for {share:.0%} of the time between the first turn and the last"
    yield from _explain_energy(result.rows)
    yield from dict.fromkeys(
        f"top-1 of {row.file}: {row.answers}" for row in result.rows if isinstance(row.answers, str) and not row.error
    )
    yield from _explain_minutes(result.rows)
    yield from explain_policies(result.rows)
    for row in result.rows:
        tried = (row.build or {}).get("tried")
        if tried:
            yield f"{row.name()}: auto chose {tried['chosen']}; its load times include the trials"


def explain_policies(rows: Sequence[Row]) -> Iterator[str]:
    """Explain which policy wins for each file, and by how much."""
    by_file: dict[tuple[str, float | None], list[Row]] = defaultdict(list)
    for row in rows:
        by_file[row.file, row.keep].append(row)
    for (file, keep), all_rows in by_file.items():
        rivals = [row for row in all_rows if row.verdicts == (VALID,)]
        name = file if keep is None else f"{file} keep {keep:g}"
        if len(all_rows) > 1 and len(rivals) < 2:
            yield f"{name}: which policy wins cannot be said: {len(rivals)} of {len(all_rows)} rows are valid"
        if len(rivals) < 2:
            continue
        best, *others = sorted(rivals, key=lambda row: row.latency_ms.p50 if row.latency_ms else 0)
        ratios = [(other, bound_ratio(best.turns, other.turns)) for other in others]
        alike = [best.policy, *(other.policy for other, ratio in ratios if not ratio.differs)]
        slower = [
            f"{other.policy} takes {ratio.value:.2f} times as long ({ratio.interval[0]:.2f}–{ratio.interval[1]:.2f})"
            for other, ratio in ratios
            if ratio.differs
        ]
        first = f"fastest on {best.policy}" if len(alike) == 1 else f"no difference found between {', '.join(alike)}"
        yield f"{name}: " + "; ".join([first, *slower]) + ("; in brackets 95 % confidence" if slower else "")


def is_cold(load: Load) -> bool:
    """Tell whether a cold load was one.

    Whether the file had left the system's cache.
    """
    return load.cached_share is not None and load.cached_share <= MOST_CACHED


def summarize(pair: Compared) -> dict[str, Any]:
    """Summarize a pair of rows for JSON."""
    return {
        "row": pair.after.name(),
        "before_ms": pair.before.latency_ms and pair.before.latency_ms.p50,
        "after_ms": pair.after.latency_ms and pair.after.latency_ms.p50,
        "before_frame_ms": take_frame_ms(pair.before),
        "after_frame_ms": take_frame_ms(pair.after),
        "ratio": pair.ratio.value,
        "interval": pair.ratio.interval,
        "differs": pair.differs,
        "obstacles": pair.obstacles,
    }


@contextmanager
def watching() -> Iterator[Progress]:
    """Show on stderr how a bench goes.

    With a bar where that is a terminal.
    """
    console = Console(stderr=True)
    with Bar(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("  rounds", total=1)
        yield Progress(print_step, lambda done, of, share: bar.update(task, completed=min(share, 1)))


def print_compared(compared: Sequence[Compared], alone: Sequence[str]) -> None:
    """Print a comparison of two results."""
    print_rows(
        ("file", "before", "after", "after / before", "95 % interval", "says", "frame to label"),
        (
            (
                pair.after.name(), _spell_ms(pair.before), _spell_ms(pair.after), f"{pair.ratio.value:.3f}",
                f"{pair.ratio.interval[0]:.3f}–{pair.ratio.interval[1]:.3f}", spell_finding(pair),
                f"{spell_frame(pair.before)}, {spell_frame(pair.after)}",
            )
            for pair in compared
        ),
    )  # fmt: skip
    for pair in compared:
        for obstacle in pair.obstacles:
            print(spell_line(f"{pair.after.name()}: not comparable: {obstacle}"))
    for lack in _list_lacks([row for pair in compared for row in (pair.before, pair.after)]):
        print(spell_line(lack))
    for row in alone:
        print(spell_line(f"in one file only: {row}"))


def spell_finding(pair: Compared) -> str:
    """Spell what a comparison found."""
    if pair.obstacles:
        return "not comparable"
    if not pair.ratio.differs:
        return "no difference found"
    if not pair.differs:
        return f"within the {BENCHES_DIFFER:.0%} of two benches"
    return f"{abs(1 - pair.ratio.value):.1%} {'faster' if pair.ratio.value < 1 else 'slower'}"


def _list_cells(row: Row) -> tuple[str, ...]:
    keep = "–" if row.keep is None else f"{row.keep:g}"
    head = (row.file, keep, row.policy, str(row.threads))
    size = f"{row.bytes / 1e6:.2f} MB"
    share = "–" if row.delegated_share is None else f"{row.delegated_share:.1%}"
    if row.latency_ms is None:
        return (*head, *["–"] * 8, size, share, "–", "–", FAILED)
    times, load, memory = row.latency_ms, row.load, row.memory
    return (
        *head, f"{times.p50:.2f} ms", f"{times.p90:.2f} ms", f"{times.p99:.2f} ms", spell_frame(row),
        "–" if row.cpu_ms is None else f"{row.cpu_ms:.2f} ms",
        *(
            (f"{load.cold_ms:.1f} + {load.cold_first_ms:.1f} ms" if is_cold(load) else "not cold",
             f"{load.warm_ms:.1f} + {load.first_ms:.1f} ms")
            if load else ("–", "–")
        ),
        f"{memory.peak_bytes / 1e6:.1f} MB" if memory else "–", size, share,
        f"{row.answers.top1:.1%}" if isinstance(row.answers, Answers) else "–",
        f"{row.energy.image_mj:.1f} mJ" if isinstance(row.energy, Energy) else "not available",
        ", ".join(row.verdicts),
    )  # fmt: skip


def spell_frame(row: Row) -> str:
    """Spell the median from a frame to its label."""
    median_ms = take_frame_ms(row)
    return "–" if median_ms is None else f"{median_ms:.2f} ms"


def _explain_frames(rows: Sequence[Row]) -> Iterator[str]:
    """What a frame is, who prepares it and what that takes beside the model alone; why nobody does."""
    frames = [(row, row.frame) for row in rows if isinstance(row.frame, Frames)]
    if frames:
        yield f"frame to label: a frame in memory, {frames[0][1].frame}, prepared, run, the largest logit found; after"
        yield "  some of the turns of the model alone, with whose median it is compared"
    for row, told in frames:
        if told.label_ms and told.prepare_ms:
            p50, p90 = (f"{told.prepare_ms.p50:.2f}", f"{told.label_ms.p90:.2f}")
            yield (
                f"{row.name()}: frame to label {told.label_ms.p50:.2f} ms (p90 {p90}), of it {p50} ms preparing by "
                f"{told.prepared_by}; {told.ratio:.2f} times the model alone, {told.label_ms.images} frames"
            )
    yield from _list_lacks(rows)


def _list_lacks(rows: Sequence[Row]) -> list[str]:
    """List why frames were not timed, once for each file."""
    return list(
        dict.fromkeys(f"frame to label of {row.file}: {row.frame}" for row in rows if isinstance(row.frame, str))
    )


def _explain_loads(rows: Sequence[Row]) -> Iterator[str]:
    """Whose cold load is none, and why."""
    for row in rows:
        if row.load and not is_cold(row.load):
            share = row.load.cached_share
            kept = "nobody tells whether it" if share is None else f"{share:.0%} of it"
            yield f"{row.name()}: not a cold load: {kept} was still in the system's cache"


def _find_busy_share(rows: Sequence[Row]) -> float | None:
    """The share of the time in which an image ran or a frame was labelled, of a bench in one go."""
    turns = [turn for row in rows for turn in row.turns]
    if not turns or len({turn.part for turn in turns}) > 1:
        return None
    whole = max(turn.end_ns for turn in turns) - min(turn.start_ns for turn in turns)
    frames_ms = sum(sum(row.frame.label_times_ms) for row in rows if isinstance(row.frame, Frames))
    return (sum(sum(turn.times_ms) for turn in turns) + frames_ms) * 1e6 / whole if whole else None


def _explain_places(rows: Sequence[Row]) -> Iterator[str]:
    """On which cores the rows of each policy ran: those with a hundredth of the CPU time or more."""
    spent: dict[tuple[str, int, tuple[int, ...] | None], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for row in rows:
        for turn in row.turns:
            for core, ms in turn.thread_ms.items():
                spent[row.policy, row.threads, row.cores_asked][core] += ms
    for (policy, threads, cores), by_core in spent.items():
        total = sum(by_core.values())
        used = sorted((int(core), ms / total) for core, ms in by_core.items() if ms > 0.01 * total)
        asked = "any" if cores is None else ", ".join(map(str, cores))
        ran = ", ".join(f"{core} ({share:.0%} of the CPU time)" for core, share in used)
        yield f"{policy}, {threads} thread{'s' if threads > 1 else ''}: cores asked for {asked}; ran on {ran}"


def _explain_energy(rows: Sequence[Row]) -> Iterator[str]:
    sources = dict.fromkeys(row.energy if isinstance(row.energy, str) else row.energy.source for row in rows)
    yield from (f"energy: {source}" for source in sources)


def _explain_minutes(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        if row.first_minute_ms and row.last_minute_ms:
            ratio = row.last_minute_ms / row.first_minute_ms
            minutes = f"first minute {row.first_minute_ms:.2f} ms, last {row.last_minute_ms:.2f} ms"
            held = f"; at a fallen clock for {row.throttled_share:.0%} of the time" if row.throttled_share else ""
            yield f"{row.name()}: {minutes}, {ratio:.2f} times{held}"


def _list_warmup(rows: Sequence[Row]) -> str:
    counts = [row.warmup_images for row in rows if row.warmup_images]
    return f"{min(counts)} to {max(counts)} images each" if counts else "no image"


def _spell_ms(row: Row) -> str:
    return f"{row.latency_ms.p50:.2f} ms" if row.latency_ms else "–"
