"""A program's table of weights: what all its entries share, packed as each Linear's precision says."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from bigvit_edge.export.core.ir import Norm, Weights
from bigvit_edge.export.graph import Graph
from bigvit_edge.export.panels import pack_float, pack_qc8
from bigvit_edge.export.program import Weight, WeightType
from bigvit_edge.export.rounding import measure_moments, round_weight


def measure_inputs(graphs: Sequence[Graph]) -> dict[str, Tensor]:
    """Measure the moments of what the Linears in int8 see in calibration."""
    int8 = {layer for graph in graphs for layer, how in graph.layers.items() if how == "int8"}
    images = graphs[0].calibration
    return measure_moments(graphs, int8, images) if int8 and images is not None else {}


class Table:
    """The weights that all entries share, each under its name.

    moments: of what Linears see in calibration, which chooses their integers; kr: of the int8 packing.
    """

    def __init__(self, moments: Mapping[str, Tensor], kr: int) -> None:
        self.moments, self.kr = moments, kr
        self.weights: list[Weight] = []
        self.known: dict[str, list[tuple[list[Tensor], int]]] = {}  # by name, what was packed and its number

    def add_norm(self, norm: Norm) -> tuple[int, int]:
        """Add a norm's gain and offset."""
        return self.add_vector(f"{norm.layer}.gain", norm.gain), self.add_vector(f"{norm.layer}.offset", norm.offset)

    def add_vector(self, name: str, data: Tensor) -> int:
        """Add a vector of floats."""
        return self._add(name, [data], WeightType.VECTOR, 1, data.numel())

    def add_matrix(self, name: str, data: Tensor) -> int:
        """Add a matrix of floats."""
        return self._add(name, [data], WeightType.MATRIX, *data.shape)

    def add_linear(self, name: str, parts: Sequence[Weights]) -> int:
        """Add Linears of the same input and precision side by side."""
        sources = [t for part in parts for t in (part.weight, part.bias, part.factor) if t is not None]
        n, k = sum(part.weight.shape[0] for part in parts), parts[0].weight.shape[1]
        kind = {
            "fp32": WeightType.F32,
            "fp16": WeightType.F16,
            "int8": WeightType.QC8X4 if self.kr == 4 else WeightType.QC8X8,
        }[parts[0].precision]
        return self._add(name, sources, kind, n, k, parts)

    def _add(
        self, name: str, sources: list[Tensor], kind: WeightType, rows: int, columns: int, parts: Sequence[Weights] = ()
    ) -> int:
        """Under that name or, where something else has it, that name with a number."""
        same = self.known.setdefault(name, [])
        for known, number in same:
            if self.weights[number].type == kind and are_equal(known, sources):
                return number
        data = self._pack(kind, parts) if parts else sources[0].detach().float().contiguous().numpy().tobytes()
        number = len(self.weights)
        self.weights.append(Weight(f"{name}_{len(same)}" if same else name, kind, rows, columns, data))
        same.append((sources, number))
        return number

    def _pack(self, kind: WeightType, parts: Sequence[Weights]) -> bytes:
        sizes = [part.weight.shape[0] for part in parts]
        zeros = [torch.zeros(n) if part.bias is None else part.bias for part, n in zip(parts, sizes, strict=True)]
        ones = [torch.ones(n) if part.factor is None else part.factor for part, n in zip(parts, sizes, strict=True)]
        factor = torch.cat(ones).float()
        offset = (torch.cat(zeros).float() * factor).numpy()
        if kind in (WeightType.QC8X4, WeightType.QC8X8):
            rounded = [round_weight(part.weight, self.moments.get(part.layer)) for part in parts]
            integers, scale = (torch.cat(some) for some in zip(*rounded, strict=True))
            return pack_qc8(integers.numpy(), (scale * factor).numpy(), offset, self.kr)
        weight = torch.cat([part.weight for part in parts])  # [n, k]
        dtype = np.float16 if kind == WeightType.F16 else np.float32
        return pack_float((weight * factor.unsqueeze(1)).numpy(), offset, dtype)


def are_equal(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    """Tell whether tensors are the same, one by one."""
    return len(some) == len(others) and all(
        a.shape == b.shape and (a.data_ptr() == b.data_ptr() or torch.equal(a, b))
        for a, b in zip(some, others, strict=True)
    )
