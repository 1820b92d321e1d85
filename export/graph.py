"""A captured model on its way to a file, and the tools to read and edit it."""

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import accumulate, chain, count
from math import prod
from operator import getitem
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, TensorArgument
from torch.fx import Node
from torch.fx.node import map_arg
from torch.utils._pytree import tree_leaves

from bigvit_edge.artifact import LOGITS, Array
from bigvit_edge.export.integers import NONE, Integers, Range

aten = torch.ops.aten

SLICE: tuple[Any, ...] = (0, None, None, 1)  # dimension, start, end, step if not given
PATCHES = "embedding.patches"  # the Linear of the patch embedding; no layer of any graph, for there it is a convolution


@dataclass(frozen=True)
class Ranges:
    """The spans of a Linear's input and output on calibration images."""

    input: Range
    output: Range

    def widen(self, other: "Ranges") -> "Ranges":
        """Join two ranges: what both span together."""
        pairs = (self.input, other.input), (self.output, other.output)
        return Ranges(*((min(a[0], b[0]), max(a[1], b[1])) for a, b in pairs))


@dataclass(frozen=True)
class Inlay:
    """A ViT or big.LITTLE ViT of this package inside another model.

    For our core to run. names: of its module, as in named_modules(), which can be several; exported: its own graph, as
    of Graph; around: the model's, with one op, bve::program, in its place; images: what it is given [n, 3, s, s] where
    the model is given its calibration.
    """

    names: tuple[str, ...]
    exported: ExportedProgram
    around: ExportedProgram
    images: Array


@dataclass(frozen=True)
class Graph:
    """A model's float ATen graph, and how its Linears are quantised.

    exported: float ATen graph, batch 1, static shapes, one input [1, 3, S, S] and one output [1, num_classes].
    precision: the word for it in manifests and file names. layers: name of each Linear module that is quantised -> how,
    one of LAYER_PRECISIONS but fp32; ranges: of those that are int8-static; integers: the ops that compute in
    int8 on calibrated ranges, convolutions and what is between them; group: inputs that share a scale in int4.
    keep: the share of tokens it was captured at, None for a model without; module: what it was captured from;
    calibration: images [n, 3, S, S] for those who choose integers by what Linears see; None where weights are random.
    inlay: what of the module our core can run, where that is not all of it, and was asked for; outline: for our core,
    that runs `exported` behind pixels, the program that takes those; output: what the program's answer is called.

    int8: weight per output channel, symmetric; input per row at run time, asymmetric. int8-static: weight the same;
    input and output per tensor, asymmetric, from the ranges. int4: weight symmetric in -8..7 per output channel and
    group; input as in int8. fp16 is of the whole graph: layers is empty and the backend sees to it.
    """

    exported: ExportedProgram
    precision: str = "fp32"
    layers: Mapping[str, str] = field(default_factory=dict)
    ranges: Mapping[str, Ranges] = field(default_factory=dict)
    group: int = 32
    keep: float | None = None
    module: nn.Module | None = None
    calibration: Array | None = None
    inlay: Inlay | None = None
    integers: Integers = NONE
    outline: ExportedProgram | None = None
    output: str = LOGITS


def layer_group(layer: str) -> str:
    """Name the layer of the model that a module belongs to.

    'layers.3.p.mlp.fc1' -> 'layers.3'; 'head' and whatever has no number in its name -> the name's first part.
    """
    match = re.match(r"(.*?\.\d+)(\.|$)", layer)
    return match[1] if match else layer.split(".")[0]


def layer_of(node: Node) -> str:
    """Name the module a node came from, as in model.named_modules().

    'layers.3.p.mlp.fc1'; '' for the model itself.
    """
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]).removeprefix("L['self'].") if stack else ""


def weight_name(exported: ExportedProgram, node: Node) -> str | None:
    """Find the state-dict key of a Linear's or convolution's weight.

    None if it is computed.
    """
    weight = node.args[1]
    names = exported.graph_signature.inputs_to_parameters
    return names.get(weight.name) if isinstance(weight, Node) else None


def name_layer(graph: Graph, node: Node) -> str:
    """Name the module that owns a layer's weight.

    '' where the weight is computed.
    """
    return (weight_name(graph.exported, node) or "").removesuffix(".weight")


def count_node_macs(node: Node) -> int:
    """Count the multiply-accumulates of one node, from its shapes.

    0 for anything that is not a matrix product.
    """
    if node.op != "call_function":
        return 0
    name = getattr(node.target, "_opname", str(node.target)).split(".")[0]
    if name in ("linear", "bmm", "mm", "matmul"):
        return prod(shape_of(node)) * shape_of(node.args[0])[-1]
    if name == "addmm":
        return prod(shape_of(node)) * shape_of(node.args[1])[-1]
    if name == "scaled_dot_product_attention":
        queries, (*_, keys, _), values = shape_of(node.args[0]), shape_of(node.args[1]), shape_of(node.args[2])
        return prod(queries[:-1]) * keys * (queries[-1] + values[-1])
    if name in ("conv1d", "conv2d", "convolution"):
        return prod(shape_of(node)) * prod(shape_of(node.args[1])[1:])
    if name == "conv_transpose2d":
        return prod(shape_of(node.args[0])) * prod(shape_of(node.args[1])[1:])
    if name == "dispatch":  # bve::dispatch: the router's Linear, of one output
        return prod(shape_of(node.args[1]))
    return 0


