"""A .bve, run by our own runtime."""

from pathlib import Path

from bigvit_edge.artifact import Runner
from bigvit_edge.runtime import Session


def load(path: Path, threads: int = 1, method: str | None = None) -> Runner:
    """Open a session for the entry of that name, or the first.

    It takes [1, 3, S, S] and gives [1, num_classes]. UserError if the file is not one, or has no such entry.
    """
    session = Session(path, threads, entry=method)
    return Runner(session.run, session.shape, (1, session.classes), session.program["metadata"])
