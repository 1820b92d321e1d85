"""A process that does jobs: `python -m bigvit_edge.sweep.worker FOLDER`, a line of JSON for each, and one back.

It ends with its stdin, in the middle of a job too, so that nothing outlives a sweep that was killed.
"""

import fcntl
import json
import os
import queue
import signal
import sys
import threading
import time
from pathlib import Path

from pydantic import TypeAdapter

from bigvit_edge.interruption import Interrupted, catching
from bigvit_edge.sweep.folder import WORKERS, Folder
from bigvit_edge.sweep.jobs import Job
from bigvit_edge.sweep.tasks import perform

GRACE_S = 30  # to clean up in, on a device too


def serve(folder: Folder) -> None:
    """Do the jobs of stdin until it ends."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what others print is no answer
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    jobs: TypeAdapter[Job] = TypeAdapter(Job)
    with (folder.path / WORKERS).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        while line := lines.get():
            job = jobs.validate_json(line)
            reason = perform(job, folder.find_bundle(job), folder.find_result(job))
            print(json.dumps(reason), file=out, flush=True)


def _read(lines: "queue.Queue[str]") -> None:
    for line in sys.stdin:
        lines.put(line)
    lines.put("")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os._exit(1)  # a signal is heard between steps of Python's alone


def main() -> None:
    """Run as a program."""
    try:
        with catching():
            serve(Folder(Path(sys.argv[1])))
    except Interrupted as e:
        os._exit(128 + e.number)


if __name__ == "__main__":
    main()
