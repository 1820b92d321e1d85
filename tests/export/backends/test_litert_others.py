"""What LiteRT's converter or XNNPACK would not take of models of others: as PyTorch, in one piece where that can be."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention as attend

from bigvit_edge.artifact import Artifact
from bigvit_edge.export.backends import litert
from bigvit_edge.export.convert import capture, lower, rewrite
from bigvit_edge.target import load_target


class Tokens(nn.Module):
    """16 tokens of 32 channels through a body, which has a Linear of its own."""

    def __init__(self, body: Callable[["Tokens", Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.patches, self.head, self.body = nn.Conv2d(3, 32, 4, 4), nn.Linear(32, 5), body
        self.linear = nn.Linear(32, 64)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.body(self, self.patches(image).flatten(2).transpose(1, 2)).mean(1))  # type: ignore[no-any-return]


def export(model: nn.Module, file: Path) -> Artifact:
    """The file, after its answer was compared."""
    artifact = lower([rewrite(capture(model.eval(), 16))], "litert", load_target("host"), {})
    file.write_bytes(bytes(artifact.data))  # type: ignore[arg-type]
    image = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        np.testing.assert_allclose(litert.load(file)(image.numpy()), model(image).numpy(), atol=1e-4)
    return artifact


def one_head(m: Tokens, x: Tensor) -> Tensor:
    keys, values = m.linear(x).chunk(2, -1)
    return attend(x, keys, values)


def shared_keys(m: Tokens, x: Tensor) -> Tensor:
    queries = x.reshape(1, 16, 4, 8).transpose(1, 2)
    keys, values = m.linear(x)[:, None, :, :8], m.linear(x)[:, None, :, 8:16]
    weights = (queries @ keys.transpose(-2, -1) * 0.2).softmax(-1)
    return (weights @ values).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("body", [one_head, shared_keys])
def test_products_of_attention_are_not_left_outside(body: Callable[[Tokens, Tensor], Tensor], tmp_path: Path) -> None:
    (method,) = export(Tokens(body), tmp_path / "model.tflite").methods
    assert (method.delegates, method.leftovers) == (1, ())


def scatters(m: Tokens, x: Tensor) -> Tensor:
    kept = x[..., 0].topk(5).indices
    rest = torch.ones_like(x[..., 0]).scatter(1, kept, 0.0)
    rows = kept[..., None].expand(-1, -1, 32)
    merged = x.scatter_reduce(1, rows, x[:, :5] * 2, reduce="mean")
    return torch.cat([merged, (x * rest[..., None]).sum(1, keepdim=True)], 1)


def writes(m: Tokens, x: Tensor) -> Tensor:
    x = x.clone()
    x[:, [1, 5, 7]] = x[:, [1, 5, 7]] * 2 + 1
    x[:, ::3] = 0
    return x


def sorts(m: Tokens, x: Tensor) -> Tensor:
    order = x.sum(-1).argsort(dim=1, stable=True)
    return x.gather(1, order[..., None].expand(-1, -1, 32)).cumsum(1) * 0.1


def medians(m: Tokens, x: Tensor) -> Tensor:
    return x - x.median(1, keepdim=True).values


def largest(m: Tokens, x: Tensor) -> Tensor:
    return torch.cat([x.topk(3, 1, largest=False).values, x.topk(7, dim=-2).values, x[0].topk(32).values[None]], 1)


def diagonals(m: Tokens, x: Tensor) -> Tensor:
    a = x @ x.transpose(1, 2)
    return x * (torch.einsum("bii->bi", a) + torch.diagonal(a, dim1=1, dim2=2)).tanh()[..., None]


@pytest.mark.parametrize("body", [scatters, writes, sorts, medians, largest, diagonals])
def test_ops_that_the_interpreter_lacks(body: Callable[[Tokens, Tensor], Tensor], tmp_path: Path) -> None:
    export(Tokens(body), tmp_path / "model.tflite")


def test_copies_that_are_turned(tmp_path: Path) -> None:
    """As relative positions are: the converter made a broadcast of them, and lost the permute."""

    def body(m: Tokens, x: Tensor) -> Tensor:
        return x.reshape(1, 4, 1, 4, 32).expand(-1, -1, 4, -1, -1).permute(0, 3, 2, 1, 4).reshape(1, 64, 32).cumsum(1)

    export(Tokens(body), tmp_path / "m.tflite")
