"""A program's parts as an emitter puts them together: the table of weights, and an entry's buffers and ops."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bigvit_edge.errors import UserError
from bigvit_edge.export.graph import Graph
from bigvit_edge.export.panels import PANEL, pack_float, pack_qc8
from bigvit_edge.export.program import (
    Attention,
    Before,
    Buffer,
    BufferType,
    Call,
    Linear,
    Mlp,
    Op,
    Type,
    Weight,
    WeightType,
)
from bigvit_edge.export.rounding import measure_moments, round_weight
from bigvit_edge.models.vit import MLP

BIG, LITTLE = 0, 1  # lanes
TYPES = {"fp32": Type.F32, "fp16": Type.F16, "int8": Type.QD8}


@dataclass(frozen=True)
class Rows:
    """The rows of a buffer that an op takes.

    They are those of a row list, or the `count` from `first` on.
    """

    count: int
    list: int | None = None
    first: int = 0


@dataclass(frozen=True)
class Place:
    """The place where a Linear reads or writes.

    It is rows of a buffer, from a column on.
    """

    buffer: int
    rows: Rows
    column: int = 0


class Table:
    """The weights that all entries share, each under its name.

    They are packed as their Linear's precision says.
    """

    def __init__(self, graphs: Sequence[Graph], kr: int) -> None:
        self.precision = graphs[0].precision
        self.layers = {layer: how for graph in graphs for layer, how in graph.layers.items()}
        self.kr = kr
        int8, images = [layer for layer, how in self.layers.items() if how == "int8"], graphs[0].calibration
        self.moments = measure_moments(graphs, int8, images) if int8 and images is not None else {}
        self.weights: list[Weight] = []
        self.numbers: dict[str, int] = {}

    def add_vector(self, name: str, data: Tensor) -> int:
        return self._add(name, WeightType.VECTOR, 1, data.numel(), data)

    def add_matrix(self, name: str, data: Tensor) -> int:
        rows, columns = data.shape
        return self._add(name, WeightType.MATRIX, rows, columns, data)

    def add_linear(self, name: str, linears: Mapping[str, nn.Linear], factor: Tensor | None = None) -> int:
        """Add Linears of the same input side by side.

        linears: by their layers' names; each output is multiplied by its factor.
        """
        if name in self.numbers:
            return self.numbers[name]
        weight = torch.cat([linear.weight.detach() for linear in linears.values()]).float()  # [n, k]
        bias = torch.cat([linear.bias.detach() for linear in linears.values()]).float()
        factor = torch.ones_like(bias) if factor is None else factor.detach().float()
        offset = (bias * factor).numpy()
        how = self.find_precision(linears)
        if how == "int8":
            rounded = [
                round_weight(linear.weight.detach().float(), self.moments.get(layer))
                for layer, linear in linears.items()
            ]
            integers, scale = (torch.cat(parts) for parts in zip(*rounded, strict=True))
            packed = pack_qc8(integers.numpy(), (scale * factor).numpy(), offset, self.kr)
            kind = WeightType.QC8X4 if self.kr == 4 else WeightType.QC8X8
        else:
            half = how == "fp16"
            packed = pack_float((weight * factor.unsqueeze(1)).numpy(), offset, np.float16 if half else np.float32)
            kind = WeightType.F16 if half else WeightType.F32
        n, k = weight.shape
        return self._put(Weight(name, kind, n, k, packed))

    def find_precision(self, layers: Iterable[str]) -> str:
        """Find the precision of Linears that are computed as one.

        UserError if they differ in it.
        """
        if self.precision == "fp16":
            return "fp16"
        found = {layer: self.layers.get(layer, "fp32") for layer in layers}
        if len(set(found.values())) > 1:
            met = ", ".join(f"{layer} in {how}" for layer, how in found.items())
            raise UserError(met, "all in the same: bve computes them as one", "change quant.keep_float")
        return next(iter(found.values()))

    def _add(self, name: str, kind: WeightType, rows: int, columns: int, data: Tensor) -> int:
        if name in self.numbers:
            return self.numbers[name]
        return self._put(Weight(name, kind, rows, columns, data.detach().float().contiguous().numpy().tobytes()))

    def _put(self, weight: Weight) -> int:
        self.numbers[weight.name] = len(self.weights)
        self.weights.append(weight)
        return self.numbers[weight.name]


class Assembler:
    """An entry being written; ops go to the current stage."""

    def __init__(self, table: Table, size: int, classes: int) -> None:
        self.table, self.size = table, size
        self.buffers = [Buffer(BufferType.F32, 3 * size, size), Buffer(BufferType.F32, 1, classes)]
        self.ops: list[Op] = []
        self.stage = self.macs = 0

    def add_buffer(self, rows: int, columns: int, kind: BufferType = BufferType.F32) -> int:
        self.buffers.append(Buffer(kind, rows, columns))
        return len(self.buffers) - 1

    def add_norm(self, name: str, norm: nn.LayerNorm) -> tuple[int, int]:
        """Add a norm's gain and offset to the table."""
        return self.table.add_vector(f"{name}.gain", norm.weight), self.table.add_vector(f"{name}.offset", norm.bias)

    def add(self, name: str, call: Call, lane: int = BIG) -> None:
        self.ops.append(Op(call, name, self.stage, lane))

    def add_linear(
        self, name: str, weight: int, src: Place, dst: Place, *, norm: tuple[int, int] | None = None,
        outputs: slice | None = None, accumulate: bool = False, lane: int = BIG,
    ) -> None:  # fmt: skip
        """Add the op dst (+)= src times the weight's outputs.

        It takes all outputs if not told which.
        """
        packed = self.table.weights[weight]
        first, end, _ = (outputs or slice(None)).indices(packed.rows)
        assert first % PANEL == 0
        assert src.rows.count == dst.rows.count
        assert src.rows.first == src.column == 0
        before, (gain, offset) = (Before.LAYERNORM, norm) if norm else (Before.AS_IS, (None, None))
        self.macs += src.rows.count * packed.columns * (end - first)
        self.add(name, Linear(
            src.buffer, src.rows.list, src.rows.count, before, gain, offset, weight, first, end - first,
            dst.buffer, dst.rows.first, dst.column, dst.rows.list, None, int(accumulate),
        ), lane)  # fmt: skip

    def add_attention(self, name: str, qkv: int, queries: int, heads: int, dst: int, lane: int = BIG) -> None:
        """Add an attention whose keys and values are all rows of qkv."""
        buffer = self.buffers[qkv]
        self.macs += queries * buffer.rows * 2 * (buffer.columns // 3)
        self.add(name, Attention(qkv, queries, heads, dst, TYPES[self.table.precision]), lane)

    def add_mlp(
        self, name: str, data: int, rows: Rows, norm: tuple[int, int], mlp: MLP, gate: int | None = None,
        lane: int = BIG,
    ) -> None:  # fmt: skip
        linears = {f"{name}.fc1": mlp.fc1, f"{name}.fc2": mlp.fc2}
        fc1, fc2 = (self.table.add_linear(layer, {layer: linear}) for layer, linear in linears.items())
        self.macs += rows.count * (mlp.fc1.weight.numel() + mlp.fc2.weight.numel())
        self.add(name, Mlp(data, rows.list, rows.count, *norm, fc1, fc2, gate), lane)
