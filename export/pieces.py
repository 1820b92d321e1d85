"""The op that stands for a piece of a graph, bve::call, and the graph around the pieces.

A format writes it as its framework's call of the bve runtime.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from operator import getitem

import torch
from torch import Tensor, library
from torch.export import ExportedProgram
from torch.fx import Graph as FxGraph
from torch.fx import Node

from bigvit_edge.export.graph import (
    Piece,
    copy_program,
    insert,
    read_constants,
    remove_constant,
    replace_node,
    shape_of,
)

OPS = library.Library("bve", "FRAGMENT")  # type: ignore[no-untyped-call]
OPS.define("call(Tensor[] inputs, int piece, int[] ranks, int[] sides) -> Tensor[]")  # type: ignore[no-untyped-call]


@library.register_fake("bve::call")  # type: ignore[untyped-decorator]
def _call(inputs: Sequence[Tensor], piece: int, ranks: Sequence[int], sides: Sequence[int]) -> list[Tensor]:
    """Its shapes alone, one behind the other in `sides`: PyTorch does not run it."""
    return [inputs[0].new_empty(sides[first:end]) for first, end in pairwise([0, *accumulate(ranks)])]


CALL = torch.ops.bve.call.default


def write_calls(program: ExportedProgram, pieces: Sequence[Piece]) -> ExportedProgram:
    """Copy a graph with a call in the place of each piece.

    What only they read is dropped.
    """
    around = copy_program(program)
    of = {node.name: node for node in around.graph.nodes}
    for number, piece in enumerate(pieces):
        inputs, outputs = ([of[node.name] for node in nodes] for nodes in (piece.inputs, piece.outputs))
        shapes = [shape_of(node) for node in outputs]
        ranks, sides = [len(shape) for shape in shapes], [side for shape in shapes for side in shape]
        call = insert(outputs[0], CALL, inputs, number, ranks, sides)
        parts = [insert(output, getitem, call, place) for place, output in enumerate(outputs)]
        for node, output, part in zip(piece.outputs, outputs, parts, strict=True):
            replace_node(around, output, part)
            of[node.name] = part
        for node in (call, *parts):  # the piece's nodes say what layers it has
            node.meta.pop("nn_module_stack", None)
    sort_nodes(around.graph)
    around.graph.eliminate_dead_code()
    for node in read_constants(around):
        if not node.users:
            remove_constant(around, node)
    around.graph_module.recompile()
    return around


def sort_nodes(graph: FxGraph) -> None:
    """Put each node behind what it reads, and as it was otherwise."""
    placed, waiting = set[Node](), list(reversed(graph.nodes))
    last = graph._root
    while waiting:
        node = waiting[-1]
        missing = [source for source in node.all_input_nodes if source not in placed]
        waiting += missing
        if not missing:
            waiting.pop()
            if node not in placed:
                placed.add(node)
                last.append(node)
                last = node
