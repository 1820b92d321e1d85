"""Programs of models, as an export writes them."""

from collections.abc import Sequence

import numpy as np
from torch import nn

from bigvit_edge.export.convert import Subject, capture_cores, capture_graphs, rewrite
from bigvit_edge.export.core.lowering import lower_graphs
from bigvit_edge.export.graph import Graph
from bigvit_edge.export.program import Program, to_bytes
from bigvit_edge.target import load_target, override


def capture_ready(model: nn.Module, size: int, keeps: Sequence[float | None]) -> list[Graph]:
    """A model's graphs as an export for the bve runtime has them before it quantises."""
    subject = Subject(model, size, tuple(keeps), np.empty(0, np.float32), False, {})
    return [rewrite(graph) for graph in capture_graphs(subject, override(load_target("host"), ["formats=bve"]))]


def make_program(model: nn.Module, size: int, keeps: Sequence[float | None] = (None,), **metadata: str) -> Program:
    """A model's program in fp32, an entry for each keep ratio."""
    return lower_graphs(capture_cores(model, size, keeps), 4, metadata)


def make_bve(model: nn.Module, size: int, keeps: Sequence[float | None] = (None,), **metadata: str) -> bytes:
    """The same as the bytes of a .bve."""
    return to_bytes(make_program(model, size, keeps, **metadata))
