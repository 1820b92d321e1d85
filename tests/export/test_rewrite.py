"""Rewrites keep the function, drop the ops they promise to, and leave the original alone."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bigvit_edge.export.graph import Graph, layer_of, matrix_products, weight_name
from bigvit_edge.export.rewrite import rewrite_all
from bigvit_edge.models.blvit import BLViT

aten = torch.ops.aten


def capture(model: nn.Module, size: int) -> Graph:
    return Graph(torch.export.export(model.eval(), (torch.zeros(1, 3, size, size),), strict=False))


def rewrite(graph: Graph) -> Graph:
    return Graph(rewrite_all(graph.exported))


def build(keep: float = 0.5) -> BLViT:
    torch.manual_seed(0)
    model = BLViT(
        image_size=24, patch=8, dim=32, little_dim=16, depth=2, head_dim=16, little_head_dim=8, num_classes=5, keep=keep
    )
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3)
    return model


def count(graph: Graph, op: object) -> int:
    return sum(node.target is op for node in graph.exported.graph.nodes)


def test_query_scale_and_gammas_vanish_into_the_linears() -> None:
    model = build()
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

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x.flatten(1)[:, :4])
        return y + 2 * y


def test_a_value_used_twice_keeps_its_factor() -> None:
    torch.manual_seed(0)
    model = Shared().eval()
    graph = rewrite(capture(model, 2))
    assert count(graph, aten.mul.Tensor) == 1
    x = torch.randn(1, 3, 2, 2)
    torch.testing.assert_close(graph.exported.module()(x), model(x))


def test_patches_become_a_linear_without_a_name() -> None:
    model = build()
    before, after = capture(model, 24), rewrite(capture(model, 24))
    assert (count(before, aten.conv2d.default), count(after, aten.conv2d.default)) == (1, 0)
    (conv, macs), (linear, macs_after) = (next(iter(matrix_products(g.exported))) for g in (before, after))
    assert (layer_of(linear), macs_after) == (layer_of(conv), macs) == ("embedding.patches", macs)
    assert weight_name(after.exported, linear) is None  # so no precision makes int8 of it
    assert weight_name(before.exported, conv) == "embedding.patches.weight"


class Patches(nn.Module):
    """A convolution, and what is done to its output [1, 4, 3, 3]."""

    def __init__(self, then: Callable[[Tensor], Tensor], **options: object) -> None:
        super().__init__()
        self.conv, self.then = nn.Conv2d(3, 4, 2, **{"stride": 2, **options}), then

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self.conv(x))


def twice(y: Tensor) -> Tensor:
    flat = y.flatten(2)
    return flat.transpose(1, 2) + flat.sum()


TOKENS = [
    lambda y: y.flatten(2).transpose(1, 2),
    lambda y: y.view(1, 4, 9).transpose(-1, -2),
    lambda y: y.reshape(1, 4, -1).permute(0, 2, 1) + 1,
]


@pytest.mark.parametrize("then", TOKENS)
@pytest.mark.parametrize("options", [{}, {"bias": False}])
def test_every_way_to_write_tokens(then: Callable[[Tensor], Tensor], options: dict[str, object]) -> None:
    assert compare(Patches(then, **options)) == 0


LOOKS_ALIKE = [
    lambda y: y.view(1, 9, 4).transpose(1, 2),  # mixes channels and places
    lambda y: y.view(1, 36, 1).transpose(1, 2),
    lambda y: y.view(4, 3, 3).transpose(1, 2),  # rows for columns
    lambda y: y.view(1, 4, 9).transpose(0, 1),
    lambda y: y.view(1, 4, 9).permute(2, 0, 1),
    lambda y: y.transpose(1, 2),
    lambda y: y.flatten(2),
    lambda y: y[0].flatten(1).transpose(0, 1),
    twice,  # the flat value is used as well
]


@pytest.mark.parametrize("then", LOOKS_ALIKE)
def test_what_only_looks_like_tokens_keeps_its_convolution(then: Callable[[Tensor], Tensor]) -> None:
    assert compare(Patches(then)) == 1


OTHERS = [{"stride": 1}, {"padding": 1}, {"dilation": 2, "stride": 2}, {"stride": (2, 3)}]


@pytest.mark.parametrize("options", OTHERS)
def test_other_convolutions_stay(options: dict[str, object]) -> None:
    assert compare(Patches(TOKENS[0], **options)) == 1


class Unbatched(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x[0]).view(4, 9, 1).transpose(1, 2)


def test_a_convolution_without_a_batch_stays() -> None:
    assert compare(Unbatched()) == 1


def test_an_edge_that_no_patch_covers_stays() -> None:
    assert compare(Patches(TOKENS[0]), size=7) == 1


@torch.no_grad()
def compare(model: nn.Module, size: int = 6) -> int:
    """How many convolutions are left of a model, which must compute what it did."""
    torch.manual_seed(0)
    graph, images = rewrite(capture(model, size)), torch.randn(1, 3, size, size)
    torch.testing.assert_close(graph.exported.module()(images), model(images))
    return count(graph, aten.conv2d.default)


@pytest.mark.parametrize("keep", [0.5, 1.0])
def test_copies_are_dropped(keep: float) -> None:
    model, image = build(keep), torch.randn(1, 3, 24, 24)
    graph = rewrite(capture(model, 24))
    assert count(graph, aten.alias.default) == 0
    slices = [n for n in graph.exported.graph.nodes if n.target is aten.slice.Tensor]
    assert all(n.meta["val"].shape != n.args[0].meta["val"].shape for n in slices)
    torch.testing.assert_close(graph.exported.module()(image), model(image), atol=1e-5, rtol=1e-5)


class Last(nn.Module):
    """Each kind of thing that is rewritten, as the model's output."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y = x.flatten(1)
        return y[:, :12], 2 * self.linear(y), x[:]


