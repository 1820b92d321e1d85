"""Packed Linears against kernels_arm/kernels.h, byte by byte."""

import struct

import numpy as np
import pytest

from bigvit_edge.export.panels import pack_float, pack_qc8

RANDOM = np.random.default_rng(0)
SHAPES = [(16, 8), (1, 1), (17, 5), (40, 33)]


@pytest.mark.parametrize(("n", "k"), SHAPES)
@pytest.mark.parametrize(("dtype", "letter"), [(np.float32, "f"), (np.float16, "e")])
def test_float_panels(n: int, k: int, dtype: type[np.float32] | type[np.float16], letter: str) -> None:
    weight, bias = RANDOM.standard_normal((n, k), np.float32), RANDOM.standard_normal(n, np.float32)
    data, width = pack_float(weight, bias, dtype), np.dtype(dtype).itemsize
    stride = (64 + k * 16 * width + 63) // 64 * 64
    assert len(data) == -(-n // 16) * stride
    for j in range(-(-n // 16) * 16):
        panel, column = j // 16 * stride, j % 16
        assert struct.unpack_from("<f", data, panel + 4 * column) == ((bias[j],) if j < n else (0,))
        for i in range(k):
            (found,) = struct.unpack_from(f"<{letter}", data, panel + 64 + (i * 16 + column) * width)
            assert found == (dtype(weight[j, i]) if j < n else 0)


@pytest.mark.parametrize(("n", "k"), SHAPES)
@pytest.mark.parametrize("kr", [4, 8])
def test_int8_panels(n: int, k: int, kr: int) -> None:
    integers = RANDOM.integers(-127, 128, (n, k)).astype(np.int8)
    scale, bias = RANDOM.random(n, np.float32), RANDOM.standard_normal(n, np.float32)
    data, depth = pack_qc8(integers, scale, bias, kr), -(-k // kr) * kr
    stride = (3 * 64 + depth * 16 + 63) // 64 * 64
    assert len(data) == -(-n // 16) * stride
    for j in range(-(-n // 16) * 16):
        panel, column = j // 16 * stride, j % 16
        head = [struct.unpack_from(f"<{t}", data, panel + 64 * h + 4 * column)[0] for h, t in enumerate("ffi")]
        assert head == ([scale[j], bias[j], sum(map(int, integers[j]))] if j < n else [0, 0, 0])
        for i in range(depth):
            at = panel + 192 + (i // kr * 16 + column) * kr + i % kr
            assert struct.unpack_from("<b", data, at)[0] == (integers[j, i] if j < n and i < k else 0)


def test_a_weight_beyond_half_is_refused() -> None:
    weight = np.full((1, 2), 7e4, np.float32)
    assert pack_float(weight, np.zeros(1, np.float32))
    with pytest.raises(ValueError, match=r"a weight of 70000; expected finite ones, at most 65504"):
        pack_float(weight, np.zeros(1, np.float32), np.float16)