def matrix_products(exported: ExportedProgram) -> Iterator[tuple[Node, int]]:
    """List every node that multiplies matrices, with its multiply-accumulates."""
    for node in exported.graph.nodes:
        if macs := count_node_macs(node):
            yield node, macs


def shape_of(value: Any) -> tuple[int, ...]:
    """Read the shape of a node's value, or of a tensor."""
    return tuple((value.meta["val"] if isinstance(value, Node) else value).shape)


def read_constants(program: ExportedProgram) -> dict[Node, Tensor]:
    """Read the data of every placeholder that has any."""
    signature = program.graph_signature
    names = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    data = {**program.constants, **program.state_dict}
    return {n: data[names[n.name]].detach() for n in program.graph.find_nodes(op="placeholder") if n.name in names}


# ---- editing a program; metadata stays true, so that every node still has a shape and a layer ------------------------


def copy_program(exported: ExportedProgram) -> ExportedProgram:
    """Copy a program, so that it may be edited.

    Graph and signature are the copy's own, tensors shared with the original.
    """
    module = deepcopy(exported.graph_module)
    for original, copy in zip(exported.graph.nodes, module.graph.nodes, strict=True):
        copy.name = (
            original.name
        )  # copying renames an input that is called like a built-in, and the signature knows it not
    return ExportedProgram(
        root=module,
        graph=module.graph,
        graph_signature=deepcopy(exported.graph_signature),
        state_dict=dict(exported.state_dict),
        range_constraints=exported.range_constraints,
        module_call_graph=exported.module_call_graph,
        example_inputs=exported.example_inputs,
        constants=dict(exported.constants),
        verifiers=[exported.verifier],
    )


def insert(before: Node, target: Any, *args: Any, **kwargs: Any) -> Node:
    """Insert a call in front of a node, in the same layer."""
    with before.graph.inserting_before(before):
        node = before.graph.call_function(target, args, kwargs)
    values = map_arg((args, kwargs), lambda n: n.meta["val"])
    with next(t for t in tree_leaves((values, before.meta.get("val"))) if isinstance(t, FakeTensor)).fake_mode:
        node.meta["val"] = target(*values[0], **values[1])
    node.meta |= {key: before.meta[key] for key in ("nn_module_stack", "stack_trace") if key in before.meta}
    return node


def add_constant(program: ExportedProgram, name: str, data: Tensor) -> Node:
    """Add a tensor to the program as a constant.

    Under that name or, where it is taken, that name with a number. Taken are a module's own words too: PyTorch makes
    the program a module again, with an attribute for each constant.
    """
    taken = {node.name for node in program.graph.nodes} | {"c_" + key.replace(".", "_") for key in program.constants}
    tries = chain((name,), (f"{name}_{i}" for i in count(1)))
    own = dir(nn.Module)
    name = next(n for n in tries if "c_" + n.replace(".", "_") not in taken and n.rpartition(".")[2] not in own)
    specs = program.graph_signature.input_specs
    place = next(i for i, spec in enumerate(specs) if spec.kind == InputKind.USER_INPUT)
    user_input = program.graph.find_nodes(op="placeholder")[place]
    with program.graph.inserting_before(user_input):
        node: Node = program.graph.placeholder("c_" + name.replace(".", "_"))
    node.meta["val"] = user_input.meta["val"].fake_mode.from_tensor(data, static_shapes=True)
    specs.insert(place, InputSpec(InputKind.CONSTANT_TENSOR, TensorArgument(node.name), name, None))
    program.constants[name] = data
    return node


def redirect_uses(program: ExportedProgram, node: Node, by: Node) -> None:
    """Use `by` wherever `node` was used, the program's outputs included."""
    node.replace_all_uses_with(by)
    program.graph_signature.replace_all_uses(node.name, by.name)


def replace_node(program: ExportedProgram, node: Node, by: Node) -> None:
    """Redirect a node's uses and take the node away."""
    redirect_uses(program, node, by)
    program.graph.erase_node(node)


def set_constant(program: ExportedProgram, node: Node, data: Tensor) -> None:
    """Set other data for a parameter, buffer or constant.

    Those of the program that this one is a copy of stay as they are.
    """
    spec, store = _find_store(program, node)
    store[spec.target] = nn.Parameter(data, requires_grad=False) if spec.kind == InputKind.PARAMETER else data


def remove_constant(program: ExportedProgram, node: Node) -> None:
    """Drop a parameter, buffer or constant that nothing reads any more."""
    spec, store = _find_store(program, node)
    program.graph_signature.input_specs.remove(spec)
    del store[spec.target]
    program.graph.erase_node(node)


def _find_store(program: ExportedProgram, node: Node) -> tuple[Any, dict[str, Any]]:
    """What the signature says of a constant, and where its data is: no state dict holds every buffer."""
    spec = next(spec for spec in program.graph_signature.input_specs if spec.arg.name == node.name)
    return spec, program.state_dict if spec.target in program.state_dict else program.constants


def describe_view(node: Node) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Describe a view as an op on its source and other arguments.

    A part of an unbind is a select, one of a split or chunk a slice.
    """
    if node.target is not getitem:
        return node.target, node.args[1:], node.kwargs
    arguments: tuple[Any, ...] = node.args
    many, place = arguments
    if many.target is aten.unbind.int:
        return aten.select.int, ((*many.args, 0)[1], place), {}
    dim = (*many.args, 0)[2]  # of split, chunk and their kin: value, how, dimension
    ends = list(accumulate(part.shape[dim] for part in many.meta["val"]))
    return aten.slice.Tensor, (dim, (0, *ends)[place], ends[place]), {}
