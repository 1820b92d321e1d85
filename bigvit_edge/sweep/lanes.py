"""Jobs on this machine: a process for the exports and one for each device, and which may run at the same time."""

import json
import queue
import re
import sys
import threading
from collections.abc import Collection
from dataclasses import asdict
from typing import Protocol

from bigvit_edge.devices import open_device
from bigvit_edge.devices.contract import DeviceError
from bigvit_edge.devices.process import Process
from bigvit_edge.sweep.folder import Folder
from bigvit_edge.sweep.jobs import Export, Job

EXPORTS, HERE = "exports", "here"
LOOPBACK = re.compile(r"ssh:(?:[^@]*@)?(?:localhost|127\.[0-9.]+|\[::1\])(?::[0-9]+)?")
LONGEST_S = 30 * 24 * 3600.0  # of a job
GRACE_S = 40.0  # for a job that is told to end


class Executor(Protocol):
    """Those who do a sweep's jobs.

    What a job makes is in the folder before it has ended.
    """

    def may_start(self, job: Job, running: Collection[Job], pending: Collection[Job]) -> bool:
        """Tell whether the job may start beside those that run.

        pending: it and all others that have not begun.
        """

    def start(self, job: Job) -> None:
        """Begin a job."""

    def wait(self, timeout_s: float) -> tuple[Job, str] | None:
        """Wait for a job to end: which, and why it failed.

        '' if it did not; None if no job has ended until then.
        """

    def close(self) -> None:
        """End whatever runs."""


def name_lane(job: Job) -> str:
    """Name what a job has for itself.

    That is its device, or what makes exports.
    """
    if isinstance(job, Export):
        return EXPORTS
    return HERE if is_here(job.device) else job.device


def is_here(device: str) -> bool:
    """Tell whether a device is this machine, whichever way leads to it."""
    return device == "local" or LOOPBACK.fullmatch(device) is not None


class Lanes:
    """Jobs in processes of this machine.

    One at a time in each lane. Exports first, and never beside a bench of this machine, whose figures they would spoil.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder, self._workers = folder, dict[str, Process]()
        self._ended: queue.Queue[tuple[Job, str]] = queue.Queue()

    def may_start(self, job: Job, running: Collection[Job], pending: Collection[Job]) -> bool:
        """Tell whether the job's lane is free, and nothing would disturb it."""
        lanes, lane = {name_lane(other) for other in running}, name_lane(job)
        if lane == HERE and any(isinstance(other, Export) for other in pending):
            return False
        return lane not in lanes and not {HERE, EXPORTS} <= {lane, *lanes}

    def start(self, job: Job) -> None:
        """Begin a job in its lane's process."""
        lane = name_lane(job)
        if lane not in self._workers:
            words = (sys.executable, "-m", "bigvit_edge.sweep.worker", str(self._folder.path))
            self._workers[lane] = Process(open_device("local"), words)
        threading.Thread(target=self._do, args=(job, lane), daemon=True).start()

    def wait(self, timeout_s: float) -> tuple[Job, str] | None:
        """Wait for a job to end."""
        try:
            return self._ended.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def close(self) -> None:
        """End all processes, after they have cleaned up."""
        closing = [threading.Thread(target=worker.close, args=(GRACE_S,)) for worker in self._workers.values()]
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join()

    def _do(self, job: Job, lane: str) -> None:
        worker = self._workers[lane]
        try:
            reason = str(json.loads(worker.ask(json.dumps(asdict(job)), LONGEST_S)))
        except DeviceError as e:
            self._workers.pop(lane, None)  # the next job gets another
            worker.close(1)
            reason = f"its process ended: {e.met}"
        self._ended.put((job, reason))
