"""ExecuTorch with XNNPACK: .pte files for Android, iOS and ARM Linux.

XNNPACK takes what it can as delegates and ExecuTorch's own kernels run the rest, so three things are done to the
graph: ops that XNNPACK refuses are written in ops that it takes (layer norm), constants are computed now, and what it
takes is cut into as few pieces as the graph allows. Only the router's topk and the gathers behind it stay outside.
"""

from operator import getitem
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Graph as FxGraph
from torch.fx import Node
from torch.fx.node import map_arg
from torch.fx.passes.infra.partitioner import Partition
from torch.nn.functional import linear

from bigvit_edge.artifact import Array, Artifact, Leftover, Run, list_versions
from bigvit_edge.errors import UserError
from bigvit_edge.export.console import silenced
from bigvit_edge.export.graph import Graph, add_constant, count_node_macs, insert, layer_of, matrix_products
from bigvit_edge.export.quantization import insert_dynamic_int8

if TYPE_CHECKING:
    from bigvit_edge.target import Target


with silenced():
    from executorch.backends.transforms.remove_clone_ops import RemoveCloneOpsTransform
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import EdgeCompileConfig, to_edge
    from executorch.exir.backend.backend_details import CompileSpec
    from executorch.exir.backend.canonical_partitioners.config_partitioner import format_target_name
    from executorch.exir.backend.partitioner import DelegationSpec, PartitionResult
    from executorch.exir.backend.utils import tag_constant_data
    from executorch.exir.delegate import executorch_call_delegate
    from executorch.extension.pybindings import _portable_lib
    from executorch.runtime import Runtime, Verification

FORMAT = "executorch"
SUFFIX = ".pte"
PACKAGES = ("executorch", "torchao", "torch")

aten = torch.ops.aten


def lower(graph: Graph, target: "Target") -> Artifact:
    """The graph as a .pte for XNNPACK. The target changes nothing here: XNNPACK chooses its kernels on the device."""
    with silenced():
        program = insert_dynamic_int8(simplify(graph.exported), graph.int8)
        # Not to_edge_transform_and_lower: it traces the program three times to keep the ops whole that XNNPACK wants
        # whole. Here that is Linear alone, and preserve_ops keeps it. Dim-order ops would only be taken out again.
        config = EdgeCompileConfig(preserve_ops=[aten.linear.default], _check_ir_validity=False, _skip_dim_order=True)
        edge = to_edge(program, compile_config=config).transform([RemoveCloneOpsTransform()])
        edge = edge.to_backend(DepthPartitioner())
        calls = [node for node in edge.exported_program().graph.nodes if node.op == "call_function"]
        data = bytes(edge.to_executorch().buffer)
    delegates = sum(node.target is executorch_call_delegate for node in calls)
    total_macs = sum(macs for _, macs in matrix_products(graph.exported)) or 1
    leftovers = tuple(
        Leftover(node.target.__name__, layer_of(node), count_node_macs(node) / total_macs)
        for node in calls
        if node.target not in (executorch_call_delegate, getitem)
    )
    return Artifact(FORMAT, graph.precision, data, leftovers, delegates, list_versions(PACKAGES))


def load(path: Path, threads: int = 1) -> Run:
    """The program in ExecuTorch's own runtime. UserError if it is not one.

    The runtime has one pool of threads in a process: the last call's `threads` holds for every program loaded before.
    """
    with silenced() as said:
        try:
            if _portable_lib._threadpool_get_thread_count() != threads:
                _portable_lib._unsafe_reset_threadpool(threads)
            program = Runtime.get().load_program(path, verification=Verification.InternalConsistency)
            method = program.load_method("forward")
        except (RuntimeError, ValueError) as e:
            written = said().splitlines()  # the reason is the last line, behind "[program.cpp:168] "
            reason = written[-1].rpartition("] ")[2] if written else str(e)
            raise UserError(
                f"{path}: ExecuTorch cannot load it ({reason})", "a .pte file as exported", "export the model again"
            ) from e

    def run(images: Array) -> Array:
        (logits,) = method.execute((torch.from_numpy(np.ascontiguousarray(images, np.float32)),))
        return np.asarray(logits.numpy(), np.float32)

    return run


