"""A scheduled body as an entry of a program: its ops, numbered weights and buffers, and its arithmetic."""

from collections.abc import Callable, Mapping
from typing import Any

from bigvit_edge.export import program
from bigvit_edge.export.core import ir
from bigvit_edge.export.core.ir import Body, Op, RowSet, Value, count_rows
from bigvit_edge.export.core.layout import name_parent
from bigvit_edge.export.core.packing import Table
from bigvit_edge.export.core.schedule import plan_buffers, schedule_ops
from bigvit_edge.macs import count_attention, count_linear

TYPES = {"fp32": program.Type.F32, "fp16": program.Type.F16, "int8": program.Type.QD8}


class Writer:
    """Writes ops as calls of kernels. attention: what it computes in."""

    def __init__(self, table: Table, buffers: Mapping[Value, int], attention: program.Type) -> None:
        self.table, self.buffers, self.attention = table, buffers, attention

    def write(self, op: Op) -> program.Call:
        return WRITERS[type(op.kind)](self, op, op.kind)

    def list_of(self, rows: RowSet) -> int | None:
        return None if rows.list is None else self.buffers[rows.list]

    def gate(self, op: Op) -> int | None:
        return self.buffers[op.reads["gate"][0].value] if "gate" in op.reads else None


def write_patches(to: Writer, op: Op, kind: ir.Patches) -> program.Call:
    return program.Patches(to.buffers[op.reads["src"][0].value], to.buffers[op.view.value], kind.side)


def write_fill(to: Writer, op: Op, kind: ir.Fill) -> program.Call:
    return program.Fill(to.table.add_matrix(kind.name, kind.data), to.buffers[op.view.value])


def write_list(to: Writer, op: Op, kind: ir.List) -> program.Call:
    return program.List(to.buffers[op.view.value], kind.row)


def write_linear(to: Writer, op: Op, kind: ir.Linear) -> program.Call:
    (src,), dst = op.reads["src"], op.view
    before, gain, offset, epsilon = program.Before.AS_IS, None, None, program.EPSILON
    if isinstance(kind.before, ir.Norm):
        before, (gain, offset) = program.Before.LAYERNORM, to.table.add_norm(kind.before)
        epsilon = kind.before.epsilon
    elif isinstance(kind.before, ir.Gelu):
        before = program.Before.GELU
    return program.Linear(
        to.buffers[src.value], to.list_of(src.rows), src.rows.count, before, gain, offset,
        to.table.add_linear(op.layer, kind.weights), kind.first, kind.columns,
        to.buffers[dst.value], dst.rows.first, dst.first_column, to.list_of(dst.rows), to.gate(op),
        int(kind.accumulates), epsilon,
    )  # fmt: skip


def write_attention(to: Writer, op: Op, kind: ir.Attention) -> program.Call:
    (src,) = op.reads["src"]
    return program.Attention(
        to.buffers[src.value], src.rows.count, kind.heads, to.buffers[op.view.value], to.attention
    )  # fmt: skip


def write_route(to: Writer, op: Op, kind: ir.Route) -> program.Call:
    router = name_parent(kind.layer)
    weight = to.table.add_vector(f"{router}.weight", kind.weight)
    bias = to.table.add_vector(f"{router}.bias", kind.bias)
    selected, gate = (to.buffers[op.writes[name].value] for name in ("selected", "gate"))
    skipped = to.buffers[op.writes["skipped"].value] if "skipped" in op.writes else None
    src, norm = to.buffers[op.reads["src"][0].value], to.table.add_norm(kind.norm)
    return program.Route(src, *norm, weight, bias, kind.k, selected, skipped, gate, kind.norm.epsilon)


def write_mlp(to: Writer, op: Op, kind: ir.Mlp) -> program.Call:
    rows, norm = op.view.rows, to.table.add_norm(kind.norm)
    fc1, fc2 = (to.table.add_linear(weights.layer, (weights,)) for weights in (kind.fc1, kind.fc2))
    data, epsilon = to.buffers[op.view.value], kind.norm.epsilon
    return program.Mlp(data, to.list_of(rows), rows.count, *norm, fc1, fc2, to.gate(op), epsilon)


WRITERS: dict[type, Callable[[Writer, Op, Any], program.Call]] = {
    ir.Patches: write_patches,
    ir.Fill: write_fill,
    ir.List: write_list,
    ir.Linear: write_linear,
    ir.Attention: write_attention,
    ir.Route: write_route,
    ir.Mlp: write_mlp,
}


def count_macs(op: Op) -> int:
    """Count an op's multiply-accumulates."""
    kind = op.kind
    if isinstance(kind, ir.Linear):
        return count_linear((op.view.rows.count, kind.columns), kind.weights[0].weight.shape[1])
    if isinstance(kind, ir.Mlp):
        return sum(count_linear((op.view.rows.count, len(w)), w.shape[1]) for w in (kind.fc1.weight, kind.fc2.weight))
    if isinstance(kind, ir.Attention):
        (src,) = op.reads["src"]
        return count_attention((src.rows.count, src.columns), count_rows(op.reads["key"]), src.columns)
    if isinstance(kind, ir.Route):
        return count_linear((count_rows(op.reads["src"]), 1), kind.weight.numel())
    return 0


def write_entry(body: Body, table: Table, precision: str, name: str, keep: float | None) -> program.Entry:
    """Write a body whose ops all have kernels as an entry."""
    steps = schedule_ops(body)
    buffers, shapes = plan_buffers(body, steps)
    writer = Writer(table, buffers, TYPES[precision])
    ops = tuple(program.Op(writer.write(step.op), step.op.layer, step.stage, step.lane) for step in steps)
    macs = sum(count_macs(op) for op in body.ops)
    described = tuple(program.Buffer(value.type, value.rows, value.columns) for value in shapes)
    inputs = len(body.inputs)
    ports = tuple(program.Port(said, n, n >= inputs, shape) for n, (said, shape) in enumerate(body.ports))
    return program.Entry(name, keep, ports, macs, described, ops)
