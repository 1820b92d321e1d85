"""Where an op is written anew in a captured graph."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node

from bigvit_edge.export.graph import add_constant, insert, read_constants

Call = Callable[..., Any]
Writer = Callable[..., Any]  # (call, *args, **kwargs of the op) -> its value, a tuple of its values, or NotImplemented


@dataclass
class Place:
    """The place in front of a node of a program."""

    program: ExportedProgram
    node: Node

    def __call__(self, op: Any, *args: Any, **kwargs: Any) -> Node:
        return insert(self.node, op, *args, **kwargs)

    def read(self, value: Any) -> Tensor | None:
        """Read a constant's data, None of what is computed."""
        return read_constants(self.program).get(value)

    def store(self, data: Tensor) -> Node:
        """Store a new constant."""
        return add_constant(self.program, f"equivalent.{self.node.name}", data)


def value_of(x: Any) -> Tensor:
    value: Tensor = x.meta["val"] if isinstance(x, Node) else x
    return value
