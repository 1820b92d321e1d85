"""Rewrites around convolutions: padding of their own, tokens of single pixels, and nothing added."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bigvit_edge.export.graph import matrix_products, weight_name
from tests.export.test_rewrite import Patches, capture, compare, count, rewrite

aten = torch.ops.aten


class Token(nn.Module):
    """Tokens of a convolution of one pixel, of an image or a map, whose weight may be read twice."""

    def __init__(self, calls: int, copies: int = 2) -> None:
        super().__init__()
        self.calls, self.copies, self.proj = calls, copies, nn.Conv2d(3 * copies, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x] * self.copies, 1)
        return torch.cat([self.proj(x * i).flatten(2).transpose(1, 2) for i in range(1, self.calls + 1)])


@pytest.mark.parametrize(("calls", "copies", "name"), [(1, 2, "proj.weight"), (2, 2, None), (1, 1, None)])
def test_tokens_of_single_pixels_are_a_linear_with_a_name(calls: int, copies: int, name: str | None) -> None:
    """But where the pixels are an image's: that is an embedding, and stays float."""
    assert compare(Token(calls, copies)) == 0
    before = capture(Token(calls, copies), 6)
    after = rewrite(before)
    assert {weight_name(after.exported, linear) for linear, _ in matrix_products(after.exported)} == {name}
    assert before.exported.state_dict["proj.weight"].shape == (4, 3 * copies, 1, 1)


PADDINGS = {
    "even": (lambda x: F.pad(x, (1, 1, 2, 2)), True),
    "of columns alone": (lambda x: F.pad(x, (2, 2), "constant", 0.0), True),
    "of none": (lambda x: F.pad(x, (0, 0, 0, 0)), True),
    "uneven": (lambda x: F.pad(x, (0, 1, 1, 0)), False),
    "cut off": (lambda x: F.pad(x, (-1, -1, -1, -1)), False),
    "of another number": (lambda x: F.pad(x, (1, 1, 1, 1), value=0.5), False),
    "reflected": (lambda x: F.pad(x, (1, 1, 1, 1), "reflect"), False),
    "of channels": (lambda x: F.pad(x[:, :1], (0, 0, 0, 0, 1, 1)), False),
    "read twice": (lambda x: (y := F.pad(x, (1, 1, 1, 1))) * y.mean(), False),
}


class Padded(nn.Module):
    def __init__(self, pad: Callable[[Tensor], Tensor], twice: bool) -> None:
        super().__init__()
        self.pad, self.twice, self.conv = pad, twice, nn.Conv2d(3, 4, 3, 2, (0, 1))

    def forward(self, x: Tensor) -> Tensor:
        padded = self.pad(x)
        y = self.conv(padded)
        return y * padded.mean() if self.twice else y


@pytest.mark.parametrize("name", PADDINGS)
def test_zeros_around_an_image_are_its_convolutions(name: str) -> None:
    pad, folds = PADDINGS[name]
    for twice in (False, True):
        model, image = Padded(pad, twice).eval(), torch.randn(1, 3, 7, 7)
        graph = rewrite(capture(model, 7))
        torch.testing.assert_close(graph.exported.module()(image), model(image), atol=1e-5, rtol=1e-5)
        (conv,) = graph.exported.graph.find_nodes(op="call_function", target=aten.conv2d.default)
        folded = conv.args[0].op == "placeholder"  # type: ignore[union-attr]
        assert folded == (folds and not twice)


@pytest.mark.parametrize("nothing", [lambda x: x + 0, lambda x: 0.0 + x, lambda x: x - 0, lambda x: sum([x])])
def test_nothing_added_is_no_op(nothing: Callable[[Tensor], Tensor]) -> None:
    graph = rewrite(capture(Patches(lambda y: nothing(y).flatten(2)), 6))
    assert count(graph, aten.add.Tensor) + count(graph, aten.sub.Tensor) == 0
    compare(Patches(lambda y: 0 - nothing(y)))
    whole = rewrite(capture(Patches(lambda y: (y > 0).long() + 0.0), 6))  # which makes floats of integers
    assert whole.exported.graph.output_node().args[0][0].meta["val"].dtype == torch.float32  # type: ignore[index, union-attr]
