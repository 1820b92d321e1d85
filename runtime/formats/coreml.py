"""A Core ML package (.mlpackage). Core ML runs on Apple's systems alone, so the saved package is evaluated."""

from pathlib import Path

from bigvit_edge.artifact import Runner
from bigvit_edge.runtime import mil


def load(path: Path, threads: int = 1, method: str | None = None) -> Runner:
    """Open the package in bigvit_edge.runtime.mil.

    The evaluator rounds to fp16 wherever the package says fp16: the answers show what a Neural Engine or GPU would
    lose. UserError if it is no package, or has no such method.
    """
    return mil.load_package(path, method, half=None, threads=threads)
