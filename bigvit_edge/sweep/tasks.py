"""What a job does, wherever it runs: a bundle made, or a bundle measured."""

import shlex
import sys
import time
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

from bigvit_edge.devices.contract import BusyError
from bigvit_edge.errors import LimitError, UserError, describe_error
from bigvit_edge.exits import explain_system, write_log
from bigvit_edge.results import read_result
from bigvit_edge.sweep.folder import EXPORTS
from bigvit_edge.sweep.jobs import Bench, Export, Job

BUSY_S, BUSY_STEP_S = 3600.0, 30.0  # how long a device that another bench holds is waited for

Places = Mapping[str, str]  # of files that the sweep's own file names, where they lie elsewhere on this machine


def perform(job: Job, bundle: Path, result: Path, places: Places | None = None) -> str:
    """Do a job; return why it failed, or ''.

    bundle: where an export goes, or what a bench measures; result: where that goes. places: see Places.
    """
    try:
        with redirect_stdout(sys.stderr):
            if isinstance(job, Export):
                make_bundle(job, bundle, places or {})
            else:
                measure_bundle(job, bundle, result, places or {})
    except LimitError as e:
        return f"past the target's limits: {e}"
    except UserError as e:
        return str(e)
    except Exception as e:
        if said := explain_system(e):
            return str(said)
        return f"{describe_error(e)}; this is a fault of bigvit-edge; details: {write_log(e)}"
    return ""


def make_bundle(job: Export, folder: Path, places: Places) -> None:
    """Export a bundle as `bigvit-edge export` does."""
    from bigvit_edge.export.bundle import Source, export_bundle
    from bigvit_edge.manifest import write_manifest
    from bigvit_edge.target import load_target, override

    def find(path: str | None) -> str | None:
        return places.get(path, path) if path else path

    def find_folder(path: str | None) -> Path | None:
        return Path(places.get(path, path)) if path else None

    model = job.model
    source = Source(
        places.get(model.model, model.model), find(model.weights), model.image_size, model.num_classes,
        find_folder(model.calibration), model.weights_key, model.heads, find_folder(job.images),
    )  # fmt: skip
    target = override(load_target(job.target), job.settings)
    manifest, _ = export_bundle(source, target, folder, keeps=job.keeps)
    if source.model != model.model:
        write_manifest(replace(manifest, model=model.model), folder)


def measure_bundle(job: Bench, bundle: Path, path: Path, places: Places) -> None:
    """Measure a bundle as `bigvit-edge bench` does.

    It goes on with what there is of it. A device that another bench holds is waited for.
    """
    from bigvit_edge.bench.command import make_plan, run_bench

    images = None if job.images is None else Path(places.get(job.images, job.images))
    plan = make_plan(
        rounds=None if job.minutes else job.rounds, minutes=job.minutes, fps=job.fps, cool_c=job.cool,
        images=images, clusters=job.clusters,
        threads=job.threads,
    )  # fmt: skip
    plan = replace(plan, command=spell_bench(job))
    if job.images is not None and plan.pictures:  # as the sweep's file names it
        plan = replace(
            plan, pictures=replace(plan.pictures, name=job.images),
            protocol=replace(plan.protocol, pictures=job.images),
        )  # fmt: skip
    if has_part := path.exists():
        _check_part(path)
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            run_bench([bundle], job.device, plan, path, resume=has_part)
            return
        except BusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(BUSY_STEP_S)


def _check_part(path: Path) -> None:
    try:
        read_result(path)
    except UserError as e:
        raise UserError(e.met, "a part of this bench, or no file", "move it away, and add --retry") from e


def spell_bench(job: Bench) -> tuple[str, ...]:
    """Spell the command that measures the same, in the sweep's folder."""
    options = [("--device", job.device), *(("--clusters", word) for word in job.clusters)]
    options += [("--minutes", f"{job.minutes:g}") if job.minutes else ("--rounds", str(job.rounds))]
    for name, value in (("--threads", job.threads), ("--fps", job.fps or None), ("--cool", job.cool)):
        options += [] if value is None else [(name, f"{value:g}")]
    options += [] if job.images is None else [("--images", job.images)]
    words = ("bigvit-edge", "bench", f"{EXPORTS}/{job.export.name}", *(word for option in options for word in option))
    return tuple(map(shlex.quote, words))
