"""Against PyTorch's own."""

from typing import Any

import pytest
import torch
from torch.nn.functional import fold as torch_fold
from torch.nn.functional import unfold as torch_unfold

from bigvit_edge.export.windows import fold, unfold, unfold_dimension

SHAPES = [  # kernel, dilation, padding, stride, size
    ((3, 3), (1, 1), (1, 1), (2, 2), (8, 8)),
    ((3, 3), (1, 1), (1, 1), (1, 1), (5, 7)),
    ((4, 4), (1, 1), (0, 0), (4, 4), (8, 12)),
    ((2, 3), (1, 1), (0, 1), (3, 2), (9, 6)),
    ((7, 7), (1, 1), (3, 3), (4, 4), (16, 16)),
    ((3, 1), (1, 1), (2, 0), (2, 5), (6, 11)),
    ((3, 3), (2, 3), (1, 2), (2, 1), (8, 9)),
    ((2, 2), (4, 1), (0, 0), (1, 3), (9, 9)),
]


def call(op: Any, *args: Any) -> Any:
    return op(*args)


@pytest.fixture(autouse=True)
def shapes_of_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bigvit_edge.export.windows.shape_of", lambda x: tuple(x.shape))


@pytest.mark.parametrize(("kernel", "dilation", "padding", "stride", "size"), SHAPES)
def test_windows_cut_out_and_laid_back(kernel: Any, dilation: Any, padding: Any, stride: Any, size: Any) -> None:
    x, options = torch.randn(2, 3, *size), (kernel, dilation, padding, stride)
    windows = torch_unfold(x, *options)
    assert torch.equal(unfold(call, x, *options), windows)
    torch.testing.assert_close(fold(call, windows, size, *options), torch_fold(windows, size, *options))


@pytest.mark.parametrize(("dim", "size", "step"), [(0, 2, 1), (1, 3, 2), (2, 4, 3), (-1, 7, 1), (1, 1, 2), (2, 2, 5)])
def test_windows_along_a_dimension(dim: int, size: int, step: int) -> None:
    x = torch.randn(2, 5, 7)
    assert torch.equal(unfold_dimension(call, x, dim, size, step), x.unfold(dim, size, step))
