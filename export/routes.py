"""bve::dispatch written as the ops that it stands for, where no piece for the bve runtime has it."""

from operator import getitem
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from bigvit_edge.export.graph import insert, replace_node, shape_of
from bigvit_edge.models.dispatch import DISPATCH

aten = torch.ops.aten


def write_routes(program: ExportedProgram) -> None:
    """Write each router as a top-k and gathers.

    The tokens are in falling order of their scores, as of models.blvit.order_tokens.
    """
    for route in program.graph.find_nodes(op="call_function", target=DISPATCH):
        arguments: tuple[Any, ...] = route.args
        x, z, gain, offset, weight, bias, epsilon, k = arguments
        _, n, columns = shape_of(z)
        normed = insert(route, aten.layer_norm.default, z, [columns], gain, offset, epsilon)
        flat = insert(route, aten.flatten.using_ints, insert(route, aten.linear.default, normed, weight, bias), 1)
        scores = insert(route, aten.softmax.int, flat, -1)  # [B, N]
        first = insert(route, aten.add.Tensor, insert(route, aten.slice.Tensor, scores, 1, 0, 1), 2)
        ranks = insert(route, aten.cat.default, [first, insert(route, aten.slice.Tensor, scores, 1, 1, n)], 1)
        order = insert(route, getitem, insert(route, aten.topk.default, ranks, n, 1), 1)  # [B, N]
        row = insert(route, aten.select.int, order, 0, 0)
        sorted_x, sorted_z, ranked = (insert(route, aten.index_select.default, t, 1, row) for t in (x, z, scores))
        odds = insert(route, aten.mul.Tensor, insert(route, aten.slice.Tensor, ranked, 1, 0, k), n)
        share = insert(route, aten.div.Tensor, odds, insert(route, aten.add.Tensor, odds, 1))
        gate = insert(route, aten.unsqueeze.default, insert(route, aten.mul.Tensor, share, 2), -1)  # [B, k, 1]
        made: dict[Any, Node] = dict(enumerate((sorted_x, sorted_z, gate, order)))
        for part in list(route.users):
            replace_node(program, part, made[part.args[1]])
        program.graph.erase_node(route)
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()
