"""What `bigvit-edge bench` does: its words as a plan, and where its result goes."""

import itertools
import os
import re
import shlex
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from bigvit_edge.bench.answers import Pictures, find_labelled
from bigvit_edge.bench.cases import Case, list_cases
from bigvit_edge.bench.measurement import Plan, Progress, make_key, measure
from bigvit_edge.devices import open_device
from bigvit_edge.devices.binaries import install_bve_run
from bigvit_edge.devices.null import Null
from bigvit_edge.devices.store import Store
from bigvit_edge.errors import UserError
from bigvit_edge.results import Protocol, Result, check_writable, read_result, spell_path

RESULTS = Path("results")
HELD_OUT = Pictures("the demo's held-out images")
TURN_S, TURN_IMAGES, ROUNDS = 0.1, 3, 30
LONG_TURN_S = 1.0  # of a sustained or paced bench, so that little of it is between turns
LEAST_MINUTES, MOST_MINUTES, LEAST_FPS, MOST_FPS = 0.001, 240, 0.01, 1000
LONGEST = 100  # letters of a file's name, without its date


def run_bench(
    files: Sequence[Path], device: str, plan: Plan, output: Path | None = None, resume: bool = False,
    keep: float | None = None, progress: Progress | None = None,
) -> tuple[Result, Path]:  # fmt: skip
    """Measure files on a device; return the result and where it lies.

    output: a file that is not there yet, else a new one in RESULTS. resume: go on with the newest part of the same
    bench in that folder. UserError on what cannot work, before anything is brought to the device.
    """
    progress = progress or Progress()
    cases = list_cases(list(files), keep)
    key = make_key(cases, device, plan)
    earlier, path = _find_earlier(key, output) if resume else (None, choose_path(cases, device, output))
    check_writable(path)
    opened = open_device(device)

    def install(store: Store) -> str:
        return "bve-run" if opened.launch == Null.launch else install_bve_run(opened, store, progress.step)

    try:
        result = measure(cases, opened, install, plan, path, earlier=earlier, progress=progress)
    finally:
        opened.close()
    return result, path


def make_plan(
    *, rounds: int | None = None, minutes: float = 0, fps: float = 0, cool_c: float | None = None,
    images: Path | None = None, clusters: Sequence[str] = (), threads: int | None = None, energy: bool = True,
    keep_files: bool = False,
) -> Plan:  # fmt: skip
    """Make a plan of what a command line says.

    UserError on numbers that mean nothing.
    """
    for what, value, low, most in (
        ("--rounds", rounds, 1, 100_000), ("--minutes", minutes or None, LEAST_MINUTES, MOST_MINUTES),
        ("--fps", fps or None, LEAST_FPS, MOST_FPS), ("--cool", cool_c, -40, 150), ("--threads", threads, 1, 1024),
    ):  # fmt: skip
        if value is not None and not low <= value <= most:
            raise UserError(f"{what} {value:g}", f"{low:g} to {most:g}", "check the number")
    if rounds is not None and minutes:
        raise UserError("--rounds and --minutes", "one of them", "leave one out")
    pictures, notes = (HELD_OUT, []) if images is None else find_labelled(images)
    protocol = Protocol(
        LONG_TURN_S if minutes or fps else TURN_S,
        TURN_IMAGES,
        0 if minutes else rounds or ROUNDS,
        minutes,
        fps,
        cool_c,
        pictures.name,
    )
    command = tuple(shlex.quote(spell_path(word)) for word in ("bigvit-edge", *sys.argv[1:]))
    return Plan(protocol, tuple(clusters), threads, pictures, energy, keep_files, command, tuple(notes))


def choose_path(cases: Sequence[Case], device: str, output: Path | None) -> Path:
    """Choose where a bench's result goes.

    To output, which must not be there yet; else to a new file in RESULTS, named by model, device and time.
    """
    if output is not None:
        if os.path.lexists(output):
            raise UserError(f"{output} is there already", "a new file", "choose another -o, or move it away")
        return output
    model = cases[0].model or cases[0].path.stem
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", f"{model}_{device}".replace("_", "-"))
    stem = f"{name[:LONGEST]}-{datetime.now():%Y%m%d-%H%M%S}"
    paths = (RESULTS / f"{stem}{f'-{n}' if n else ''}.json" for n in itertools.count())
    return next(path for path in paths if not os.path.lexists(path))


def _find_earlier(key: str, output: Path | None) -> tuple[Result, Path]:
    paths = [output] if output else sorted(RESULTS.glob("*.json"), key=lambda path: path.lstat().st_mtime, reverse=True)
    for path in paths:
        try:
            result = read_result(path)
        except UserError as e:
            if output:
                raise UserError(e.met, e.expected, "move it away, and leave --resume out") from e
            continue
        if result.key == key and not result.complete:
            return result, path
    where = f"in {RESULTS}/" if output is None else f"in {output}"
    raise UserError(f"--resume, and no part of this bench {where}", "one of the same command", "leave --resume out")
