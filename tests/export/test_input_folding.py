"""What stands in front of a Linear and is constant becomes part of its weight and bias."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bigvit_edge.export.convert import capture, rewrite

aten = torch.ops.aten
NORMS = {aten.batch_norm.default, aten.mul.Tensor, aten.add.Tensor}


class Scaled(nn.Module):
    """[1, 16, 8] tokens, through `body`, to a Linear."""

    def __init__(self, body: Callable[["Scaled", Tensor], Tensor], bias: bool = True) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.patches, self.body, self.linear = nn.Conv2d(3, 8, 4, 4), body, nn.Linear(8, 5, bias=bias)
        self.norm, self.bare = nn.BatchNorm1d(8), nn.BatchNorm1d(8, affine=False)
        for norm in (self.norm, self.bare):
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)
        self.gain, self.wide = nn.Parameter(torch.randn(8)), nn.Parameter(torch.randn(16, 8))

    def forward(self, image: Tensor) -> Tensor:
        return self.linear(self.body(self, self.patches(image).flatten(2).transpose(1, 2))).flatten(1)[:, :5]  # type: ignore[no-any-return]


def run(model: Scaled) -> set[object]:
    """The ops left in the graph, after its answers were compared."""
    graph = rewrite(capture(model, 16))
    image = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(graph.exported.module()(image), model(image), rtol=0, atol=1e-5)
    return {node.target for node in graph.exported.graph.nodes}


@pytest.mark.parametrize(
    "body",
    [
        lambda m, x: m.norm(x.flatten(0, 1)).reshape_as(x),
        lambda m, x: m.norm(x.mean(1)),
        lambda m, x: m.bare(x[0]).view(1, 16, 8),
        lambda m, x: x.relu() * m.gain + m.gain,
        lambda m, x: m.norm(x.relu()[0] * m.gain[None]),
    ],
)
def test_folded(body: Callable[[Scaled, Tensor], Tensor]) -> None:
    assert not run(Scaled(body)) & NORMS


@pytest.mark.parametrize(
    ("body", "bias"),
    [
        (lambda m, x: m.norm(x[0]), False),  # there is nothing to take the offset
        (lambda m, x: x.relu() * m.wide, True),  # each token has a factor of its own
        (lambda m, x: m.linear(m.norm(x[0])).relu().mean() + m.norm(x[0]), True),  # two read it, and the weight
    ],
)
def test_left(body: Callable[[Scaled, Tensor], Tensor], bias: bool) -> None:
    assert run(Scaled(body, bias)) & NORMS
