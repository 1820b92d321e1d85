"""Which node of the graph a tensor of a .tflite comes from.

The converter names a tensor after the modules of the ops that made it: '_layers/3/act;;_layers/3/conv;' of a
convolution and the activation it took in, the last first. It is told a node with each module, '_layers/3/act#relu_2;',
and what it wrote is parted again into the modules, as in any file, and the nodes.
"""

import re
from collections import Counter
from typing import Any

import torch
from torch.export import ExportedProgram

from bigvit_edge.console import silenced
from bigvit_edge.export.backends.litert.contents import read_model
from bigvit_edge.export.graph import layer_of

with silenced():
    from ai_edge_litert.tools import flatbuffer_utils

aten = torch.ops.aten

CONVOLUTIONS = {aten.conv2d.default, aten.conv_transpose2d.input, aten.convolution.default}
TAG = re.compile(r"(?:(?<![^;])_)?#(\w+)(?=;)")  # of the model itself, without a module, '_#relu;' for ';'
Nodes = dict[str, tuple[str, ...]]  # name of a tensor -> those of the nodes it comes from, the last first


def has_convolutions(exported: ExportedProgram) -> bool:
    """Tell whether a graph has convolutions."""
    return any(node.target in CONVOLUTIONS for node in exported.graph.nodes)


def tag_nodes(exported: ExportedProgram) -> None:
    """Say in each node's module what the node's name is.

    What is made of the node will say so too.
    """
    for node in exported.graph.nodes:
        node.meta["nn_module_stack"] = {"": (f"{layer_of(node)}#{node.name}", "")}


def untag_names(data: bytes) -> tuple[bytes, list[Nodes]]:
    """Take the nodes out of a file's names.

    They are returned for each subgraph. Names are numbered anew, as the converter does where several are equal.
    """
    model = read_model(data)
    nodes: list[Nodes] = [{} for _ in model.subgraphs]
    met: Counter[str] = Counter()  # how many tensors had a name, without the number that keeps them apart
    for known, graph in zip(nodes, model.subgraphs, strict=True):
        plain = {name for tensor in graph.tensors if not TAG.search(name := tensor.name.decode())}
        for tensor in graph.tensors:
            modules, semicolon, end = tensor.name.decode().rpartition(";")
            tagged, number = modules + semicolon, int(end) if end.isdigit() else 0
            if tags := TAG.findall(tagged):
                name, missed = TAG.sub("", tagged), number - met[tagged]
                count = met[name] + missed
                while name + (str(count) if count else "") in plain:  # what came from no node of ours
                    count += 1
                met[tagged], met[name] = number + 1, count + 1
                tensor.name = (name + (str(count) if count else "")).encode()
                known[tensor.name.decode()] = tuple(tags)
    if not any(nodes):
        return data, nodes
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model)), nodes


def complete_nodes(nodes: Nodes, exported: ExportedProgram, graph: Any) -> Nodes:
    """Add the ends of a subgraph to the tensors with nodes.

    They go by names of their own. The output comes from the graph's, back to the convolution or Linear that it may be
    one op with.
    """
    by_name, ends = {node.name: node for node in exported.graph.nodes}, exported.graph_signature
    behind = [node := by_name[str(ends.user_outputs[0])]]
    apart = CONVOLUTIONS | {aten.linear.default, aten.softmax.int}
    while node.target not in apart and node.op == "call_function":
        behind.append(node := node.all_input_nodes[0])
    image, logits = (graph.tensors[int(side[0])].name.decode() for side in (graph.inputs, graph.outputs))
    return nodes | {image: (str(ends.user_inputs[0]),), logits: tuple(node.name for node in behind)}
