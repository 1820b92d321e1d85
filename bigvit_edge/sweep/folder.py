"""A sweep's folder: what is done lies in it, and that alone says that it is done."""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from bigvit_edge.errors import UserError, list_few
from bigvit_edge.folders import resolve_folder
from bigvit_edge.manifest import find_fault, read_manifest
from bigvit_edge.results import read_result
from bigvit_edge.sweep.jobs import Export, Job

LOCK, WORKERS = "sweep.lock", "workers.lock"
EXPORTS, RESULTS, FAILURES = "exports", "results", "failures"
ORPHANS_S = 60  # for what a killed sweep has left running: it notices by itself


class Folder:
    """Where a sweep's jobs leave what they make.

    Bundles in exports/, results in results/, and in failures/ why a job failed, each named after its job.
    """

    def __init__(self, path: Path) -> None:
        """UserError if the folder cannot be written, or holds other things than a sweep's."""
        self.path = resolve_folder(path)
        found = sorted(item.name for item in self.path.iterdir()) if self.path.exists() else []
        if found and LOCK not in found:
            raise UserError(f"{path} holds {list_few(found)}", "a new folder, or a sweep's", "choose another -o")

    def find_bundle(self, job: Job) -> Path:
        """Find where the job's bundle lies or is to lie."""
        export = job if isinstance(job, Export) else job.export
        return self.path / EXPORTS / export.name

    def find_result(self, job: Job) -> Path:
        """Find where the job's result lies or is to lie."""
        return self.path / RESULTS / f"{job.name}.json"

    def is_done(self, job: Job) -> bool:
        """Tell whether what the job makes is there whole."""
        try:
            if isinstance(job, Export):
                bundle = self.find_bundle(job)
                return not any(find_fault(bundle, entry) for entry in read_manifest(bundle).artifacts)
            return read_result(self.find_result(job)).complete
        except UserError:
            return False

    def read_failure(self, job: Job) -> str:
        """Read why the job failed, '' if it has not."""
        try:
            return str(json.loads(self._find_failure(job).read_bytes())["reason"])
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return ""

    def write_failure(self, job: Job, reason: str) -> None:
        """Write why the job failed, whole or not at all."""
        told = {"job": job.shown, "reason": reason, "date": datetime.now(UTC).isoformat(timespec="seconds")}
        self.write(self._find_failure(job), json.dumps(told, indent=1) + "\n")

    def forget_failure(self, job: Job) -> None:
        """Forget that the job failed."""
        self._find_failure(job).unlink(missing_ok=True)

    def write(self, path: Path, text: str) -> None:
        """Write a text file whole, or leave what is there."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        try:
            part.write_text(text, encoding="utf-8")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other sweeps out of the folder while the block runs.

        It is made if it is not there. What a killed sweep has left running is waited for. UserError, naming the other,
        if there is one.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / LOCK).open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as e:
                file.seek(0)
                who = file.read(100).strip() or "another process"
                raise UserError(f"{self.path} is being swept by {who}", "one sweep at a time", "wait for it") from e
            file.truncate(0)
            file.write(f"process {os.getpid()}\n")
            file.flush()
            self._wait_for_orphans()
            yield

    def _wait_for_orphans(self) -> None:
        with (self.path / WORKERS).open("a") as file:
            deadline = time.monotonic() + ORPHANS_S
            while True:
                with suppress(OSError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return
                if time.monotonic() > deadline:
                    met = f"a job of an earlier sweep still runs in {self.path} (it holds {WORKERS})"
                    raise UserError(met, "none", "end it, or wait")
                time.sleep(0.1)

    def _find_failure(self, job: Job) -> Path:
        return self.path / FAILURES / f"{job.name}.json"
