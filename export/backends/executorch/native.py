"""Our core as the delegate: a .pte each of whose methods calls it once, on one .bve in the file's named data."""

import struct
from collections.abc import Mapping
from copy import copy
from hashlib import sha256

from torch.export import ExportedProgram

from bigvit_edge.console import silenced
from bigvit_edge.errors import UserError
from bigvit_edge.export.graph import Graph

with silenced():
    from executorch.exir import EdgeCompileConfig, EdgeProgramManager
    from executorch.exir._serialize._named_data_store import NamedDataStore
    from executorch.exir.backend.backend_details import BackendDetails, PreprocessResult
    from executorch.exir.backend.compile_spec_schema import CompileSpec
    from executorch.exir.backend.partitioner import DelegationSpec, Partitioner, PartitionResult
    from executorch.exir.backend.utils import tag_constant_data
    from executorch.exir.dialects._ops import ops as exir_ops
    from executorch.exir.passes.remove_unused_parameters_pass import remove_unused_parameters_pass

    from bigvit_edge.runtime.executorch import BACKEND, load_library

    try:
        load_library()  # a missing one shows on import, as other backends' packages do
    except UserError as e:
        raise UserError(e.met, e.expected, f"{e.do}, or add --set backend=xnnpack") from e

BYTES = "bigvit_edge_program"  # in the metadata of a graph's ops: the .bve, until the delegate takes it
TAG = "delegation_tag"  # ExecuTorch's word in the same place
ALIGNMENT = 64  # bytes; what our core asks of a program that it is to use where it lies


def lower_programs(graphs: Mapping[str, Graph], program: bytes, words: Mapping[str, str]) -> EdgeProgramManager:
    """Lower the graphs by method name, each one delegate.

    The delegate is the entry of the graph's keep ratio in the program, a .bve. words: methods that return a string.
    """
    # Nothing of the graphs but their outlines is written, so they are taken as they are, and not brought to the edge
    # dialect.
    manager = EdgeProgramManager(
        {name: _guard(graph.outline or graph.exported) for name, graph in graphs.items()},
        dict(words),
        EdgeCompileConfig(_check_ir_validity=False),
    )
    edge = manager.to_backend({name: Taker(program, graph.keep) for name, graph in graphs.items()})
    for name in graphs:
        remove_unused_parameters_pass(edge.exported_program(name))  # what one keep ratio needs and another does not
    return edge


def _guard(exported: ExportedProgram) -> ExportedProgram:
    """A program whose constants ExecuTorch may take out, as it does from the one it was given."""
    guarded = copy(exported)
    guarded._constants = dict(exported.constants)
    return guarded


def take_inlays(graphs: Mapping[str, Graph], program: bytes) -> dict[str, Partitioner]:
    """Make the partitioners that take bve::program for our core.

    By method name; each makes it the entry of the graph's keep ratio in the program.
    """
    return {name: Taker(program, graph.keep, exir_ops.edge.bve.program.default) for name, graph in graphs.items()}


class Taker(Partitioner):  # type: ignore[misc]
    """The partitioner that takes the graph, or one op of it.

    The delegate is the entry of a keep ratio in the program.
    """

    def __init__(self, program: bytes, keep: float | None, op: object = None) -> None:
        self.program, self.op = program, op
        self.keep = CompileSpec("keep", struct.pack("<f", keep or 0))

    def partition(self, exported: ExportedProgram) -> PartitionResult:
        for node in exported.graph.nodes:
            if node.op == "call_function" and self.op in (None, node.target):
                node.meta |= {TAG: BACKEND, BYTES: self.program}
        tag_constant_data(exported)
        return PartitionResult(exported, {BACKEND: DelegationSpec(BACKEND, [self.keep])})


class libbve_executorch(BackendDetails):  # type: ignore[misc]
    """The backend of ExecuTorch that our core is.

    ExecuTorch finds a backend by its class's name, and names that to who lacks the library.
    """

    @staticmethod
    def preprocess(exported: ExportedProgram, _: list[CompileSpec]) -> PreprocessResult:
        program: bytes = next(node.meta[BYTES] for node in exported.graph.nodes if BYTES in node.meta)
        key, store = f"bve.{sha256(program).hexdigest()}", NamedDataStore()
        store.add_named_data(key, program, ALIGNMENT)
        return PreprocessResult(key.encode(), data_store_output=store.get_named_data_store_output())
