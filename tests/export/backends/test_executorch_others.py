"""Models that are not ours: convolutions, pooling, batch norm, attention as PyTorch writes it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

pytest.importorskip("executorch")

from bigvit_edge.artifact import Method, write_data
from bigvit_edge.export.backends import executorch
from bigvit_edge.export.backends.executorch.partition import NO_RULE
from bigvit_edge.export.graph import Graph
from bigvit_edge.export.rewrite import rewrite_all
from bigvit_edge.target import Target

TARGET = Target("test", "", ("executorch",))


def check(
    model: nn.Module, images: Tensor, folder: Path, precision: str = "fp32", atol: float = 1e-5, *layers: str
) -> Method:
    """Lower it, layers in int8, compare the answer with PyTorch's, and say what became of it."""
    exported = rewrite_all(torch.export.export(model.eval(), (images,)))
    artifact = executorch.lower([Graph(exported, precision, dict.fromkeys(layers, "int8"))], TARGET, {})
    write_data(artifact.data, folder / "model.pte")
    with torch.no_grad():
        expected = model(images)
    answer = torch.from_numpy(executorch.load(folder / "model.pte")(images.numpy()))
    assert torch.allclose(answer, expected, atol=atol)
    (method,) = artifact.methods
    return method


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


class Stem(nn.Module):
    """Convolutions that are no patch embedding, and what stands between them: they need XNNPACK's passes for
    channels-last and batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.head = nn.Linear(8, 5)
        for name, value in (("running_mean", 0.3), ("running_var", 2.0)):
            getattr(self.norm, name).fill_(value)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.norm(self.conv(x)))
        x = F.gelu(self.depthwise(x)) * x.mean((2, 3), keepdim=True).sigmoid()
        return self.head(F.avg_pool2d(x, 2).flatten(2).transpose(1, 2))  # type: ignore[no-any-return]


@pytest.mark.parametrize(("precision", "atol"), [("fp32", 1e-6), ("fp16", 1e-3)])
def test_convolutions(precision: str, atol: float, tmp_path: Path) -> None:
    torch.manual_seed(0)
    method = check(Stem(), draw(1, 3, 8, 8), tmp_path, precision, atol)
    assert (method.leftovers, method.delegates) == ((), 1)
    assert method.fragments == {"conv": 1, "depthwise": 1, "head": 1}  # the norm is folded into its convolution


class Pool(nn.Module):
    def __init__(self, **options: object) -> None:
        super().__init__()
        self.pool, self.conv = nn.AvgPool2d(**options), nn.Conv2d(3, 4, 1)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.pool(x)).mean((2, 3))  # type: ignore[no-any-return]


POOLS = [
    dict(kernel_size=2),
    dict(kernel_size=3, stride=2, padding=1),
    dict(kernel_size=(3, 5), stride=1, padding=(1, 2)),
    dict(kernel_size=3, stride=2, padding=1, count_include_pad=False),
]


@pytest.mark.parametrize("options", POOLS)
def test_pooling(options: dict[str, object], tmp_path: Path) -> None:
    torch.manual_seed(0)
    method = check(Pool(**options), draw(1, 3, 8, 8), tmp_path)
    assert (method.delegates, method.leftovers) == (1, ())


def test_pooling_that_stays_outside_says_why(tmp_path: Path) -> None:
    class Strided(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.max_pool2d(x, 1, 2).exp()

    (found,) = check(Strided(), draw(1, 3, 8, 8), tmp_path).leftovers
    assert (found.op, found.reason) == ("aten.max_pool2d_with_indices.default", NO_RULE)


class Attention(nn.Module):
    """Windows of tokens, as in MaxViT: four dimensions, queries, keys and values from one Linear, a bias for places."""

    def __init__(self, masked: bool, scale: float | None) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(16, 48), nn.Linear(16, 16)
        self.bias = nn.Parameter(torch.randn(1, 2, 5, 5)) if masked else None
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.view(-1, 5, 2, 8).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))  # [B, 2, 5, 8]
        x = F.scaled_dot_product_attention(q, k, v, self.bias, scale=self.scale)
        return self.proj(x.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


@pytest.mark.parametrize(("masked", "scale"), [(False, None), (True, None), (True, 0.1)])
def test_attention_is_one_delegate(masked: bool, scale: float | None, tmp_path: Path) -> None:
    torch.manual_seed(0)
    method = check(Attention(masked, scale), draw(3, 5, 16), tmp_path)
    assert (method.delegates, method.leftovers) == (1, ())


class Causal(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x, x, is_causal=True)


def test_attention_with_more_to_it_is_right_all_the_same(tmp_path: Path) -> None:
    method = check(Causal(), draw(1, 2, 5, 8), tmp_path)
    assert "XNNPACK's partitioner has no rule for it" in {leftover.reason for leftover in method.leftovers}


class Chunks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        a, b, c = x.chunk(3, 2)  # 4 + 4 + 2
        return torch.cat([c, b.exp(), a], 2)


def test_unequal_chunks(tmp_path: Path) -> None:
    method = check(Chunks(), draw(1, 3, 10), tmp_path)
    assert (method.delegates, method.leftovers) == (1, ())


class Gains(nn.Module):
    """Constants computed beforehand once for all formats and once more for XNNPACK, and what is written in place in
    front of attention."""

    def __init__(self) -> None:
        super().__init__()
        self.gains = nn.ParameterList(torch.rand(3) + 0.5 for _ in range(3))
        self.conv, self.qkv = nn.Conv2d(3, 8, 2, 2), nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        for gain in self.gains:
            x = x * gain.view(1, 3, 1, 1)
        x = F.relu_(self.conv(x)).flatten(2).transpose(1, 2)
        q, k, v = (part.view(1, 16, 2, 4).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(1, 16, 8)


def test_constants_keep_names_apart_and_attention_behind_what_is_written_in_place(tmp_path: Path) -> None:
    torch.manual_seed(0)
    method = check(Gains(), draw(1, 3, 8, 8), tmp_path)
    assert (method.delegates, method.leftovers) == (1, ())


class Turned(nn.Module):
    """As volo and mambaout: a Linear on an image that was turned to channels last."""

    def __init__(self, turn: Any, between: Any) -> None:
        super().__init__()
        self.turn = turn
        self.conv, self.between, self.head = nn.Conv2d(3, 16, 3, padding=1), between, nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.between(self.turn(F.avg_pool2d(self.conv(x), 2)))).mean((1, 2))  # type: ignore[no-any-return]


@pytest.mark.parametrize("turn", [lambda x: x.permute(0, 2, 3, 1), lambda x: x.transpose(1, 3)])
@pytest.mark.parametrize(
    "between",
    [
        lambda x: x,
        lambda x: F.gelu(x) * torch.cat((x[..., 8:], x[..., :8]), -1),
        lambda x: F.pad(x, (0, 0, 1, 1, 1, 1)),
    ],
)
def test_an_int8_linear_on_a_turned_image(turn: Any, between: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    method = check(Turned(turn, between), draw(1, 3, 8, 8), tmp_path, "int8", 5e-3, "head")
    assert (method.delegates, method.leftovers) == (1, ())
