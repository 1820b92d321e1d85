"""Regions of a captured graph that only set a mode: torch.autocast, torch.enable_grad.

torch.export keeps each as a graph of its own, which no other pass and no backend looks into.
"""

from collections.abc import Sequence
from operator import getitem
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from bigvit_edge.export.capture_errors import describe_node

autocast, grad = torch.ops.higher_order.wrap_with_autocast, torch.ops.higher_order.wrap_with_set_grad_enabled


def find_autocast(program: ExportedProgram) -> str | None:
    """Find the first region that computes in fewer bits on a CPU.

    Returns what to tell the user of it; None if none does.
    """
    for module in program.graph_module.modules():
        for region in module.graph.nodes if isinstance(module, GraphModule) else ():
            if region.target is autocast and region.args[0] == "cpu" and region.args[2]:
                body, _ = open_region(region)
                first = next((n for n in body.graph.nodes if n.op == "call_function"), None)
                if first is None:
                    continue
                dtype = str(region.args[1]).removeprefix("torch.")
                return f"torch.autocast computes in {dtype}, PyTorch's way on this CPU alone: {describe_node(first)}"
    return None


def inline_regions(program: ExportedProgram) -> None:
    """Put the ops of each region where it is called, in place.

    What the region sets changes none of them.
    """
    for name, by in inline_in(program.graph_module):
        program.graph_signature.replace_all_uses(name, by)


def inline_in(module: GraphModule) -> list[tuple[str, str]]:
    """Inline the regions of a graph and the graphs in it.

    Returns the nodes that are gone, and the names of those in their places.
    """
    renamed = []
    for region in list(module.graph.nodes):
        if region.target not in (autocast, grad):
            continue
        body, given = open_region(region)
        inline_in(body)
        inputs = dict(zip(body.graph.find_nodes(op="placeholder"), given, strict=True))
        with module.graph.inserting_before(region):
            values: Any = module.graph.graph_copy(body.graph, inputs)
        for user in list(region.users):
            assert user.target is getitem, user
            value = values[user.args[1]]
            user.replace_all_uses_with(value)
            module.graph.erase_node(user)
            renamed.append((user.name, value.name))
        module.graph.erase_node(region)
    for unread in reversed(module.graph.find_nodes(op="get_attr")):
        if not unread.users:
            module.graph.erase_node(unread)
    module.recompile()
    return renamed


def open_region(region: Node) -> tuple[GraphModule, Sequence[Node]]:
    """Find the graph of a region, and what it is given."""
    arguments: Any = region.args
    body, *given = arguments[4 if region.target is autocast else 1 :]
    return region.graph.owning_module.get_submodule(body.target), given  # type: ignore[union-attr, return-value]
