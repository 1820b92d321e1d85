"""Branches of a training's network merged into one convolution: PyTorch's numbers, and what must not be merged."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bigvit_edge.export.graph import Graph
from bigvit_edge.export.rewrite import rewrite_all

aten = torch.ops.aten


def conv(size: int = 3, **options: object) -> nn.Conv2d:
    return nn.Conv2d(**{"in_channels": 4, "out_channels": 4, "kernel_size": size, "padding": size // 2, **options})  # type: ignore[arg-type]


class Branches(nn.Module):
    """Two branches of one value, joined."""

    def __init__(self, how: Callable[[Tensor, Tensor], Tensor], one: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.how, self.one, self.other = how, one, other

    def forward(self, x: Tensor) -> Tensor:
        return self.how(self.one(x), self.other(x))


def add(a: Tensor, b: Tensor) -> Tensor:
    return a + b


def subtract(a: Tensor, b: Tensor) -> Tensor:
    return a - b


def spread(model: nn.Module) -> nn.Module:
    """Numbers of all sizes and signs, in the statistics too."""
    generator = torch.Generator().manual_seed(0)
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.randn(value.shape, generator=generator).abs() + 0.2)
    for value in model.parameters():
        value.data.copy_(torch.randn(value.shape, generator=generator))
    return model.eval()


def count_convolutions(model: nn.Module) -> tuple[int, int]:
    """Convolutions, and other ops, once the model is rewritten; it answers as before."""
    image = torch.randn(1, 4, 9, 8, generator=torch.Generator().manual_seed(1))
    graph = Graph(rewrite_all(torch.export.export(spread(model), (image,))))
    torch.testing.assert_close(graph.exported.module()(image), model(image), atol=1e-5, rtol=1e-5)
    calls = [node.target for node in graph.exported.graph.nodes if node.op == "call_function"]
    return calls.count(aten.conv2d.default), len(calls) - calls.count(aten.conv2d.default)


def norm() -> nn.Module:
    return nn.BatchNorm2d(4)


MERGED: dict[str, Callable[[], tuple[nn.Module, nn.Module]]] = {
    "3x3 and 1x1": lambda: (conv(), conv(1)),
    "1x1 and 3x3, each with a norm": lambda: (
        nn.Sequential(conv(1, bias=False), norm()),
        nn.Sequential(conv(), norm()),
    ),
    "3x3 and the value": lambda: (conv(bias=False), nn.Identity()),
    "a norm of the value and 3x3": lambda: (norm(), conv()),
    "groups and a norm": lambda: (conv(groups=2), norm()),
    "depthwise 5x5 and 3x3": lambda: (conv(5, groups=4), conv(3, groups=4, bias=False)),
    "1x5 and 1x3, by twos": lambda: (
        conv(kernel_size=(1, 5), padding=(0, 2), stride=2),
        conv(kernel_size=(1, 3), padding=(0, 1), stride=2),
    ),
    "apart, with 1x1": lambda: (conv(dilation=2, padding=2), conv(1)),
    "two that are alike": lambda: (conv(), conv()),
}


@pytest.mark.parametrize("how", [add, subtract])
@pytest.mark.parametrize("name", MERGED)
def test_branches_become_one_convolution(name: str, how: Callable[[Tensor, Tensor], Tensor]) -> None:
    one, other = MERGED[name]()
    assert count_convolutions(Branches(how, one, other)) == (1, 0)
    assert count_convolutions(Branches(how, other, one)) == (1, 0)


APART: dict[str, Callable[[], tuple[nn.Module, nn.Module]]] = {
    "a kernel that is not centred": lambda: (conv(stride=4), conv(stride=4, padding=(1, 0))),
    "an even kernel": lambda: (conv(kernel_size=2, padding=1, stride=2), conv(kernel_size=(4, 4), padding=2, stride=2)),
    "wide and high": lambda: (
        conv(kernel_size=(1, 3), padding=(0, 1)),
        conv(kernel_size=(3, 1), padding=(1, 0)),
    ),
    "other steps": lambda: (
        conv(stride=(2, 1)),
        nn.Sequential(conv(stride=(1, 1)), nn.MaxPool2d((2, 1), ceil_mode=True)),
    ),
    "other groups": lambda: (conv(), conv(1, groups=2)),
    "dilated and dense": lambda: (conv(5), conv(dilation=2, padding=2)),
    "another value": lambda: (conv(), nn.Sequential(nn.ReLU(), conv(1))),
    "a padding of words": lambda: (conv(padding_mode="circular"), conv(1)),
    "the value, by twos": lambda: (conv(stride=2), nn.AvgPool2d(1, 2)),
}


@pytest.mark.parametrize("name", APART)
def test_what_is_not_alike_stays_apart(name: str) -> None:
    one, other = APART[name]()
    convolutions = sum(isinstance(part, nn.Conv2d) for part in (*one.modules(), *other.modules()))
    assert count_convolutions(Branches(add, one, other))[0] == convolutions


class Reused(nn.Module):
    """One convolution of two values, and one whose result is read again."""

    def __init__(self, again: bool) -> None:
        super().__init__()
        self.again, self.one, self.other = again, conv(), conv(1)

    def forward(self, x: Tensor) -> Tensor:
        if self.again:
            return self.one(x) + self.other(x) + self.one(x.relu())  # type: ignore[no-any-return]
        y = self.other(x)
        return (self.one(x) + y) * y  # type: ignore[no-any-return]


@pytest.mark.parametrize("again", [True, False])
def test_weights_and_results_of_others_stay(again: bool) -> None:
    assert count_convolutions(Reused(again))[0] == 2 + again


class Scaled(nn.Module):
    """A sum with a factor, and one that is no sum of two values."""

    def __init__(self, number: bool) -> None:
        super().__init__()
        self.number, self.one, self.other = number, conv(), conv(1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.add(self.one(x), self.other(x), alpha=2)
        return y + 1.5 if self.number else y


@pytest.mark.parametrize("number", [True, False])
def test_a_sum_with_a_factor_is_kept(number: bool) -> None:
    count_convolutions(Scaled(number))


def test_three_branches_become_one() -> None:
    """As RepVGG has them: 3x3, 1x1 and the value, each with a norm."""
    inner = Branches(add, nn.Sequential(conv(bias=False), norm()), nn.Sequential(conv(1, bias=False), norm()))
    assert count_convolutions(Branches(add, inner, norm())) == (1, 0)
