"""What `bigvit-edge sweep` does: jobs, one after the other or side by side, until none is left."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from bigvit_edge.extras import require
from bigvit_edge.interruption import check_interruption
from bigvit_edge.sweep.folder import Folder
from bigvit_edge.sweep.jobs import Bench, Export, Job, identify_model, list_jobs, list_notes
from bigvit_edge.sweep.lanes import Executor, Lanes
from bigvit_edge.sweep.page import write_page
from bigvit_edge.sweep.rows import Point, list_points, write_csv
from bigvit_edge.sweep.settings import Sweep, read_sweep

SWEEPS = Path("sweeps")
TICK_S = 0.5
CSV, PAGE = "sweep.csv", "sweep.html"


@dataclass(frozen=True)
class Progress:
    """Those who are told how a sweep goes.

    plan: how many jobs there are, and how many of them are done; start and end: a job, and why it failed or ''.
    """

    note: Callable[[str], None] = lambda text: None
    plan: Callable[[int, int], None] = lambda jobs, done: None
    start: Callable[[Job], None] = lambda job: None
    end: Callable[[Job, str], None] = lambda job, reason: None


@dataclass(frozen=True)
class Swept:
    """A sweep's outcome.

    Its table, jobs that failed with the reason of each, and where all of it lies.
    """

    points: list[Point]
    failures: list[tuple[Job, str]]
    folder: Path


def run_sweep(
    path: Path, output: Path | None = None, *, retry: bool = False, address: str | None = None,
    progress: Progress | None = None,
) -> Swept:  # fmt: skip
    """Do all jobs of a sweep's file that are not done yet.

    output: its folder, one in SWEEPS if not given. retry: try again what failed. address: of a Ray cluster
    that does the jobs. UserError on a file that cannot work, before anything is made.
    """
    progress = progress or Progress()
    sweep = read_sweep(path)
    require(*sweep.formats, *([] if sweep.images else ["demo"]))  # whose pictures are compared on instead
    folder = Folder(output or SWEEPS / path.stem)
    identities = [identify_model(model) for model in sweep.models]
    exports, benches = list_jobs(sweep, identities)
    for note in list_notes(sweep, identities):
        progress.note(note)
    with folder.lock(), closing(_open_executor(folder, address)) as executor:
        run = _Run(folder, sweep, exports, benches, progress)
        run.begin(retry)
        while run.pending or run.running:
            run.start_jobs(executor)
            if ended := executor.wait(TICK_S):
                run.settle(*ended)
            check_interruption()
        return run.finish()


def _open_executor(folder: Folder, address: str | None) -> Executor:
    if address is None:
        return Lanes(folder)
    from bigvit_edge.sweep.cluster import Cluster

    return Cluster(folder, address)


class _Run:
    """A sweep in progress."""

    def __init__(
        self, folder: Folder, sweep: Sweep, exports: Sequence[Export], benches: Sequence[Bench], progress: Progress
    ) -> None:
        self.folder, self.sweep, self.progress = folder, sweep, progress
        self.exports, self.benches = exports, benches
        self.pending: list[Job] = []
        self.running: list[Job] = []
        self.failures: list[tuple[Job, str]] = []
        self.done = set[str]()
        self.known = dict[str, list[Point]]()

    def begin(self, retry: bool) -> None:
        """Sort the jobs into done, failed and to be done."""
        jobs: list[Job] = [*self.exports, *self.benches]
        for job in jobs:
            if self.folder.is_done(job):
                self.done.add(job.name)
                continue
            if retry:
                self.folder.forget_failure(job)
            if reason := self.folder.read_failure(job):
                self.failures.append((job, reason))
            else:
                self.pending.append(job)
        self.progress.plan(len(jobs), len(jobs) - len(self.pending))
        self._drop_orphans()
        self.write()

    def start_jobs(self, executor: Executor) -> None:
        """Start every job that may start now."""
        for job in list(self.pending):
            ready = isinstance(job, Export) or job.export.name in self.done
            if ready and executor.may_start(job, self.running, self.pending):
                self.pending.remove(job)
                self.running.append(job)
                self.progress.start(job)
                executor.start(job)

    def settle(self, job: Job, reason: str) -> None:
        """Take down how a job ended."""
        self.running.remove(job)
        if not reason and not self.folder.is_done(job):
            reason = "it left nothing that can be read"
        if reason:
            self.folder.write_failure(job, reason)
            self.failures.append((job, reason))
        else:
            self.done.add(job.name)
        self.progress.end(job, reason)
        self._drop_orphans()
        self.write()

    def write(self) -> list[Point]:
        """Write the table and the page anew."""
        points = list_points(self.folder, self.benches, self.known)
        self.folder.write(self.folder.path / CSV, write_csv(points))
        self.folder.write(self.folder.path / PAGE, write_page(self.sweep, points, self.failures))
        return points

    def finish(self) -> Swept:
        """Tell the outcome."""
        return Swept(self.write(), self.failures, self.folder.path)

    def _drop_orphans(self) -> None:
        """Take benches whose export failed off the list: the table names that reason."""
        failed = {job.name for job, _ in self.failures}
        self.pending = [job for job in self.pending if isinstance(job, Export) or job.export.name not in failed]
