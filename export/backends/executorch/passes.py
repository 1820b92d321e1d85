"""Which of XNNPACK's passes a delegate needs: each traces it anew, and most look for ops that are not there.

Left out are those that look for ops which our graphs never have at that point (bilinear resizing and attention in
pieces, dimension orders), and those whose ops this graph has not. The file is the same, byte for byte.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.export import ExportedProgram

from bigvit_edge.console import silenced

with silenced():
    from executorch.backends.xnnpack import _passes as known
    from executorch.backends.xnnpack import xnnpack_preprocess
    from executorch.backends.xnnpack.utils.quant_utils import is_dequant
    from executorch.exir.backend.canonical_partitioners.config_partitioner import format_target_name
    from executorch.exir.dialects._ops import ops as exir_ops

CONVOLUTION = exir_ops.edge.aten.convolution.default
PAD, HIDDEN = exir_ops.edge.aten.constant_pad_nd.default, exir_ops.edge.aten.alias_copy.default
NORMS = {"native_batch_norm.default", "_native_batch_norm_legit_no_training.default"}
# the ops that a pass is for, by its name; a pass that is not named here always runs
SERVES: dict[str, set[str]] = {
    "ConvertToUpsampleBilinear2d": set(),
    "ConvertToSDPAPass": set(),
    "DimOrderOpsRevertPass": {"_to_dim_order_copy.default", "_clone_dim_order.default"},
    "FuseBatchNormPass": NORMS,
    "DecomposeBatchNorm": NORMS,
    "DecomposeConcatenate": {"cat.default"},
    "PadsOfConvolutions": {"constant_pad_nd.default"},
    "PReLUReshapePass": {"_prelu_kernel.default"},
}


class PadsOfConvolutions(known.InsertPadQDQPass):  # type: ignore[misc]
    """The pass that makes paddings int8, for convolutions' alone.

    It takes those behind a dequantisation.
    As it is it takes them all: an average in float behind one then reads integers.
    """

    def call(self, graph_module: Any) -> Any:
        hidden = [node for node in graph_module.graph.nodes if node.target is PAD and not _is_convolved(node)]
        for node in hidden:
            node.target = HIDDEN
        try:
            return super().call(graph_module)
        finally:
            for node in hidden:
                node.target = PAD


def _is_convolved(pad: Any) -> bool:
    """Whether convolutions in int8 alone read a padding: their weights come from integers."""
    return all(user.target is CONVOLUTION and is_dequant(user.args[1]) for user in pad.users)


class FewPasses(known.XNNPACKPassManager):  # type: ignore[misc]
    """XNNPACK's pass manager without the passes that have nothing to do."""

    def __init__(self, exported: ExportedProgram, passes: Any = None) -> None:
        super().__init__(exported, passes)
        given: list[Any] = vars(self)["passes"]
        calls = [node for node in exported.graph.nodes if node.op == "call_function"]
        ops = {format_target_name(node.target.__name__) for node in calls}
        given = [PadsOfConvolutions if p is known.InsertPadQDQPass else p for p in given]
        self.passes = [p for p in given if p.__name__ not in SERVES or ops & SERVES[p.__name__]]


@contextmanager
def few_passes() -> Iterator[None]:
    """Have XNNPACK's lowering run only the passes that a delegate needs."""
    before = xnnpack_preprocess.XNNPACKPassManager
    xnnpack_preprocess.XNNPACKPassManager = FewPasses
    try:
        yield
    finally:
        xnnpack_preprocess.XNNPACKPassManager = before
