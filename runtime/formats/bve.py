"""A .bve, run by our own runtime."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from bigvit_edge.artifact import Runner
from bigvit_edge.runtime import Session
from bigvit_edge.signature import IMAGE, Array, Signature, Tensor
from bigvit_edge.tasks.classification import LOGITS


def load(path: Path, threads: int = 1, method: str | None = None) -> Runner:
    """Open a session for the entry of that name, or the first.

    It takes [1, 3, S, S] and gives [1, num_classes]. UserError if the file is not one, or has no such entry.
    """
    session = Session(path, threads, entry=method)

    def run(given: Mapping[str, NDArray[Any]]) -> dict[str, Array]:
        (image,) = given.values()
        return {LOGITS: session.run(image)}

    signature = Signature((Tensor(IMAGE, session.shape),), (Tensor(LOGITS, (1, session.classes)),))
    return Runner(run, signature, session.program["metadata"])
