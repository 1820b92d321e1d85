"""What scales and shifts channels vanishes into the product beside it, where that is exact, and stays elsewhere."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigvit_edge.export.graph import weight_name
from bigvit_edge.export.products import OPTIONS
from bigvit_edge.export.rewrite import rewrite_all

aten = torch.ops.aten
SCALING = (aten.batch_norm.default, aten.mul.Tensor, aten.div.Tensor)


class Model(nn.Module):
    """Parts under names of their own, with statistics that are not trivial, and what is done with them and an image
    [1, 8, 6, 6]."""

    def __init__(self, body: Callable[["Model", Tensor], Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.body, self.gain = body, nn.Parameter(torch.linspace(0.5, 2, 8))
        for name, part in parts.items():
            self.add_module(name, part)
        generator = torch.Generator().manual_seed(0)
        for name, tensor in self.state_dict().items():
            if name.endswith("running_var") or (name.endswith("weight") and tensor.dim() == 1):
                tensor.uniform_(0.3, 2, generator=generator)
            elif tensor.is_floating_point() and name != "gain":
                tensor.normal_(0, 0.5, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self, x)


def conv_transpose(model: Model, x: Tensor) -> Tensor:
    return model.norm(model.a(x)).relu()


def tokens(model: Model, x: Tensor) -> Tensor:  # as in LeViT
    t = model.a(x.flatten(2).transpose(1, 2))
    return model.norm(t.flatten(0, 1)).reshape_as(t).relu()


def channels_first(model: Model, x: Tensor) -> Tensor:
    return model.norm(model.a(x.flatten(2).transpose(1, 2)).transpose(1, 2)).relu()


def behind(model: Model, x: Tensor) -> Tensor:
    return model.a(model.norm(x.relu()))


def rows_behind(model: Model, x: Tensor) -> Tensor:
    t = x.flatten(2).transpose(1, 2).relu()
    return model.a(model.norm(t.flatten(0, 1)).reshape_as(t))


def layer_scale(model: Model, x: Tensor) -> Tensor:
    return x + model.a(x) * model.gain.view(-1, 1, 1)


def scaled_input(model: Model, x: Tensor) -> Tensor:
    return model.a(x.relu() * model.gain.view(1, 8, 1, 1))


def divided(model: Model, x: Tensor) -> Tensor:
    return (model.a(x.flatten(2).transpose(1, 2)).unflatten(2, (2, 4)) / 3).relu()


def shifted(model: Model, x: Tensor) -> Tensor:
    t = x.flatten(2).transpose(1, 2).relu() * model.gain + model.gain
    return model.a(t).relu()


def averaged(model: Model, x: Tensor) -> Tensor:
    return model.a(model.norm(x.flatten(2).mean(2)))


def bare(model: Model, x: Tensor) -> Tensor:
    return F.batch_norm(model.a(x), model.norm.running_mean, model.norm.running_var).relu()


FOLDED = [
    (conv_transpose, nn.ConvTranspose2d(8, 8, 3, 2, groups=2), nn.BatchNorm2d(8)),
    (conv_transpose, nn.ConvTranspose2d(8, 4, 2, bias=False), nn.BatchNorm2d(4)),
    (conv_transpose, nn.Conv2d(8, 12, 3, groups=4, bias=False), nn.BatchNorm2d(12)),
    (conv_transpose, nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8, affine=False)),
    (bare, nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)),
    (tokens, nn.Linear(8, 10, bias=False), nn.BatchNorm1d(10)),
    (channels_first, nn.Linear(8, 10), nn.BatchNorm1d(10)),
    (behind, nn.Conv2d(8, 12, 3, groups=2), nn.BatchNorm2d(8)),
    (behind, nn.Conv2d(8, 12, 1, bias=False), nn.BatchNorm2d(8)),
    (rows_behind, nn.Linear(8, 5), nn.BatchNorm1d(8)),
    (layer_scale, nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Identity()),
    (scaled_input, nn.Conv2d(8, 8, 3, padding=1), nn.Identity()),  # zeros stay zeros
    (divided, nn.Linear(8, 8), nn.Identity()),
    (shifted, nn.Linear(8, 5, bias=False), nn.Identity()),
    (averaged, nn.Linear(8, 5, bias=False), nn.BatchNorm1d(8, affine=False)),
]


@torch.no_grad()
def count(model: Model) -> Counter[object]:
    """The ops left of a model, which must compute what it did; and its weights stay as they were."""
    model.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    program = rewrite_all(torch.export.export(model, (torch.zeros(1, 8, 6, 6),), strict=False))
    image = torch.randn(1, 8, 6, 6, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(program.module()(image), model(image), atol=1e-5, rtol=1e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    (product,) = (node for node in program.graph.nodes if node.target in OPTIONS)
    assert weight_name(program, product) == "a.weight"  # so it can be quantised by name
    return Counter(node.target for node in program.graph.nodes)


@pytest.mark.parametrize(("body", "product", "norm"), FOLDED)
def test_folded(body: Callable[[Model, Tensor], Tensor], product: nn.Module, norm: nn.Module) -> None:
    left = count(Model(body, a=product, norm=norm))
    assert not any(left[op] for op in SCALING)


def linear_on_buffers(model: Model, x: Tensor) -> Tensor:
    return (F.linear(x.flatten(1), model.w.flatten(1), model.b) * 0.5).relu()


def convolution_on_a_buffer(model: Model, x: Tensor) -> Tensor:
    return model.norm(F.conv2d(x, model.w)).relu()


@pytest.mark.parametrize("persistent", [True, False])
@pytest.mark.parametrize("body", [linear_on_buffers, convolution_on_a_buffer])
@torch.no_grad()
def test_folded_into_buffers(body: Callable[[Model, Tensor], Tensor], persistent: bool) -> None:
    model = Model(body, norm=nn.BatchNorm2d(8))
    model.register_buffer("w", torch.randn(8, 8, 6, 6), persistent)
    model.register_buffer("b", torch.randn(8), persistent)
    before, image = model.w.clone(), torch.randn(1, 8, 6, 6)
    program = rewrite_all(torch.export.export(model.eval(), (image,), strict=False))
    torch.testing.assert_close(program.module()(image), model(image), atol=1e-4, rtol=1e-5)
    assert torch.equal(model.w, before)
    assert not {node.target for node in program.graph.nodes} & {*SCALING}


def read_twice(model: Model, x: Tensor) -> Tensor:
    y = model.a(x)
    return model.norm(y) + y


def read_by_two(model: Model, x: Tensor) -> Tensor:
    y = model.norm(x.mean((2, 3)))
    return model.a(y) + y.sum()


def activated(model: Model, x: Tensor) -> Tensor:
    return model.norm(model.a(x).relu())


def mixed(model: Model, x: Tensor) -> Tensor:  # the axis that is scaled is no channel of the Linear
    return (model.a(x.flatten(2)[..., :8]) * model.gain.view(1, 8, 1)).relu()


def activated_rows(model: Model, x: Tensor) -> Tensor:
    return model.norm(model.a(x.flatten(2).transpose(1, 2)).relu().transpose(1, 2))


STAY = [
    (behind, nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)),  # the padding's zeros have no offset
    (behind, nn.Conv2d(8, 8, 3, padding="same"), nn.BatchNorm2d(8)),
    (behind, nn.ConvTranspose2d(8, 8, 2), nn.BatchNorm2d(8)),
    (read_twice, nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)),
    (activated, nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)),
    (mixed, nn.Linear(8, 8), nn.Identity()),
    (read_by_two, nn.Linear(8, 5), nn.BatchNorm1d(8)),
]


@pytest.mark.parametrize(("body", "product", "norm"), STAY)
def test_stays(body: Callable[[Model, Tensor], Tensor], product: nn.Module, norm: nn.Module) -> None:
    left = count(Model(body, a=product, norm=norm))
    assert sum(left[op] for op in SCALING) == 1


def test_a_norm_of_rows_that_stays_is_a_product_and_a_sum() -> None:
    left = count(Model(activated_rows, a=nn.Linear(8, 8), norm=nn.BatchNorm1d(8)))
    assert (left[aten.batch_norm.default], left[aten.mul.Tensor], left[aten.add.Tensor]) == (0, 1, 1)
