"""Rewrites keep the function, drop the ops they promise to, and leave the original alone."""

import torch
from torch import nn

from bigvit_edge.export.convert import capture, rewrite
from bigvit_edge.models.blvit import BLViT

aten = torch.ops.aten


def count(graph: object, op: object) -> int:
    return sum(node.target is op for node in graph.exported.graph.nodes)


def test_query_scale_and_gammas_vanish_into_the_linears() -> None:
    torch.manual_seed(0)
    model = BLViT(image_size=24, patch=8, dim=32, little_dim=16, depth=2, head_dim=16, little_head_dim=8, num_classes=5)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3)
    before = capture(model, 24)
    after = rewrite(before)
    # a layer has q scales of both blocks, two gammas, and the gate's three: odds, twice the odds, times the residual
    assert count(before, aten.mul.Tensor) == 2 * 7
    assert count(after, aten.mul.Tensor) == 2 * 3
    image = torch.randn(1, 3, 24, 24)
    expected = model(image)
    torch.testing.assert_close(after.exported.module()(image), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(before.exported.module()(image), expected, atol=0, rtol=0)


class Shared(nn.Module):
    """A Linear whose output is used unscaled as well: its factor must stay."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear(x.flatten(1)[:, :4])
        return y + 2 * y


def test_a_value_used_twice_keeps_its_factor() -> None:
    torch.manual_seed(0)
    model = Shared().eval()
    graph = rewrite(capture(model, 2))
    assert count(graph, aten.mul.Tensor) == 1
    x = torch.randn(1, 3, 2, 2)
    torch.testing.assert_close(graph.exported.module()(x), model(x))
