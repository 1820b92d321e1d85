"""What `bigvit-edge bench` does: its words as a plan, and where its result goes."""

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
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
from bigvit_edge.results import Protocol, Result, read_result

RESULTS = Path("results")
TURN_S, TURN_IMAGES, ROUNDS = 0.1, 3, 30
MOST_MINUTES, MOST_FPS = 24 * 60, 1000


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
    earlier, path = _find_earlier(key, output) if resume else (None, _choose_path(cases, device, output))
    opened = open_device(device)

    def install(store: Store) -> str:
        return "bve-run" if opened.launch == Null.launch else install_bve_run(opened, store, progress.step)

    try:
        result = measure(cases, opened, install, plan, path, earlier=earlier, progress=progress)
    finally:
        opened.close()
    return result, path


def make_plan(
    *, rounds: int = ROUNDS, minutes: float = 0, fps: float = 0, cool_c: float | None = None,
    images: Path | None = None, clusters: Sequence[str] = (), threads: int | None = None, energy: bool = True,
    keep_files: bool = False,
) -> tuple[Plan, list[str]]:  # fmt: skip
    """Make a plan of what a command line says; and notes.

    UserError on numbers that mean nothing.
    """
    for what, value, low, most in (
        ("--rounds", rounds, 1, 100_000), ("--minutes", minutes, 0, MOST_MINUTES), ("--fps", fps, 0, MOST_FPS),
        ("--cool", cool_c or 0, -40, 150), ("--threads", threads or 1, 1, 1024),
    ):  # fmt: skip
        if not low <= value <= most:
            raise UserError(f"{what} {value:g}", f"{low} to {most:g}", "check the number")
    pictures, notes = (Pictures("the demo's held-out images"), []) if images is None else find_labelled(images)
    protocol = Protocol(TURN_S, TURN_IMAGES, 0 if minutes else rounds, minutes, fps, cool_c, pictures.name)
    command = tuple(map(shlex.quote, ("bigvit-edge", *sys.argv[1:])))
    return Plan(protocol, tuple(clusters), threads, pictures, energy, keep_files, command), notes


def _choose_path(cases: Sequence[Case], device: str, output: Path | None) -> Path:
    if output is not None:
        if output.exists():
            raise UserError(f"{output} is there already", "a new file", "choose another -o, or move it away")
        return output
    model = cases[0].model or cases[0].path.stem
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", f"{model}_{device}".replace("_", "-"))
    return RESULTS / f"{name}-{datetime.now():%Y%m%d-%H%M%S}.json"


def _find_earlier(key: str, output: Path | None) -> tuple[Result, Path]:
    paths = [output] if output else sorted(RESULTS.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in paths:
        try:
            result = read_result(path)
        except UserError:
            if output:
                raise
            continue
        if result.key == key and not result.complete:
            return replace(result, complete=False), path
    where = f"in {RESULTS}/" if output is None else f"in {output}"
    raise UserError(f"--resume, and no part of this bench {where}", "one of the same command", "leave --resume out")