def test_outputs_may_be_rewritten() -> None:
    model, x = Last().eval(), torch.randn(1, 3, 2, 2)
    graph = rewrite(capture(model, 2))
    assert count(graph, aten.mul.Tensor) + count(graph, aten.alias.default) == 0
    torch.testing.assert_close(graph.exported.run_decompositions().module()(x), model(x))


class Blocks(nn.Module):
    """A convolution with a bias, a depthwise one without, and a norm that no convolution precedes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8)
        self.second, self.norm2 = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8)
        self.norm3 = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm2(self.second(self.norm1(self.first(x)).relu()))
        return self.norm3(x.relu()).mean((2, 3))


class Reused(Blocks):
    """One convolution under two norms, and one whose output is also used as it is."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return (self.norm1(self.second(x)) + self.norm2(self.second(x)) + self.norm3(x) + x).mean((2, 3))


def spread(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for vector in (module.running_mean, module.bias.data):
                vector.normal_(0, 0.5, generator=generator)
            for vector in (module.running_var, module.weight.data):
                vector.uniform_(0.3, 2, generator=generator)
    return model.eval()


@pytest.mark.parametrize(("kind", "left"), [(Blocks, 1), (Reused, 3)])
def test_norms_are_folded_where_the_convolution_is_theirs_alone(kind: type[nn.Module], left: int) -> None:
    model = spread(kind())
    before = capture(model, 8)
    after = rewrite(before)
    norms = [
        len(g.exported.graph.find_nodes(op="call_function", target=aten.batch_norm.default)) for g in (before, after)
    ]
    assert norms == [3, left]
    image = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(after.exported.module()(image), model(image), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(before.exported.module()(image), model(image))


class Place(nn.Module):
    """A Linear that reads no image, as MaxViT has for its places."""

    def __init__(self) -> None:
        super().__init__()
        self.places, self.fc = nn.Linear(4, 12), nn.Linear(12, 5)
        self.grid = nn.Buffer(torch.ones(1, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(1) + self.places(self.grid))  # type: ignore[no-any-return]


def test_what_reads_no_image_is_computed_beforehand() -> None:
    torch.manual_seed(0)
    model = Place().eval()
    graph = rewrite(capture(model, 2))
    assert [weight_name(graph.exported, node) for node, _ in matrix_products(graph.exported)] == ["fc.weight"]
    image = torch.randn(1, 3, 2, 2)
    torch.testing.assert_close(graph.exported.module()(image), model(image))


class Masked(nn.Module):
    """A mask made of numbers alone, as torchvision's Swin makes it of a tensor that it takes only the type of."""

    def forward(self, x: Tensor) -> Tensor:
        mask = x.new_zeros((4, 4))
        for i in range(2):
            mask[2 * i : 2 * i + 2] = i
        mask = mask.flatten().unsqueeze(0) - mask.flatten().unsqueeze(1)
        return x.flatten(2) + mask.masked_fill(mask != 0, -100.0)[:1] + x.new_full((1,), 2.0)


def test_a_mask_of_numbers_is_a_constant() -> None:
    graph = rewrite(capture(Masked(), 4))
    ops = {node.target for node in graph.exported.graph.nodes if node.op == "call_function"}
    assert ops <= {aten.flatten.using_ints, aten.add.Tensor}
    image = torch.randn(1, 3, 4, 4)
    torch.testing.assert_close(graph.exported.module()(image), Masked()(image))


class Open(nn.Module):
    """Attention as transformers calls it: with a mask made of numbers, by position or by name."""

    def __init__(self, lets: int, named: bool) -> None:
        super().__init__()
        self.lets, self.named = lets, named

    def forward(self, x: Tensor) -> Tensor:
        x, mask = x.flatten(2), (torch.arange(3) < self.lets).expand(1, 3, 3)
        attend = nn.functional.scaled_dot_product_attention
        return attend(x, x, x, attn_mask=mask, scale=0.5) if self.named else attend(x, x, x, mask, 0.0, False)


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("lets", [3, 2])
def test_a_mask_that_lets_everything_through_is_none(lets: int, named: bool) -> None:
    model, image = Open(lets, named), torch.randn(1, 3, 4, 4)
    program = rewrite(capture(model, 4)).exported
    (node,) = program.graph.find_nodes(op="call_function", target=aten.scaled_dot_product_attention.default)
    masks = [n for n in node.all_input_nodes[1:] if n.meta["val"].dtype == torch.bool]
    assert len(masks) == (lets < 3)
    torch.testing.assert_close(program.module()(image), model(image))


class InARow(nn.Module):
    """Two norms behind one convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm1, self.norm2 = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm2(self.norm1(self.conv(x))).mean((2, 3))


class InPlace(nn.Module):
    """A constant that is written into, and a random number."""

    def forward(self, x: Tensor) -> Tensor:
        t = torch.zeros(1, 3, 8)
        t[:, :, :4] = x[:, :, 0, :4]
        return t.flatten(1)


@pytest.mark.parametrize("kind", [InARow, InPlace])
def test_norms_in_a_row_and_values_written_in_place(kind: type[nn.Module]) -> None:
    model = spread(kind())
    image = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    found = rewrite(capture(model, 8)).exported.module()(image)
    torch.testing.assert_close(found, model(image), atol=1e-5, rtol=1e-5)


def test_random_numbers_are_not_computed_beforehand() -> None:
    class Noise(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3)) + torch.rand(1, 3)

    program = rewrite(capture(Noise(), 8)).exported.module()
    image = torch.zeros(1, 3, 8, 8)
    assert not torch.equal(program(image), program(image))
