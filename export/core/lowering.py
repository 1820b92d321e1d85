"""The core's whole way: a graph's ops read, rewritten by each pass, and written as an entry of a program."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from weakref import WeakKeyDictionary

from torch.export import ExportedProgram

from bigvit_edge.entry_points import name_method
from bigvit_edge.errors import UserError, list_few
from bigvit_edge.export.core import ir
from bigvit_edge.export.core.emission import write_entry
from bigvit_edge.export.core.image_order import Disorder
from bigvit_edge.export.core.ir import Body, Op, Weights
from bigvit_edge.export.core.layout import are_together
from bigvit_edge.export.core.packing import Table, measure_inputs
from bigvit_edge.export.core.passes import FUSIONS, LAYOUTS
from bigvit_edge.export.core.readers import read_graph
from bigvit_edge.export.core.reading import Leftover
from bigvit_edge.export.graph import Graph, Piece
from bigvit_edge.export.program import Program

SHOWN = 4  # leftovers that an error names
FLOATS = ("fp32", "fp16")

# What each graph was read as, because refusals, every precision and every packing start from it.
_read: WeakKeyDictionary[ExportedProgram, dict[Piece | None, tuple[Body, list[Leftover]]]] = WeakKeyDictionary()


def lower_graphs(graphs: Sequence[Graph], kr: int, metadata: Mapping[str, str]) -> Program:
    """Lower one model's graphs to a program.

    An entry each, the largest keep ratio first. kr: of the int8 packing. UserError naming op, layer and reason if a
    graph has what no program can compute.
    """
    return write_program([(graph, None) for graph in graphs], Table(measure_inputs(graphs), kr), metadata)


def lower_parts(graphs: Sequence[Graph], kr: int, metadata: Mapping[str, str]) -> list[Program]:
    """Lower the pieces of one model's graphs.

    The first of each become the entries of one program, and so on.
    """
    moments, count = measure_inputs(graphs), max(len(graph.pieces) for graph in graphs)
    parts = [[(graph, graph.pieces[n]) for graph in graphs if n < len(graph.pieces)] for n in range(count)]
    return [write_program(some, Table(moments, kr), metadata) for some in parts]


def write_program(parts: Sequence[tuple[Graph, Piece | None]], table: Table, metadata: Mapping[str, str]) -> Program:
    """Write graphs, or pieces of them, as entries of a program."""
    precision, entries = parts[0][0].precision, []
    for graph, piece in sorted(parts, key=lambda part: -(part[0].keep or 0)):
        assert graph.core is not None
        body, leftovers = read_body(graph.core, graph.layers, "fp16" if precision == "fp16" else "fp32", piece)
        if leftovers:
            raise refuse(leftovers)
        name = "main" if graph.keep is None else name_method(graph.keep)
        if piece is None:
            names = *graph.inputs, *graph.outputs
            body.ports = [(said, shape) for said, (_, shape) in zip(names, body.ports, strict=True)]
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
    program: ExportedProgram, precisions: Mapping[str, str], rest: str = "fp32", piece: Piece | None = None
) -> tuple[Body, list[Leftover]]:
    """Read a graph or piece and rewrite it by every pass.

    Returns ops that all have kernels, and what is left over. precisions: of layers by name; rest: of the others.
    """
    known = _read.setdefault(program, {})
    if piece not in known:
        known[piece] = fuse(*read_graph(program, piece))
    body, leftovers = known[piece]
    if leftovers:
        return body, leftovers
    body = body.copy()
    found = choose_precisions(body, precisions, rest)
    try:
        for rewrite in LAYOUTS:
            rewrite(body)
    except Disorder as e:
        return body, [Leftover(e.op.node, e.op.layer, str(e))]
    found += [(op, reason) for op in body.ops if (reason := check(body, op))]
    return body, [Leftover(op.node, op.layer, reason) for op, reason in found]


def fuse(body: Body, leftovers: list[Leftover]) -> tuple[Body, list[Leftover]]:
    """Rewrite what was read by the passes that know no precision.

    Where there are leftovers nobody needs that.
    """
    for rewrite in FUSIONS if not leftovers else ():
        rewrite(body)
    return body, leftovers


def choose_precisions(body: Body, precisions: Mapping[str, str], rest: str) -> list[tuple[Op, str]]:
    """Give each Linear of the graph the precision of its layer.

    Returns routers that are to be in integers, with the reason against it.
    """

    def choose(weights: Weights) -> Weights:
        return replace(weights, precision=weights.precision or precisions.get(weights.layer, rest))

    refused = []
    for op in body.ops:
        kind = op.kind
        if isinstance(kind, ir.Linear):
            op.kind = replace(kind, weights=tuple(map(choose, kind.weights)))
        elif isinstance(kind, ir.Mlp):
            op.kind = replace(kind, fc1=choose(kind.fc1), fc2=choose(kind.fc2))
        elif isinstance(kind, ir.Route) and (how := precisions.get(kind.layer, rest)) not in FLOATS:
            refused.append((op, f"{kind.layer} in {how}; expected routers in float: keep router in quant.keep_float"))
    return refused


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
