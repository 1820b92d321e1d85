"""The same graph in half precision: parameters, constants and arithmetic in float16, input and output as they were."""

from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node
from torch.fx.node import map_arg
from torch.utils._pytree import tree_map

from bigvit_edge.export.graph import copy_program, insert

aten = torch.ops.aten


def write_as_half(exported: ExportedProgram) -> ExportedProgram:
    """Copy a program in float16.

    ValueError if a parameter is beyond 65504: it would become infinite.
    """
    program = copy_program(exported)
    for tensors in (program.state_dict, program.constants):
        for name, data in tensors.items():
            if isinstance(data, Tensor) and data.dtype == torch.float32:
                tensors[name] = _halve(name, data)
    casts = _cast_images(program)
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if node.op == "call_function" and node not in casts:
            _retype(node)
        elif node.op == "placeholder" and node.name not in program.graph_signature.user_inputs:
            node.meta["val"] = value.half() if value.dtype == torch.float32 else value
    _cast_outputs(program)
    program.graph_module.recompile()
    return program


def _halve(name: str, data: Tensor) -> Tensor:
    half = data.detach().half()
    if not torch.isfinite(half).all() and torch.isfinite(data).all():
        largest = float(data.detach().abs().max())
        raise ValueError(f"{name} holds {largest:g}; expected at most 65504, the largest float16; export it in fp32")
    return torch.nn.Parameter(half, requires_grad=False) if isinstance(data, torch.nn.Parameter) else half


def _cast_images(program: ExportedProgram) -> set[Node]:
    """The images in half for all who read them."""
    given = [n for n in program.graph.find_nodes(op="placeholder") if n.name in program.graph_signature.user_inputs]
    images = [image for image in given if image.meta["val"].dtype == torch.float32]  # pixels are cast behind them
    first = next(node for node in program.graph.nodes if node.op == "call_function")
    casts = {image: insert(first, aten._to_copy.default, image, dtype=torch.float16) for image in images}
    for image, cast in casts.items():
        image.replace_all_uses_with(cast, delete_user_cb=lambda user: user not in casts.values())
    return set(casts.values())


def _retype(node: Node) -> None:
    """The op again, in half where it said float32, and its value's new type."""
    node.args, node.kwargs = tree_map(_retype_word, (tuple(node.args), dict(node.kwargs)))
    args, kwargs = map_arg((node.args, node.kwargs), lambda n: n.meta["val"])
    node.meta["val"] = node.target(*args, **kwargs)  # type: ignore[operator]


def _retype_word(word: Any) -> Any:
    return torch.float16 if word is torch.float32 else word


def _cast_outputs(program: ExportedProgram) -> None:
    output = program.graph.output_node()
    casts = []
    for result in output.args[0]:
        casts.append(insert(output, aten._to_copy.default, result, dtype=torch.float32))
        program.graph_signature.replace_all_uses(result.name, casts[-1].name)
    output.args = (tuple(casts),)
