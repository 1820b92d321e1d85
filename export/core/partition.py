"""Which pieces of a graph the bve runtime is to run, by what can be read of it.

A piece is connected and convex: nothing outside it lies between two of its nodes, and no two pieces wait for one
another. LEAST says what is worth a call.
"""

from collections.abc import Set
from operator import getitem
from weakref import WeakKeyDictionary

import networkx
import torch
from torch.export import ExportedProgram
from torch.fx import Node

from bigvit_edge.export.core.lowering import read_body
from bigvit_edge.export.core.readers import MOVES, read_graph
from bigvit_edge.export.graph import Piece, count_node_macs, matrix_products, read_constants

BEFORE_PRODUCTS = (torch.ops.aten.layer_norm.default, torch.ops.aten.gelu.default)
LEAST = 0.01  # of a graph's multiply-accumulates: below that a call costs more than it saves

_found: WeakKeyDictionary[ExportedProgram, tuple[Piece, ...]] = WeakKeyDictionary()


def find_pieces(program: ExportedProgram) -> tuple[Piece, ...]:
    """Find the largest pieces of a graph that programs can hold.

    In the graph's order. What a piece turns out to have left over leaves it, until nothing does.
    """
    if program not in _found:
        refused = {leftover.node for leftover in read_graph(program)[1]}
        while True:
            pieces = cut_graph(program, refused)
            left = {leftover.node for piece in pieces for leftover in read_body(program, {}, piece=piece)[1]}
            if not left:
                break
            refused |= left | {node.all_input_nodes[0] for node in left if node.target is getitem}
        _found[program] = pieces
    return _found[program]


def cut_graph(program: ExportedProgram, refused: set[Node]) -> tuple[Piece, ...]:
    """Cut a graph, without some nodes, into pieces worth a call."""
    constants = read_constants(program).keys()
    groups = [end_in_products(group) for group in list_groups(program, constants, refused)]
    least = LEAST * sum(macs for _, macs in matrix_products(program))
    return tuple(make_piece(group, constants) for group in groups if sum(map(count_node_macs, group)) > least)


def list_groups(program: ExportedProgram, constants: Set[Node], refused: Set[Node]) -> list[list[Node]]:
    """List the connected nodes of one depth, in order.

    Depth: how often the way to a node has entered what can run. Nothing lies between two nodes of one depth but others
    of it.
    """
    depths = measure_depths(program, constants, refused)
    linked = networkx.Graph()
    linked.add_nodes_from(depths)
    linked.add_edges_from(
        (source, node) for node in depths for source in node.all_input_nodes if depths.get(source) == depths[node]
    )
    return [[node for node in depths if node in group] for group in networkx.connected_components(linked)]


def measure_depths(program: ExportedProgram, constants: Set[Node], refused: Set[Node]) -> dict[Node, int]:
    """Measure the depth of each node that can run, in order.

    What only moves elements, at the start, is none of them: others give them in another order.
    """
    depths: dict[Node, int] = {}
    inside: dict[Node, int] = {}
    for node in program.graph.nodes:
        sources = [source for source in node.all_input_nodes if source not in constants]
        can_run = node.op == "call_function" and node not in refused
        if node.target is getitem or node.target in MOVES:
            can_run &= any(source in inside for source in sources)
        depths[node] = max((depths[source] + (can_run and source not in inside) for source in sources), default=0)
        if can_run:
            inside[node] = depths[node]
    return inside


def end_in_products(nodes: list[Node]) -> list[Node]:
    """Take off the norms and gelus at the end.

    Each would cost a product.
    """
    kept: dict[Node, None] = {}
    for node in reversed(nodes):
        if node.target not in BEFORE_PRODUCTS or any(user in kept for user in node.users):
            kept[node] = None
    return list(reversed(kept))


def make_piece(nodes: list[Node], constants: Set[Node]) -> Piece:
    """Make a piece of nodes in order."""
    inside = set(nodes)
    sources = dict.fromkeys(source for node in nodes for source in node.all_input_nodes)
    inputs = [source for source in sources if source not in inside and source not in constants]
    outputs = [node for node in nodes if any(user not in inside for user in node.users)]
    return Piece(tuple(nodes), tuple(inputs), tuple(outputs))
