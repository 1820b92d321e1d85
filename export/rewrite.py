"""Graph rewrites that help every backend: the same function, fewer ops."""

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from bigvit_edge.export.graph import copy_program

aten = torch.ops.aten
# a scalar factor passes through these unchanged
MOVES = {
    aten.view.default,
    aten.reshape.default,
    aten.transpose.int,
    aten.permute.default,
    aten.clone.default,
    aten._unsafe_view.default,
}


def fold_scales(exported: ExportedProgram) -> ExportedProgram:
    """Fold constant factors into the Linear they follow: 1/sqrt(d) into q, gamma into up and down. Three element-wise
    ops fewer a layer.

    Works on a copy; weights stay shared with the original except those that change.
    """
    program = copy_program(exported)
    for mul in list(program.graph.nodes):
        if mul.op == "call_function" and mul.target is aten.mul.Tensor:
            _fold(program, mul)
    program.graph_module.graph.eliminate_dead_code()
    program.graph_module.recompile()
    return program


def _fold(program: ExportedProgram, mul: Node) -> None:
    for value, factor in (mul.args, mul.args[::-1]):
        scale = _constant(program, factor)
        if scale is None or not isinstance(value, Node):
            continue
        linear = _find_linear(value, through_moves=scale.numel() == 1)
        if linear is None or scale.dim() > 1:
            continue
        for argument in linear.args[1:3]:
            if isinstance(argument, Node):
                key = program.graph_signature.inputs_to_parameters[argument.name]
                weight = program.state_dict[key].detach()
                scaled = weight * (scale.unsqueeze(1) if weight.dim() == 2 and scale.dim() else scale)
                program.state_dict[key] = torch.nn.Parameter(scaled, requires_grad=False)
        mul.replace_all_uses_with(value)
        program.graph.erase_node(mul)
        return


def _constant(program: ExportedProgram, factor: object) -> torch.Tensor | None:
    """A number or a parameter, as a tensor; None if it is computed."""
    if isinstance(factor, int | float):
        return torch.tensor(float(factor))
    if isinstance(factor, Node) and factor.name in program.graph_signature.inputs_to_parameters:
        parameter: torch.Tensor = program.state_dict[program.graph_signature.inputs_to_parameters[factor.name]]
        return parameter.detach()
    return None


def _find_linear(node: Node, through_moves: bool) -> Node | None:
    """The Linear that alone feeds this value, itself unused elsewhere and with weights of its own."""
    while len(node.users) == 1:
        if node.target is aten.linear.default:
            weights = [a for a in node.args[1:3] if isinstance(a, Node)]
            return node if all(w.op == "placeholder" and len(w.users) == 1 for w in weights) else None
        if not (through_moves and node.target in MOVES and isinstance(node.args[0], Node)):
            return None
        node = node.args[0]
    return None
