"""The core's whole way: a graph's ops read, rewritten by each pass, and written as an entry of a program."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from torch.export import ExportedProgram

from bigvit_edge.entry_points import name_method
from bigvit_edge.errors import UserError, list_few
from bigvit_edge.export.core import ir
from bigvit_edge.export.core.emission import write_entry
from bigvit_edge.export.core.image_order import Disorder
from bigvit_edge.export.core.ir import Body, Op
from bigvit_edge.export.core.layout import are_together
from bigvit_edge.export.core.packing import Table
from bigvit_edge.export.core.passes import PASSES
from bigvit_edge.export.core.readers import read_graph
from bigvit_edge.export.core.reading import Leftover
from bigvit_edge.export.graph import Graph
from bigvit_edge.export.program import Program

SHOWN = 4  # leftovers that an error names


def lower_graphs(graphs: Sequence[Graph], kr: int, metadata: Mapping[str, str]) -> Program:
    """Lower one model's graphs to a program.

    An entry each, the largest keep ratio first. kr: of the int8 packing. UserError naming op, layer and reason if a
    graph has what no program can compute.
    """
    table, precision, entries = Table(graphs, kr), graphs[0].precision, []
    for graph in sorted(graphs, key=lambda graph: -(graph.keep or 0)):
        assert graph.core is not None
        body, leftovers = read_body(graph.core, graph.layers, "fp16" if precision == "fp16" else "fp32")
        if leftovers:
            raise refuse(leftovers)
        name = "main" if graph.keep is None else name_method(graph.keep)
        entries.append(write_entry(body, table, precision, name, graph.keep))
    return Program(precision, tuple(table.weights), tuple(entries), metadata)


def refuse(leftovers: Sequence[Leftover]) -> UserError:
    """Make the error of what no program can compute."""
    do = "write it in others, or add --set delegate=xnnpack"
    return UserError(describe_leftovers(leftovers), "ops that the bve runtime has", do)


def describe_leftovers(leftovers: Sequence[Leftover]) -> str:
    """Describe the first leftovers, each as its op, layer and reason."""
    return list_few([str(leftover) for leftover in leftovers], SHOWN, by="; ")


def read_body(
    program: ExportedProgram, precisions: Mapping[str, str], rest: str = "fp32"
) -> tuple[Body, list[Leftover]]:
    """Read a graph and rewrite it by every pass.

    Returns ops that all have kernels, and what is left over. precisions: of layers by name; rest: of the others.
    """
    body, leftovers = read_graph(program, precisions, rest)
    if leftovers:
        return body, leftovers
    try:
        for rewrite in PASSES:
            rewrite(body)
    except Disorder as e:
        return body, [Leftover(e.op.node, e.op.layer, str(e))]
    found = [(op, check(body, op)) for op in body.ops]
    return body, [Leftover(op.node, op.layer, reason) for op, reason in found if reason]


def list_leftovers(program: ExportedProgram) -> list[Leftover]:
    """List what of a graph no program can compute."""
    return read_body(program, {})[1]


# ---- what a kernel asks of the op that it computes -------------------------------------------------------------------


def check(body: Body, op: Op) -> str:
    """Say what keeps an op from having a kernel.

    '' if nothing does.
    """
    reads = [view for views in op.reads.values() for view in views]
    if any(len(views) != 1 for views in op.reads.values()):
        return "it reads rows of several values as one"
    if any(view.value.data is not None for view in reads):
        return "it reads a constant, where bve has weights alone"
    if not isinstance(op.kind, ir.Patches) and any(view.value is body.image for view in reads):
        return "it reads the image, of which bve makes patches alone"
    reason = CHECKS.get(type(op.kind))
    return reason(op) if reason else ""


def check_linear(op: Op) -> str:
    (src,) = op.reads["src"]
    if (src.first_column, src.columns) != (0, src.value.columns):
        return "it reads some of the columns of what it is given"
    if src.rows.list is None and src.rows.first:
        return f"it reads rows from {src.rows.first} on"
    return ""


def check_attention(op: Op) -> str:
    (src,), (key,), (value,) = (op.reads[name] for name in ("src", "key", "value"))
    shape = ir.Value(key.rows.count, 3 * src.columns)
    if not are_together([(src,), (key,), (value,)], shape):
        return "its queries, keys and values are not what Linears of as many columns give it alone"
    assert isinstance(op.kind, ir.Attention)
    return "" if op.kind.scale == 1 else "its scale cannot be folded into what makes its queries"


def check_mlp(op: Op) -> str:
    view, columns = op.view, op.view.value.columns
    if (view,) != op.reads["src"]:
        return "what it adds to is read again, as it was before"
    if (view.first_column, view.columns) != (0, columns) or (view.rows.list is None and view.rows.first):
        return "it adds to some rows or columns of what it is given"
    return ""


def never(reason: str, op: Op) -> str:
    return reason


CHECKS: dict[type, Callable[[Op], str]] = {
    ir.Linear: check_linear,
    ir.Attention: check_attention,
    ir.Mlp: check_mlp,
    ir.Scale: partial(never, "a factor of what no Linear gives it alone"),
    ir.Gate: partial(never, "a factor of rows that are not then added to others"),
    ir.Add: partial(never, "a sum of what no Linear gives it alone, or of what is read again as it was before"),
    ir.Scores: partial(never, "a product of two computed values outside attention"),
    ir.Softmax: partial(never, "a softmax outside attention"),
    ir.Mix: partial(never, "a product of two computed values outside attention"),
}
