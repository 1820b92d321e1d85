"""Linears as kernels_arm/kernels.h wants them (under 1): panels of 16 outputs, those beyond the last all zero."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

PANEL = 16
ALIGN = 64  # bytes that a panel starts on a multiple of

Floats = NDArray[np.float32]


def pack_float(weight: Floats, bias: Floats, dtype: type[np.float32] | type[np.float16] = np.float32) -> bytes:
    """Pack f32p or f16p: weight [n, k], bias [n].

    ValueError on a weight that the type cannot hold.
    """
    with np.errstate(over="ignore"):
        data = _pad(weight).astype(dtype)
    if not np.isfinite(data).all():
        raise ValueError(f"a weight of {np.abs(weight).max():g}; expected finite ones, at most {np.finfo(dtype).max:g}")
    panels = data.reshape(-1, PANEL, data.shape[1]).transpose(0, 2, 1)  # [panels, k, 16]
    return _join(_pad(bias), panels)


def pack_qc8(integers: NDArray[np.int8], scale: Floats, bias: Floats, kr: int) -> bytes:
    """Pack qc8p4 or qc8p8: integers [n, k], scale and bias [n]."""
    data = _pad(integers)
    sums = data.sum(1, dtype=np.int32)
    data = np.pad(data, ((0, 0), (0, -data.shape[1] % kr)))
    panels = data.reshape(-1, PANEL, data.shape[1] // kr, kr).transpose(0, 2, 1, 3)  # [panels, K/kr, 16, kr]
    return _join(_pad(scale), _pad(bias), sums, panels)


def _pad(values: NDArray[Any]) -> NDArray[Any]:
    return np.pad(values, ((0, -len(values) % PANEL), *[(0, 0)] * (values.ndim - 1)))


def _join(*parts: NDArray[np.generic]) -> bytes:
    """Heads [n] and data [panels, ...], panel by panel."""
    panels = len(parts[-1])
    joined = np.concatenate([np.ascontiguousarray(p).reshape(panels, -1).view(np.uint8) for p in parts], axis=1)
    return np.pad(joined, ((0, 0), (0, -joined.shape[1] % ALIGN))).tobytes()
