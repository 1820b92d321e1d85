"""Ops that neither XNNPACK takes nor ExecuTorch's runtime has a kernel for."""

from collections.abc import Mapping

from torch.export import ExportedProgram

from bigvit_edge.console import silenced
from bigvit_edge.export.lowering_errors import refuse_op

with silenced():
    from executorch.backends.xnnpack.partition.config import ALL_PARTITIONER_CONFIGS
    from executorch.extension.pybindings import _portable_lib

TAKEN = {config.target_name for config in ALL_PARTITIONER_CONFIGS}
ALIASES = {"aten::alias_copy", "aten::detach_copy", "aten::lift_fresh_copy"}  # which the lowering takes out


def refuse_missing(programs: Mapping[str, ExportedProgram]) -> None:
    """Refuse an edge program with an op that has no kernel.

    UserError at the first op that only a missing kernel could run: the runtime would say so when it loads the file, and
    not of which op.
    """
    kernels = {name.partition(".")[0] for name in _portable_lib._get_operator_names()}
    for program in programs.values():
        for node in program.graph.nodes:
            schema = getattr(node.target, "_schema", None)
            if node.op != "call_function" or schema is None or not schema.name.startswith("aten::"):
                continue
            taken = f"{schema.name.removeprefix('aten::')}.{schema.overload_name or 'default'}" in TAKEN
            if not taken and schema.name not in kernels | ALIASES:
                raise refuse_op("executorch", node, "its runtime has no kernel for it, and XNNPACK does not take it")
