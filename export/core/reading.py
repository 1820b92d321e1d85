"""A graph while it is read: the ops so far, and where the elements of each node lie."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from operator import getitem
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Node
from torch.utils._pytree import tree_leaves

from bigvit_edge.export.core.ir import Body, Kind, Op, Value, Views, count_rows, view_of
from bigvit_edge.export.core.places import Elsewhere, Places, invert, to_rows
from bigvit_edge.export.graph import Piece, layer_of, read_constants, shape_of

Reader = Callable[..., Any]  # of the reading, a node and its arguments


class Refusal(Exception):
    """Options of an op that no program has.

    Says which, and what it has.
    """


@dataclass(frozen=True)
class Leftover:
    """An op that a program cannot compute, and why.

    layer: of the model, that it is in.
    """

    node: Node
    layer: str
    reason: str

    def __str__(self) -> str:
        return f"{name_op(self.node)} in {self.layer or 'the model itself'}: {self.reason}"


def name_op(node: Node) -> str:
    """Name a node's op as aten.relu."""
    return str(node.target).removesuffix(".default")


class Reading:
    """A graph or piece as far as it is read.

    readers: by op. It has the body and the leftovers, and finds where the elements of each node lie. given: nodes whose
    values nothing here makes; left: those among them that are left over, or views of what is.
    """

    def __init__(self, program: ExportedProgram, readers: Mapping[Any, Reader], piece: Piece) -> None:
        self.readers = readers
        self.data = read_constants(program)
        signature = program.graph_signature
        self.names: dict[str, str] = {
            spec.arg.name: spec.target
            for spec in signature.input_specs
            if spec.kind != InputKind.USER_INPUT and spec.target is not None
        }
        self.places, self.found = Places(), dict[Node, Any]()
        self.leftovers: list[Leftover] = []
        self.body = Body([Value(*to_matrix(shape_of(node)), name=node.name) for node in piece.inputs])
        self.given, self.left = set(piece.inputs), set[Node]()
        for node, value in zip(piece.inputs, self.body.inputs, strict=True):
            self.found[node] = self.places.add(value).view(shape_of(node))

    def run(self, piece: Piece) -> None:
        """Read every node.

        What cannot be read leaves a value that nothing makes.
        """
        for node in piece.nodes:
            try:
                self.found[node] = self.read(node)
            except (Refusal, Elsewhere) as e:
                self.refuse(node, str(e))
                self.leave(node)
        for node in piece.outputs:
            try:
                self.body.outputs.append(self.find_rows(node))
            except Elsewhere as e:
                self.refuse(node, str(e))

    def refuse(self, node: Node, reason: str) -> None:
        """Note that a node is left over."""
        reason = reason or "it reads or gives what does not lie in rows"
        self.leftovers.append(Leftover(node, layer_of(node), reason))

    def read(self, node: Node) -> Any:
        for source in node.all_input_nodes:
            type_ = getattr(source.meta["val"], "dtype", torch.float32)
            if source not in self.data and type_ != torch.float32:
                raise Refusal(f"it reads {str(type_).removeprefix('torch.')}, where bve has rows of float32")
        if node.target is getitem:
            many, which = node.args
            if many in self.left:
                return self.leave(node)
            return self.found[many][which]  # type: ignore[index]
        reader = self.readers.get(node.target)
        if reader is None:
            raise Refusal("bve has no such op")
        return reader(self, node, *node.args, **node.kwargs)

    def leave(self, node: Node) -> Any:
        """Number what a leftover gives, as if it came from outside."""
        many = node.meta["val"]
        self.given.add(node)
        self.left.add(node)
        numbers = [self.places.add(Value(*to_matrix(t.shape))).view(t.shape) for t in tree_leaves(many)]
        self.found[node] = numbers if isinstance(many, tuple | list) else numbers[0]
        return self.found[node]

    def place(self, node: Node) -> Tensor:
        """Find where a node's elements lie."""
        if node not in self.found:
            data, (rows, columns) = self.data[node], to_matrix(self.data[node].shape)
            name = self.names.get(node.name, node.name)
            value = Value(rows, columns, data=data.reshape(rows, columns), name=name)
            self.found[node] = self.places.add(value).view(data.shape)
        return self.found[node]  # type: ignore[no-any-return]

    def find_rows(self, node: Node) -> Views:
        """Find the views of a node's rows, [..., columns]."""
        return self.places.find_views(to_rows(self.place(node)))

    def take(self, node: Any, what: str) -> Tensor:
        """Take the data of a constant."""
        if node not in self.data:
            raise Refusal(f"its {what} is computed, and bve wants it constant")
        return self.data[node]

    def name_layer(self, node: Node, weight: Any) -> str:
        """Name the module of a weight, or of the node."""
        return self.names.get(getattr(weight, "name", ""), layer_of(node) or node.name).removesuffix(".weight")

    def add(self, kind: Kind, node: Node, rows: int, columns: int, layer: str = "", **reads: Views) -> Tensor:
        """Add an op that makes a new value.

        Returns the numbers of that, [rows, columns].
        """
        value = Value(rows, columns)
        self.body.ops.append(Op(kind, reads, {"out": view_of(value)}, node, layer or layer_of(node)))
        return self.places.add(value)

    def add_alike(self, kind: Kind, node: Node, order: Tensor, src: Views, **reads: Views) -> Tensor:
        """Add an op that works on each element alone.

        Its rows are as they were arranged.
        """
        made = self.add(kind, node, count_rows(src), src[0].columns, layer_of(node), src=src, **reads)
        return invert(order, made, shape_of(node))


def to_matrix(shape: Sequence[int]) -> tuple[int, int]:
    """Count the rows and columns of a tensor [..., columns]."""
    return prod(shape[:-1]), shape[-1] if shape else 1