# ---- rewrites: what XNNPACK refuses, in ops that it takes ------------------------------------------------------------


def simplify(exported: ExportedProgram) -> ExportedProgram:
    """A copy of the program that computes the same in ops that XNNPACK takes."""
    program = exported.run_decompositions({aten.layer_norm.default: normalize})
    for rewrite in (write_select_as_slice, flatten_topk, write_scalars_as_floats, fold_constants):
        rewrite(program)
        program.graph.eliminate_dead_code()
    program.graph_module.recompile()
    return program  # type: ignore[no-any-return]


def normalize(
    x: Tensor,
    shape: list[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn: bool = True,
) -> Tensor:
    """Layer norm over the last dimension. XNNPACK has no such op, and takes a mean only over pixels; but a mean is a
    Linear with one output."""
    if len(shape) != 1:
        return NotImplemented  # type: ignore[no-any-return]  # PyTorch's word for: leave the op as it is
    average = torch.full((1, shape[0]), 1 / shape[0])  # [1, C]
    x = x - linear(x, average)  # [..., C] - [..., 1]
    x = x * torch.rsqrt(linear(x * x, average) + eps)  # [..., C]
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def write_select_as_slice(program: ExportedProgram) -> None:
    """x[:, 0] as x[:, 0:1] without that dimension: XNNPACK slices, but does not select."""
    for select in program.graph.find_nodes(op="call_function", target=aten.select.int):
        value, dim, index = select.args
        if select.meta["val"].is_floating_point() and index >= 0:
            part = insert(select, aten.slice.Tensor, value, dim, index, index + 1)
            select.replace_all_uses_with(insert(select, aten.view.default, part, list(select.meta["val"].shape)))


def flatten_topk(program: ExportedProgram) -> None:
    """topk of one row [1, N] and the selects of that row behind it, as topk of [N]: the selects are not delegated."""
    for topk in program.graph.find_nodes(op="call_function", target=aten.topk.default):
        value, k, *rest = topk.args
        rows, *columns = value.meta["val"].shape
        selects = [select for item in topk.users for select in item.users]
        of_row = all(select.target is aten.select.int and select.args[1:] == (0, 0) for select in selects)
        if not (rows == 1 and len(columns) == 1 and rest in ([], [1], [-1]) and of_row):
            continue
        flat = insert(topk, aten.topk.default, insert(topk, aten.view.default, value, columns), k, 0)
        for item in topk.users:
            part = insert(topk, getitem, flat, item.args[1])
            for select in list(item.users):
                select.replace_all_uses_with(part)


def write_scalars_as_floats(program: ExportedProgram) -> None:
    """x * 2 as x * 2.0: ExecuTorch would keep the 2 as an int64 tensor and convert it on every run."""
    for target in (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor):
        for node in program.graph.find_nodes(op="call_function", target=target):
            if node.meta["val"].is_floating_point():
                node.args = tuple(float(a) if type(a) is int else a for a in node.args)


def fold_constants(program: ExportedProgram) -> None:
    """Compute now what does not depend on the image. zeros_like and its kin take only a shape from their input."""
    known = read_constants(program)
    folded: dict[Node, Tensor] = {}
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if node.op != "call_function" or not isinstance(value, Tensor):
            continue
        if node.target in (aten.zeros_like.default, aten.ones_like.default, aten.full_like.default):
            folded[node] = node.target(torch.empty(value.shape, dtype=value.dtype), *node.args[1:])
        elif all(n in known or n in folded for n in node.all_input_nodes):
            args, kwargs = map_arg((node.args, node.kwargs), lambda n: folded[n] if n in folded else known[n])
            folded[node] = node.target(*args, **kwargs)
    for node, data in folded.items():
        if any(user not in folded for user in node.users):
            constant = add_constant(program, f"folded.{node.name}", data.contiguous().clone())
            node.replace_all_uses_with(constant, delete_user_cb=lambda user: user not in folded)


def read_constants(program: ExportedProgram) -> dict[Node, Tensor]:
    """The data of every placeholder that has any."""
    signature = program.graph_signature
    names = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    data = {**program.constants, **program.state_dict}
    return {n: data[names[n.name]].detach() for n in program.graph.find_nodes(op="placeholder") if n.name in names}


# ---- partitioning ----------------------------------------------------------------------------------------------------

# What XNNPACK compiles as it stands. Its seventeen passes, each of which traces every delegate anew, have nothing to do
# here: they serve convolutions, pooling, batch norm, static quantisation, and concatenations of more than five.
PLAIN = {
    "_softmax.default", "add.Tensor", "bmm.default", "cat.default", "div.Tensor", "exp.default", "gelu.default",
    "linear.default", "mul.Tensor", "permute_copy.default", "rsqrt.default", "sigmoid.default", "slice_copy.Tensor",
    "sub.Tensor", "tanh.default", "unsqueeze_copy.default", "view_copy.default",
    "choose_qparams_per_token_asymmetric.default", "quantize_per_token.default", "dequantize_per_token.default",
    "dequantize_per_channel.default",
}  # fmt: skip
# XNNPACK's own word for it: with this in the specification only the conversion to Linear runs.
FEW_PASSES = CompileSpec("dqlinear_partitioner", b"")


class DepthPartitioner(XnnpackPartitioner):  # type: ignore[misc]
    """XNNPACK's choice of ops, cut by depth: how often the way from the input to an op has left the delegates.

    Ops of one depth can share a delegate without a cycle, connected or not, and no cut has fewer delegates than there
    are depths. XNNPACK's own way tries to merge every pair of ops, and ends with more.
    """

    def partition(self, exported: ExportedProgram) -> PartitionResult:
        partitions = self.generate_partitions(exported)
        plain = all(is_plain(node) for partition in partitions for node in partition.nodes)
        specification = DelegationSpec("XnnpackBackend", [FEW_PASSES] if plain else [])
        tags = {}
        for partition in partitions:
            tags[f"tag{partition.id}"] = specification
            for node in partition.nodes:
                node.meta["delegation_tag"] = f"tag{partition.id}"
        tag_constant_data(exported)
        return PartitionResult(tagged_exported_program=exported, partition_tags=tags)

    def generate_partitions(self, exported: ExportedProgram) -> list[Partition]:
        groups = self.get_matched_nodes_from_configs(exported)  # an op with its quantisation and weights
        depths = measure_depths(exported.graph, {node: i for i, group in enumerate(groups) for node in group})
        partitions: dict[int, dict[Node, None]] = {}
        for node, depth in depths.items():
            partitions.setdefault(depth, {})[node] = None
        return [Partition(id=depth, nodes=nodes) for depth, nodes in sorted(partitions.items())]


def measure_depths(graph: FxGraph, group_of: dict[Node, int]) -> dict[Node, int]:
    """The depth of every node that has a group; one depth for the whole group."""
    depths: dict[Node, int] = {}
    group_depths = dict.fromkeys(group_of.values(), 0)
    settled = False
    while not settled:  # a group may begin before all its inputs are known; twice is enough for ours
        settled = True
        for node in graph.nodes:
            inside = node in group_of
            inputs = [
                depths[n] + (inside and n not in group_of and n.op != "placeholder") for n in node.all_input_nodes
            ]
            depths[node] = max(inputs, default=0)
            if inside:
                group = group_of[node]
                settled &= depths[node] <= group_depths[group]
                depths[node] = group_depths[group] = max(depths[node], group_depths[group])
    return {node: depth for node, depth in depths.items() if node in group_of}


def is_plain(node: Node) -> bool:
    """Whether XNNPACK can compile the op without its passes."""
    if node.op != "call_function" or node.target is getitem or isinstance(node.target, str):
        return True
    return format_target_name(node.target.__name__) in PLAIN and len(node.all_input_nodes) <= 5
