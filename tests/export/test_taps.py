"""Depthwise convolutions of many taps in shares: what PyTorch computes, in kernels of at most 25 taps."""

from itertools import pairwise
from math import prod

import pytest
import torch
from torch import nn

from bigvit_edge.export.equivalents import XNNPACK, write_equivalents
from bigvit_edge.export.graph import Graph, copy_program, shape_of
from bigvit_edge.export.taps import MOST_TAPS, list_shares

aten = torch.ops.aten
SHARED = {
    "7x7": dict(kernel_size=7, padding=3),
    "7x7 by twos": dict(kernel_size=7, padding=3, stride=2),
    "9x9 apart": dict(kernel_size=9, padding=8, dilation=2),
    "5x9": dict(kernel_size=(5, 9), padding=(2, 4), stride=(1, 2)),
    "9x5": dict(kernel_size=(9, 5), padding=(4, 4), stride=(2, 1), dilation=(1, 2), bias=False),
    "11x11": dict(kernel_size=11, padding=5),
    "more padding": dict(kernel_size=7, padding=(0, 5)),
}
LEFT = {
    "few taps": dict(kernel_size=5, padding=2),
    "an even number of columns": dict(kernel_size=(7, 6), padding=3),
    "too many rows": dict(kernel_size=(13, 13), padding=6),
    "several results a channel": dict(kernel_size=7, padding=3, out_channels=8),
    "grouped": dict(kernel_size=7, padding=3, groups=2),
    "columns beyond the padding": dict(kernel_size=7, padding=(3, 0)),
}


def write(options: dict[str, object]) -> tuple[nn.Module, Graph, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Conv2d(**{"in_channels": 4, "out_channels": 4, "groups": 4, **options}).eval()  # type: ignore[arg-type]
    image = torch.randn(1, 4, 15, 17)
    program = copy_program(torch.export.export(model, (image,)))
    write_equivalents(program, XNNPACK)
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()
    return model, Graph(program), image


def convolutions(graph: Graph) -> list[torch.fx.Node]:
    return graph.exported.graph.find_nodes(op="call_function", target=aten.conv2d.default)


@pytest.mark.parametrize("name", SHARED)
def test_shares_add_up_to_the_convolution(name: str) -> None:
    model, graph, image = write(SHARED[name])
    torch.testing.assert_close(graph.exported.module()(image), model(image), atol=1e-5, rtol=1e-5)
    kernels = [shape_of(node.args[1])[2:] for node in convolutions(graph)]
    assert len(kernels) > 1
    assert max(map(prod, kernels)) <= MOST_TAPS


@pytest.mark.parametrize("name", LEFT)
def test_others_stay_as_they_are(name: str) -> None:
    model, graph, image = write(LEFT[name])
    assert len(convolutions(graph)) == 1
    assert torch.equal(graph.exported.module()(image), model(image))


@pytest.mark.parametrize("most", [2, 3, 5])
@pytest.mark.parametrize("columns", [3, 5, 7, 9, 11, 13])
def test_each_column_has_one_share_evenly_spaced(columns: int, most: int) -> None:
    shares = list(list_shares(columns, most))
    assert sorted(column for share in shares for column in share) == list(range(columns))
    assert all(len(share) <= most and len({b - a for a, b in pairwise(share)}) <= 1 for share in shares)
    assert all(
        share[0] + share[-1] == columns - 1 for share in shares
    )  # so that the padding is the same on either side
