"""Values of more than five dimensions in five or fewer: the same numbers, and no op that has more."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from bigvit_edge.errors import UserError
from bigvit_edge.export.backends.coreml.ranks import MOST, lower_ranks
from bigvit_edge.export.graph import copy_program


class Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def windows(x: Tensor, b: int) -> Tensor:
    return x.view(b, 2, 4, 2, 4, 3).permute(0, 1, 3, 2, 4, 5)


WEIGHT = torch.arange(6.0).view(2, 3)
CASES: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, ...]]] = {
    "windows of one image": (lambda x: windows(x, 1).reshape(4, 16, 3), (1, 8, 8, 3)),
    "windows of two": (lambda x: windows(x, 2).reshape(8, 16, 3), (2, 8, 8, 3)),
    "and back": (lambda x: x.view(2, 2, 2, 4, 4, 3).transpose(2, 3).reshape(2, 8, 8, 3), (8, 16, 3)),
    "seven dimensions turned": (lambda x: x.view([2] * 7).permute(6, 0, 5, 1, 4, 2, 3).reshape(8, 16), (128,)),
    "transposed": (lambda x: x.view(2, 3, 2, 3, 2, 3).transpose(1, -1).reshape(-1), (216,)),
    "along one": (lambda x: x.view([2, 3] * 3).permute(5, 3, 1, 4, 2, 0).softmax(2).sum((0, 1)).flatten(), (216,)),
    "spread": (lambda x: (x.view(2, 3, 2, 3, 2, 3) * torch.arange(3.0).view(3, 1, 1) + 1).relu().flatten(1), (216,)),
    "expanded": (lambda x: x.view(2, 1, 2, 3, 2, 9).expand(2, 4, 2, 3, 2, 9).reshape(-1), (216,)),
    "parts": (
        lambda x: (lambda q: torch.cat([q[0], q[2] + 1], 2).mean(-1))(x.view([2, 3] * 3).transpose(0, 1).unbind(0)),
        (216,),
    ),
    "products": (
        lambda x: (x.view(2, 1, 2, 3, 2, 9) @ x.view(2, 1, 2, 3, 9, 2)).select(3, 1)[:, :, 1:].reshape(-1),
        (216,),
    ),
    "stacked": (lambda x: torch.stack(x.view(2, 3, 2, 3, 2, 3).split([1, 2], 1)[1:], 2).flatten(1), (216,)),
    "a Linear": (lambda x: nn.functional.linear(x.view(2, 3, 2, 3, 2, 3), WEIGHT).flatten(), (216,)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_same_numbers_in_five_dimensions(name: str) -> None:
    function, shape = CASES[name]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    program = copy_program(torch.export.export(Function(function), (x,)).run_decompositions({}))
    assert most_dimensions(program) > MOST
    lower_ranks(program)
    program.graph_module.recompile()
    assert most_dimensions(program) <= MOST
    torch.testing.assert_close(program.module()(x), function(x))


def most_dimensions(program: torch.export.ExportedProgram) -> int:
    values = (v for node in program.graph.nodes for v in tree_leaves(node.meta.get("val")))
    return max(v.dim() for v in values if isinstance(v, Tensor))


def test_what_cannot_be_written_so_is_named() -> None:
    x = torch.zeros(64)
    program = copy_program(torch.export.export(Function(lambda x: x.view([2] * 6).cumsum(2).flatten()), (x,)))
    with pytest.raises(
        UserError,
        match=r"does not take aten.cumsum at .*test_coreml_ranks.py:.* \(on 6 dimensions, where Core ML has 5\)",
    ):
        lower_ranks(program)
