"""A .bve, run by our own runtime."""

from pathlib import Path

from bigvit_edge.artifact import Runner
from bigvit_edge.runtime import Session
from bigvit_edge.signature import Signature, Tensor


def load(path: Path, threads: int = 1, method: str | None = None) -> Runner:
    """Open a session for the entry of that name, or the first.

    It takes and gives what its ports say. UserError if the file is not one, or has no such entry.
    """
    session = Session(path, threads, entry=method)
    inputs, outputs = (
        tuple(Tensor(name, shape) for name, shape in ports.items()) for ports in (session.inputs, session.outputs)
    )
    return Runner(session.run, Signature(inputs, outputs), session.program["metadata"])
