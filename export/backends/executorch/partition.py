"""What XNNPACK takes, in as few delegates as the graph allows, and why it does not take the rest."""

from operator import getitem

from torch.export import ExportedProgram
from torch.fx import Graph as FxGraph
from torch.fx import Node
from torch.fx.passes.infra.partitioner import Partition

from bigvit_edge.console import silenced
from bigvit_edge.export.backends.executorch.casts import CastConfig
from bigvit_edge.export.backends.executorch.tables import TABLES

with silenced():
    from executorch.backends.xnnpack.partition.config import (
        ALL_PARTITIONER_CONFIGS,
        gemm_configs,
        generic_node_configs,
        xnnpack_config,
    )
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir.backend.backend_details import CompileSpec
    from executorch.exir.backend.canonical_partitioners.config_partitioner import format_target_name
    from executorch.exir.backend.partitioner import DelegationSpec, PartitionResult
    from executorch.exir.backend.utils import tag_constant_data
    from executorch.exir.dialects._ops import ops as exir_ops

# What XNNPACK compiles as it stands. Its seventeen passes, each of which traces every delegate anew, have nothing to do
# here: they serve convolutions, pooling, batch norm, activations in a static int8 Linear, and concatenations of more
# than five.
PLAIN = {
    "_softmax.default", "add.Tensor", "bmm.default", "cast.default", "cat.default",
    "choose_qparams_per_token_asymmetric.default", "dequantize_per_channel.default",
    "dequantize_per_channel_group.default", "dequantize_per_tensor.default", "dequantize_per_token.default",
    "div.Tensor", "exp.default", "gelu.default", "linear.default", "mul.Tensor", "permute_copy.default",
    "quantize_per_tensor.default", "quantize_per_token.default", "rsqrt.default", "sigmoid.default",
    "slice_copy.Tensor", "sub.Tensor", "tanh.default", "unsqueeze_copy.default", "view_copy.default",
}  # fmt: skip
# XNNPACK's own word for it: with this in the specification only the conversion to Linear runs.
FEW_PASSES = CompileSpec("dqlinear_partitioner", b"")

DEQUANTIZE = exir_ops.edge.quantized_decomposed.dequantize_per_tensor.default
REASON = "bigvit_edge_reason"  # in the metadata of an op that XNNPACK does not take
NO_RULE = "XNNPACK's partitioner has no rule for it"
REASONS = {
    "topk.default": "XNNPACK has no top-k",
    "index_select.default": "XNNPACK has no gather with computed indices",
    "gather.default": "XNNPACK has no gather with computed indices",
    "embedding.default": "XNNPACK has no gather with computed indices",
    "dispatch.default": "run by libbve_executorch's kernel",
}
# XNNPACK's checks say why not to these, and to nobody else.
WHYS = (gemm_configs.why, generic_node_configs.why, xnnpack_config.why)


class DepthPartitioner(XnnpackPartitioner):  # type: ignore[misc]
    """XNNPACK's choice of ops, cut by depth.

    Depth: how often the way from the input to an op has left the delegates. Ops of one depth can share a delegate
    without a cycle, connected or not, and no cut has fewer delegates than there are depths. XNNPACK's own way tries to
    merge every pair of ops, and ends with more.
    """

    def __init__(self) -> None:
        super().__init__([*(TABLES.get(config, config) for config in ALL_PARTITIONER_CONFIGS), CastConfig])

    def partition(self, exported: ExportedProgram) -> PartitionResult:
        partitions = self.generate_partitions(exported)
        tags = {}
        for partition in partitions:
            plain = all(is_plain(node) for node in partition.nodes)
            tags[f"tag{partition.id}"] = DelegationSpec("XnnpackBackend", [FEW_PASSES] if plain else [])
            for node in partition.nodes:
                node.meta["delegation_tag"] = f"tag{partition.id}"
        tag_constant_data(exported)
        for node in exported.graph.nodes:
            if node.op == "call_function" and node.target is not getitem and "delegation_tag" not in node.meta:
                node.meta[REASON] = self.explain(node, exported)
        return PartitionResult(tagged_exported_program=exported, partition_tags=tags)

    def generate_partitions(self, exported: ExportedProgram) -> list[Partition]:
        groups = self.get_matched_nodes_from_configs(exported)  # an op with its quantisation and weights
        depths = measure_depths(exported.graph, {node: i for i, group in enumerate(groups) for node in group})
        partitions: dict[int, dict[Node, None]] = {}
        for node, depth in depths.items():
            partitions.setdefault(depth, {})[node] = None
        return [Partition(id=depth, nodes=nodes) for depth, nodes in sorted(partitions.items())]

    def explain(self, node: Node, exported: ExportedProgram) -> str:
        """Explain why XNNPACK does not take an op.

        XNNPACK's own words are taken where it has any.
        """
        name = format_target_name(node.target.__name__)  # type: ignore[union-attr]
        rule = self.target_partitioner_configs.get(name)
        if rule is None:
            return REASONS.get(name, NO_RULE)
        for why in WHYS:
            why.node = None
        rule.check_constraints(node, exported)
        return next((f"XNNPACK: {why.reason}" for why in WHYS if why.node is node), "XNNPACK's rule for it refuses it")


def part_reads(exported: ExportedProgram) -> None:
    """Give each op a dequantisation of its own.

    Where the graph is in pieces, that is.
    XNNPACK's pass for layouts takes a value that leaves a delegate and goes on in it too for turned where it is not.
    """
    known = PLAIN.union(config().target_name for config in ALL_PARTITIONER_CONFIGS)
    calls = [node for node in exported.graph.nodes if node.op == "call_function" and node.target is not getitem]
    if all(format_target_name(node.target.__name__) in known for node in calls):
        return
    for read in exported.graph.find_nodes(op="call_function", target=DEQUANTIZE):
        for user in list(read.users)[1:]:
            with exported.graph.inserting_after(read):
                own = exported.graph.call_function(DEQUANTIZE, read.args, read.kwargs)
            own.meta = dict(read.meta)
            user.replace_input_with(read, own)
            if user.op == "output":
                exported.graph_signature.replace_all_uses(read.name, own.name)
    exported.graph_module.recompile()


def measure_depths(graph: FxGraph, group_of: dict[Node, int]) -> dict[Node, int]:
    """Measure the depth of every node that has a group.

    A group has one depth.
    """
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
    """Tell whether XNNPACK can compute the op without its passes."""
    if node.op != "call_function" or node.target is getitem or isinstance(node.target, str):
        return True
    return format_target_name(node.target.__name__) in PLAIN and len(node.all_input_nodes) <= 5
