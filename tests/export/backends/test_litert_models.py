"""Models that are not our own through the LiteRT backend: folded constants, convolutions, timm's hybrids."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bigvit_edge.export.graph import Graph
from bigvit_edge.export.rewrite import rewrite_all
from tests.export.backends.test_litert import (
    answers,
    capture,
    in_int8,
    int8_weights,
    list_ops,
    lower,
    only_method,
    randomize,
)


class Mixed(nn.Module):
    """What the shortcuts must leave alone: overlapping and padded convolutions, a norm over two axes, a bmm that
    stays in three dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.padded = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 2, stride=2, padding=1)
        self.norm, self.head = nn.LayerNorm((8, 81)), nn.Linear(81, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = self.norm(self.padded(self.wide(images)).flatten(2))  # [1, 8, 81]
        heads = x.view(1, 4, 2, 81).view(4, 2, 81)  # three dimensions that come from four
        score = torch.bmm(heads, heads.transpose(1, 2)) * 0.1  # [4, 2, 2]
        mixed = torch.bmm(score.softmax(1), heads)  # [4, 2, 81]
        both = (mixed + heads.mean(0)).sum(1) + mixed.view(1, 4, 2, 81).sum(2)[
            0
        ]  # [4, 81], of three and four dimensions
        return cast(Tensor, self.head(both).mean(0, keepdim=True))


class Rows(nn.Module):
    """Two Linears of one shape, each followed by a constant that the converter multiplies into the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(96, 10), nn.Linear(96, 10)
        self.scale = nn.Parameter(torch.ones(10))

    def forward(self, images: Tensor) -> Tensor:
        x = images[:, :, 0]  # [1, 3, 32]
        return cast(Tensor, self.scale * self.first(x.flatten(1)) - 3 * self.second(x.flatten(1)))


@pytest.mark.parametrize("build", [Mixed, Rows])
def test_other_models_come_through(build: Callable[[], nn.Module], tmp_path: Path) -> None:
    model = randomize(build())
    got, expected = answers(model, lower(capture(model)), tmp_path)
    assert np.abs(got - expected).max() < 1e-5 * max(1, np.abs(expected).max())


class Integers(nn.Module):
    """Bytes and integers from the least on, what lies where they do, and what is left of a number without them."""

    def forward(self, x: Tensor) -> Tensor:
        x = x[..., :8]
        values, order = (x * 40 + 120).clamp(0, 255).to(torch.uint8).sort(3)
        integers = (x * 4000).int()
        parts = [values.float(), x.gather(3, order), x.gather(3, integers.argsort(3)), (5 - integers).float()]
        return torch.cat(parts, 3).flatten(1)


def test_integers_are_ordered_and_taken_away(tmp_path: Path) -> None:
    graph = Graph(rewrite_all(capture(Integers()).exported))
    got, expected = answers(Integers(), lower(graph), tmp_path)
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_nothing_is_computed_twice() -> None:
    ops = Counter(op.name for op in list_ops(lower(capture(randomize(Mixed())))))
    assert (ops["BATCH_MATMUL"], ops["CONV_2D"]) == (2, 2)


def test_linears_are_found_under_folded_constants() -> None:
    model: Any = randomize(Rows())
    ((values, scales),) = int8_weights(lower(in_int8(capture(model), frozenset({"second"}))))
    weight = -3 * model.second.weight.detach().numpy()
    assert min(np.abs(s * values * scales[:, None] - weight).max() for s in (1, -1, 3, -3)) <= 3 * scales.max()


class Idle(nn.Module):
    """Two Linears that start at zero, as residual branches do, beside one of their shape that does not."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(32, 32) for _ in range(3))
        self.head = nn.Linear(32, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = images[:, :, 0]  # [1, 3, 32]
        for linear in (self.first, self.third, self.second):
            x = x + linear(x.relu())
        return cast(Tensor, self.head(x.mean(1)))


def test_linears_of_zeros_are_told_from_others(tmp_path: Path) -> None:
    model: Any = randomize(Idle())
    for linear in (model.first, model.second):
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
    names = frozenset({"first", "second", "third", "head"})
    got, expected = answers(model, lower(in_int8(capture(model), names)), tmp_path)
    assert 0 < np.abs(got - expected).max() < 0.05 * np.abs(expected).max()


class Images(nn.Module):
    """What a convolutional model is made of: batch norms, depth-wise, point-wise and padded convolutions, a scale a
    channel, GELU, SiLU, pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8)
        self.deep, self.wide = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 16, 1)
        self.thin, self.alone = nn.Conv2d(16, 8, 1), nn.BatchNorm2d(8)
        self.scale = nn.Parameter(torch.ones(8, 1, 1))
        self.head = nn.Linear(8, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = nn.functional.silu(self.norm(self.stem(images)))  # [1, 8, 16, 16]
        x = x + self.scale * self.thin(nn.functional.gelu(self.wide(self.deep(x)))) - self.alone(x)
        return cast(Tensor, self.head(nn.functional.avg_pool2d(x, 2).mean((2, 3))))


@pytest.fixture
def images() -> nn.Module:
    model = randomize(Images())
    with torch.no_grad():
        for norm in (model.norm, model.alone):
            norm.running_mean.uniform_(-0.5, 0.5)
            norm.running_var.uniform_(0.5, 2)
    return model


def test_convolutions_stay_channels_last(images: nn.Module, tmp_path: Path) -> None:
    file = lower(Graph(rewrite_all(capture(images).exported)))
    got, expected = answers(images, file, tmp_path)
    assert np.abs(got - expected).max() < 1e-5 * max(1, np.abs(expected).max())
    ops = Counter(op.name for op in list_ops(file))
    assert (ops["CONV_2D"], ops["DEPTHWISE_CONV_2D"], ops["GELU"]) == (3, 1, 1)
    assert ops["TRANSPOSE"] == 2  # the image, and the maps before their mean
    assert (only_method(file).delegates, only_method(file).leftovers) == (1, ())
    assert sum(op.macs for op in list_ops(file)) == 16 * 16 * (8 * 27 + 8 * 9 + 8 * 16 + 16 * 8) + 8 * 10


def test_convolutions_in_half_precision(images: nn.Module, tmp_path: Path) -> None:
    graph = capture(images)
    file = lower(Graph(graph.exported, "fp16"))
    got, expected = answers(images, file, tmp_path)
    assert 1e-6 < np.abs(got - expected).max() < 1e-2 * np.abs(expected).max()
    assert Counter(op.name for op in list_ops(file))["DEQUANTIZE"] == 9  # convolutions, head, scale, batch norms
    assert only_method(file).delegates == 1


def test_only_linears_are_taken_among_convolutions(images: nn.Module) -> None:
    ((values, _),) = int8_weights(lower(in_int8(capture(images), frozenset({"head"}))))
    assert values.shape == (10, 8)
