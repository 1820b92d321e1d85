from typing import cast

import pytest
import torch
from torch import Tensor, nn

from bigvit_edge.errors import UserError
from bigvit_edge.export.convert import capture, rewrite
from bigvit_edge.export.graph import matrix_products


class Guarded(nn.Module):
    """Half precision kept away from a part, and inside that another mode: two values leave it, and one is written."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)[:, :4]
        with torch.autocast(x.device.type, enabled=False):
            y = self.first(x)
            z = y * 2
            with torch.enable_grad():
                w = self.second(z) + y
        return cast(Tensor, w.relu_() + y)


class Random(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return x.flatten(1)[:, :4] + torch.rand(4)


class Half(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return x.flatten(1) @ x.flatten(1).T


class Idle(nn.Module):
    """A region of few bits in which nothing is computed."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            y = x
        return y.flatten(1) * 2


def test_an_autocast_without_ops_is_as_none() -> None:
    image = torch.rand(1, 3, 4, 4)
    torch.testing.assert_close(capture(Idle(), 4).exported.module()(image), image.flatten(1) * 2)


def test_regions_are_part_of_the_graph_and_compute_the_same() -> None:
    torch.manual_seed(0)
    model, image = Guarded().eval(), torch.rand(1, 3, 4, 4)
    graph = capture(model, 4)
    assert not graph.exported.graph.find_nodes(op="get_attr")
    assert [macs for _, macs in matrix_products(graph.exported)] == [16, 16]
    for program in (graph, rewrite(graph)):
        torch.testing.assert_close(program.exported.module()(image), model(image).detach(), rtol=0, atol=0)


def test_what_no_graph_may_hold_is_found_inside_regions_too() -> None:
    with pytest.raises(UserError, match=r"random numbers are drawn.*aten\.rand .*torch\.rand\(4\)"):
        capture(Random(), 4)


def test_autocast_that_computes_in_fewer_bits_is_refused_with_its_line() -> None:
    with pytest.raises(UserError, match=r"autocast computes in bfloat16.*flatten\(1\)"):
        capture(Half(), 4)
