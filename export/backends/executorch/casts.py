"""Casts between float16 and float32 inside a delegate. XNNPACK has them, ExecuTorch's exporter to it does not: its rule
for copies takes none that changes the type, so each would part two delegates. They get an op of their own, and with it
a rule and a writer.
"""

import torch
from torch import Tensor, library
from torch.fx import Node

from bigvit_edge.console import silenced

with silenced():
    from executorch.backends.xnnpack.operators.node_visitor import NodeVisitor, register_node_visitor
    from executorch.backends.xnnpack.partition.config.generic_node_configs import GenericNodePartitionerConfig
    from executorch.backends.xnnpack.partition.config.xnnpack_config import ConfigPrecisionType
    from executorch.backends.xnnpack.serialization.xnnpack_graph_schema import XNNConvert, XNNGraph, XNode

OPS = library.Library("bigvit_edge", "DEF")  # type: ignore[no-untyped-call]
OPS.define("cast(Tensor x, ScalarType dtype) -> Tensor")  # type: ignore[no-untyped-call]


@library.impl(OPS, "cast", "CompositeExplicitAutograd")
def _cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.to(dtype, copy=True)


CAST = torch.ops.bigvit_edge.cast.default


class CastConfig(GenericNodePartitionerConfig):  # type: ignore[misc]
    """The rule that lets the partitioner take casts."""

    target_name = "cast.default"

    def supported_precision_types(self) -> list[ConfigPrecisionType]:
        return [ConfigPrecisionType.FP32]


class CastVisitor(NodeVisitor):  # type: ignore[misc]
    """The writer of a cast as XNNPACK's Convert."""

    target = "bigvit_edge.cast.default"

    def define_node(self, node: Node, xnn_graph: XNNGraph, vals_to_ids: dict[Node, int], debug_handle: int) -> None:
        self.define_nodes_tensor_inputs_outputs(node, xnn_graph, vals_to_ids)
        (value,) = node.all_input_nodes
        convert = XNNConvert(input_id=vals_to_ids[value], output_id=vals_to_ids[node], flags=0)
        xnn_graph.xnodes.append(XNode(xnode_union=convert, debug_handle=debug_handle))


register_node_visitor(CastVisitor)
