"""Each op that XNNPACK refuses, in ops that it takes: the same numbers, before lowering and after."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

pytest.importorskip("executorch")

from bigvit_edge.artifact import write_data
from bigvit_edge.export.backends import executorch
from bigvit_edge.export.backends.executorch.simplify import simplify
from bigvit_edge.export.graph import Graph
from bigvit_edge.export.rewrite import rewrite_all
from bigvit_edge.target import Target

Op = Callable[[Tensor], Tensor]

WEIGHT = torch.linspace(0.5, 2, 8)
X = torch.randn(1, 8, 4, 6, generator=torch.Generator().manual_seed(1))

OPS: dict[str, Op] = {
    "gelu by tanh": lambda x: F.gelu(x * 3, approximate="tanh"),
    "group norm": lambda x: F.group_norm(x + 2, 4, WEIGHT, -WEIGHT),
    "group norm without weights": lambda x: F.group_norm(x, 1),
    "mean of tokens": lambda x: x.flatten(2).transpose(1, 2).mean(1),
    "mean of channels and rows": lambda x: x.mean((1, -2), keepdim=True),
    "mean of pixels, channels last": lambda x: x.permute(0, 2, 3, 1).mean((1, 2)),
    "sum": lambda x: x.sum(-1, keepdim=True),
    "length of channels": lambda x: F.normalize(x, dim=1),
    "squares and roots": lambda x: (x**2.0) * 2 + x.abs() ** 0.5 + (x.abs() + 1) ** -0.5 + x**3,
    "hard activations": lambda x: F.hardsigmoid(x * 4) + F.hardswish(x * 4),
    "softmax of channels": lambda x: x.softmax(1),
    "softmax of rows behind a convolution": lambda x: x.softmax(-1),
    "nearest": lambda x: F.interpolate(x, scale_factor=2.0) + F.interpolate(x, size=(8, 12)) ** 2,
    "bilinear": lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear"),
    "bilinear by corners": lambda x: F.interpolate(x, size=(7, 9), mode="bilinear", align_corners=True),
    "product": lambda x: x @ x.transpose(2, 3),
    "product of a batch with one": lambda x: x @ x[:, :1].transpose(2, 3),
    "product of a matrix with a batch": lambda x: x[0, 0] @ x.transpose(2, 3),
    "attention of heads that share keys": lambda x: F.scaled_dot_product_attention(
        x, x[:, :1], x[:, 1:2], x[0, 0, 0, :4]
    ),
    "largest of rows": lambda x: x.amax(2) - x.amax(-1, keepdim=True).mean(2),
    "unbind": lambda x: torch.cat(x.reshape(1, 2, 4, 4, 6).permute(1, 0, 2, 3, 4).exp().unbind(0), 1),
    "selects": lambda x: x[:, -1] * x[:, 0] - x[..., 2].unsqueeze(-1).mean(),
    "roll": lambda x: torch.roll(x, (1, -2, 4), (2, 3, -2)),
    "expand before a cat": lambda x: torch.cat([x[:, :1].expand(-1, 8, -1, -1), x], 1),
    "expand before a sum": lambda x: x[:, :1].expand(-1, 8, -1, -1) + x,
    "expand that adds dimensions": lambda x: x[0].expand(3, 8, 4, 6).exp(),
    "every other": lambda x: x[:, :, ::2, 1::2].exp(),
    "every third, not even": lambda x: x[:, 1::3] * 2,
    "max pooling": lambda x: F.max_pool2d(x, 2) + F.max_pool2d(x, 3, 2, 1),
    "average of whole windows": lambda x: F.avg_pool2d(x, 2, 2, ceil_mode=True, count_include_pad=False),
    "average past the edges": lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
    "average past the edges, of what is there": lambda x: F.avg_pool2d(x, 3, 2, 1, True, count_include_pad=False),
    "average by another divisor": lambda x: F.avg_pool2d(x, (2, 3), divisor_override=4),
    "average of tokens": lambda x: F.avg_pool1d(x.flatten(2), 4, 3),
    "dimensions of one": lambda x: x.unsqueeze(1).squeeze(0).unsqueeze(2).exp().squeeze(),
}


class Model(nn.Module):
    def __init__(self, op: Op) -> None:
        super().__init__()
        self.op = op

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class All(nn.Module):
    """Every op, each behind the same convolution."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return torch.cat([op(x).flatten() for op in OPS.values()])


@pytest.mark.parametrize("name", OPS)
def test_same_numbers(name: str) -> None:
    model = Model(OPS[name])
    program = simplify(rewrite_all(torch.export.export(model, (X,), strict=False)))
    torch.testing.assert_close(program.module()(X), model(X), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("precision", "atol"), [("fp32", 1e-5), ("fp16", 2e-2)])
def test_all_in_one_delegate(precision: str, atol: float, tmp_path: Path) -> None:
    model = All().eval()
    graph = Graph(rewrite_all(torch.export.export(model, (X,))), precision)
    artifact = executorch.lower([graph], Target("test", "", ("executorch",)), {})
    (method,) = artifact.methods
    assert (method.leftovers, method.delegates) == ((), 1)
    write_data(artifact.data, tmp_path / "model.pte")
    answer = torch.from_numpy(executorch.load(tmp_path / "model.pte")(X.numpy()))
    torch.testing.assert_close(answer, model(X).detach(), atol=atol, rtol=atol)
