"""Which ops of a graph compute in int8: convolutions, and between them what is cheaper so than converted and back.

A convolution gains several times from int8; an activation or a sum gains little, but between two convolutions its float
form needs a conversion on either side. So the ops are parted by the cheapest cut between int8 and float (a minimum
s-t cut): each op costs what it moves, in bytes, and each value that is made on one side and read on the other costs a
conversion. The costs are a model, the same for all machines; which ops a runtime has in int8 is what was tried.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from math import inf, prod
from operator import getitem
from typing import Any

import networkx
import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node

from bigvit_edge.export.factors import read_batch_norm
from bigvit_edge.export.graph import (
    add_constant,
    copy_program,
    describe_view,
    insert,
    read_constants,
    replace_node,
    set_constant,
    shape_of,
)
from bigvit_edge.export.products import CONVOLUTIONS, PADS, PRODUCTS, find_zeros, list_options
from bigvit_edge.export.taps import MOST_TAPS

aten = torch.ops.aten

CLIPS = {aten.relu.default, aten.relu6.default, aten.hardtanh.default}
TABLES = {aten.sigmoid.default, aten.gelu.default, aten.hardswish.default, aten.tanh.default}  # a look-up each in int8
SUMS = {aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor}
MEANS = {aten.adaptive_avg_pool2d.default, aten.mean.dim}
MOVES = {
    aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.flatten.using_ints, aten.permute.default,
    aten.transpose.int, aten.slice.Tensor, aten.unsqueeze.default, aten.squeeze.dim, aten.squeeze.dims,
    aten.contiguous.default, aten.clone.default,
}  # fmt: skip
POOLINGS = {aten.max_pool2d.default, aten.avg_pool2d.default}
JOINTS = {aten.cat.default}
TIED = MOVES | PADS | POOLINGS | JOINTS | {  # one span for what they read and give
    aten.select.int, aten.expand.default, aten.index_select.default, aten.repeat.default,
}  # fmt: skip
# what a kernel takes into itself, by the op behind which it stands
FUSED: dict[Any, set[Any]] = {**dict.fromkeys(PRODUCTS, CLIPS), aten.add.Tensor: {aten.relu.default}}

# What each runtime computes in int8, convolutions aside, as tried of each op alone; in XNNPACK, by either way into it.
COMMON = CLIPS | {aten.clamp.default} | TABLES | SUMS | MEANS | PADS | MOVES | JOINTS | {aten.max_pool2d.default}
LIGHT: dict[str, set[Any]] = {
    "executorch": COMMON,
    "litert": COMMON - {aten.gelu.default, aten.hardswish.default},
    "onnx": (COMMON | POOLINGS) - {aten.gelu.default, aten.hardswish.default, aten.tanh.default},
    "coreml": CLIPS | {aten.add.Tensor, aten.max_pool2d.default} | MOVES,
}

FLOAT, INTEGER = 4, 1  # bytes of a value
TRANSCENDENTAL = 16  # what an exponential costs in float, in bytes moved
SMOOTH = TABLES - {aten.hardswish.default}
PAIR = "float", "integer"  # the two ends of the cut


def list_convolutions(program: ExportedProgram) -> list[Node]:
    """List the convolutions of images whose weights are constants of their own."""
    constants = read_constants(program)
    return [
        node
        for node in program.graph.nodes
        if node.target in CONVOLUTIONS
        and all(a is None or a in constants for a in node.args[1:3])
        and len(shape_of(node)) == 4
        and node.meta["val"].dtype == torch.float32
    ]


def place_integers(program: ExportedProgram, convolutions: Collection[Node], runtime: str) -> list[Node]:
    """Place the graph's ops in int8 or float, the cheapest way.

    convolutions: those that compute in int8, whatever that costs; runtime: the format, as in LIGHT. Returns the ops in
    int8 in the graph's order, none where there are no convolutions.
    """
    if not convolutions:
        return []
    constants = read_constants(program)
    cut = networkx.DiGraph()
    calls = [node for node in program.graph.nodes if node.op in ("call_function", "placeholder", "output")]
    for node in calls:
        if node in constants:
            continue
        free = is_light(node, runtime, constants)
        whole, small = (inf, 0) if node in convolutions else _count_bytes(node, constants) if free else (0, inf)
        _add_edge(cut, PAIR[1], node.name, whole)  # cut if the op is on the side of the floats
        _add_edge(cut, node.name, PAIR[0], small)
        size = _count(node) * (FLOAT + INTEGER)
        for reader in node.users:
            # one conversion however many read it so: each end of an arrow of infinite weight is on one side
            _add_edge(cut, node.name, f"{node.name} as float", size)
            cut.add_edge(f"{node.name} as float", reader.name)
            _add_edge(cut, f"{node.name} as integers", node.name, size)
            cut.add_edge(reader.name, f"{node.name} as integers")
    _, (integer, _) = networkx.minimum_cut(cut, PAIR[1], PAIR[0])
    return _join_convolutions([node for node in calls if node.name in integer], convolutions, constants)


def _join_convolutions(ops: Sequence[Node], convolutions: Collection[Node], constants: Collection[Node]) -> list[Node]:
    """The ops that are joined to a convolution by values in int8: without any, moves alone would be rounded."""
    joined = networkx.Graph((node, value) for node in ops for value in list_inputs(node, constants))
    reached = set().union(*(networkx.node_connected_component(joined, node) for node in convolutions))
    return [node for node in ops if node in reached]


def _add_edge(cut: Any, start: str, end: str, capacity: float) -> None:
    if capacity == inf:
        cut.add_edge(start, end)  # without a capacity it has no bound
    elif capacity:
        cut.add_edge(start, end, capacity=capacity)


def _count(node: Node) -> int:
    value = node.meta.get("val")
    return prod(value.shape) if isinstance(value, Tensor) else 0


def _count_bytes(node: Node, constants: Collection[Node]) -> tuple[int, int]:
    """What an op costs in float and in int8."""
    moved = _count(node) + sum(_count(x) for x in list_inputs(node, constants))
    return FLOAT * moved + TRANSCENDENTAL * _count(node) * (node.target in SMOOTH), INTEGER * moved


def list_inputs(node: Node, constants: Collection[Node]) -> list[Node]:
    """List the values that an op reads, but for constants."""
    return [x for x in node.all_input_nodes if x not in constants]


def is_light(node: Node, runtime: str, constants: Mapping[Node, Tensor]) -> bool:
    """Tell whether a runtime has an op in int8.

    The op is no convolution.
    """
    value = node.meta.get("val")
    if node.target not in LIGHT[runtime] or not isinstance(value, Tensor) or value.dtype != torch.float32:
        return False
    arguments: tuple[Any, ...] = node.args
    if any(_count(x) == 0 or x.meta["val"].dtype != torch.float32 for x in node.all_input_nodes):
        return False
    most = (5 if runtime == "coreml" else 6) if node.target in MOVES else 4
    if not list_inputs(node, constants) or not all(
        1 <= len(shape_of(x)) <= most for x in (node, *node.all_input_nodes)
    ):
        return False
    if node.target in SUMS:
        return not node.kwargs and all(isinstance(a, Node) for a in arguments[:2])
    if node.target is aten.gelu.default:
        return node.kwargs.get("approximate", "none") == "none" or runtime != "executorch"
    if node.target in MEANS:
        return _averages_all(node)
    if node.target in PADS:
        return find_zeros(node) is not None
    if node.target in JOINTS:
        return not any(x in constants for x in node.all_input_nodes) and len(node.all_input_nodes) == len(arguments[0])
    if node.target is aten.slice.Tensor:
        return len(arguments) < 5 or arguments[4] == 1
    return True


def _averages_all(node: Node) -> bool:
    """Whether an average is over all pixels of an image."""
    arguments: tuple[Any, ...] = node.args
    if len(shape_of(arguments[0])) != 4:
        return False
    if node.target is aten.mean.dim:
        return {dim % 4 for dim in arguments[1]} == {2, 3} and not node.kwargs
    return shape_of(node)[2:] == (1, 1)


# ---- which values are held in int8, and which of them share a span ---------------------------------------------------


def list_merged(ops: Iterable[Node]) -> set[Node]:
    """List the ops whose value is never rounded.

    Each is one kernel with the one that reads it.

    A convolution or sum before a clip, and a padding before a convolution.
    """
    inside = set(ops)
    merged = set()
    for node in inside:
        reader = next(iter(node.users))
        if len(node.users) == 1 and reader in inside:
            clipped = reader.target in FUSED.get(node.target, ())
            padded = find_zeros(node) is not None and reader.target is aten.conv2d.default
            if clipped or padded:
                merged.add(node)
    return merged


def list_values(program: ExportedProgram, ops: Collection[Node]) -> Iterator[tuple[Node, Node]]:
    """List the values that the ops hold in int8.

    Each comes with the one whose span it has.

    A value that is tied to no other has its own; constants that are no weights are among them. Readers come behind what
    they read.
    """
    constants, merged = read_constants(program), list_merged(ops)
    leaders: dict[Node, Node] = {}

    def lead(node: Node) -> Node:
        while leaders.setdefault(node, node) is not node:
            node = leaders[node]
        return node

    values: dict[Node, None] = {}
    for node in ops:
        reads = list_inputs(node, constants) if node.target in PRODUCTS else node.all_input_nodes
        reads = [x for x in reads if isinstance(x.meta["val"], Tensor) and x.meta["val"].dtype == torch.float32]
        values |= dict.fromkeys(x for x in reads if x not in merged)
        if node not in merged:
            values[node] = None
        if node.target in TIED and reads:
            for other in (*reads, node):
                leaders[lead(other)] = lead(reads[0])
    return ((value, lead(value)) for value in values)


# ---- what a runtime is better left in float, and what is written otherwise for it ------------------------------------

SHARE = (0.0, 255 / 256)
FIXED: dict[Any, tuple[float, float]] = {  # as LiteRT's kernels want them
    aten.sigmoid.default: SHARE, aten.softmax.int: SHARE, aten._softmax.default: SHARE,
    aten.tanh.default: (-1.0, 127 / 128),
}  # fmt: skip


def has_kernel(node: Node, runtime: str) -> bool:
    """Tell whether a runtime has a fast int8 kernel for a convolution.

    XNNPACK is faster in float where a depthwise one has many taps, which it then has in shares, and cannot have a scale
    a channel in a transposed one of groups; one that does not enlarge LiteRT's converter writes as another. ONNX
    Runtime takes all: what is float between integers it would round by itself, with one scale for all channels.
    """
    arguments: tuple[Any, ...] = node.args
    weight, groups = shape_of(arguments[1]), arguments[6] if len(arguments) > 6 else 1
    if node.target is aten.conv_transpose2d.input:
        enlarges = len(arguments) > 3 and min(arguments[3]) > 1
        return runtime not in ("executorch", "litert") or (groups == 1 and (enlarges or runtime == "executorch"))
    deep = weight[1] == 1 < groups and prod(weight[2:]) > MOST_TAPS
    return runtime not in ("executorch", "litert") or not deep


def write_for_integers(program: ExportedProgram) -> ExportedProgram:
    """Copy the program in ops that int8 has.

    It is the program itself where nothing is to be written.

    SiLU is a product with a sigmoid, a part of a split or chunk is a slice, and a batch norm that no convolution took
    in is a depthwise convolution of one tap. A convolution of one dimension is one of an image of one row.
    """
    if not any(node.target in WRITTEN for node in program.graph.nodes):
        return program
    program = copy_program(program)
    for node in list(program.graph.nodes):
        if node.target is aten.silu.default:
            gate = insert(node, aten.sigmoid.default, node.args[0])
            replace_node(program, node, insert(node, aten.mul.Tensor, node.args[0], gate))
        elif node.target is getitem and node.args[0].target in SPLITS:
            target, arguments, _ = describe_view(node)
            replace_node(program, node, insert(node, target, node.args[0].args[0], *arguments))
        elif node.target is aten.batch_norm.default and len(shape_of(node)) == 4:
            _write_norm(program, node)
        elif node.target is aten.conv1d.default:
            _write_row(program, node)
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()
    return program


WRITTEN = {aten.silu.default, aten.batch_norm.default, aten.conv1d.default, getitem}
SPLITS = {aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default, aten.unbind.int}


def _write_norm(program: ExportedProgram, norm: Node) -> None:
    affine = read_batch_norm(norm, read_constants(program))
    if affine is None or affine.factor is None or affine.offset is None:
        return
    weight = add_constant(program, f"{norm.name}.weight", affine.factor.view(-1, 1, 1, 1).contiguous())
    bias = add_constant(program, f"{norm.name}.bias", affine.offset)
    options = ([1, 1], [0, 0], [1, 1], len(affine.factor))
    replace_node(program, norm, insert(norm, aten.conv2d.default, affine.value, weight, bias, *options))


def _write_row(program: ExportedProgram, conv: Node) -> None:
    value, weight, *_ = conv.all_input_nodes
    constants = read_constants(program)
    if weight not in constants or len(weight.users) > 1 or len(shape_of(value)) != 3:
        return
    bias, stride, padding, dilation, groups = list_options(conv)
    set_constant(program, weight, constants[weight].unsqueeze(2))  # [out, in / groups, 1, taps]
    weight.meta["val"] = weight.meta["val"].unsqueeze(2)
    image = insert(conv, aten.unsqueeze.default, value, 2)
    options = ([1, *stride], [0, *padding], [1, *dilation], groups)
    row = insert(conv, aten.conv2d.default, image, weight, bias, *options)
    replace_node(program, conv, insert(conv, aten.squeeze.dim, row, 2))


COPYING = {"onnx"}  # whose int8 kernels know depthwise convolutions with one result a channel alone


def write_copies(program: ExportedProgram) -> ExportedProgram:
    """Copy the program with one result a channel in depthwise convolutions.

    It is the program itself where that is so.

    Where there were several results, as many copies of the channel are read. They are a convolution with ones, which
    is exact in int8 too.
    """
    several = {node.name: times for node in program.graph.nodes if (times := _count_results(node)) > 1}
    if not several:
        return program
    program = copy_program(program)
    for conv in [node for node in program.graph.nodes if node.name in several]:
        arguments: tuple[Any, ...] = conv.args
        channels, times = shape_of(arguments[0])[1], several[conv.name]
        ones = torch.eye(channels).repeat_interleave(times, 0).view(-1, channels, 1, 1)
        copied = insert(conv, aten.conv2d.default, arguments[0], add_constant(program, f"{conv.name}.copies", ones))
        conv.args = (copied, *arguments[1:6], channels * times)
    program.graph_module.recompile()
    return program


def _count_results(node: Node) -> int:
    """How many results a channel of a depthwise convolution has; 0 of another op."""
    if node.target is not aten.conv2d.default or len(shape_of(node)) != 4:
        return 0
    (out, into, *_), channels = shape_of(node.args[1]), shape_of(node.args[0])[1]
    return out // channels if into == 1 < channels else 0
