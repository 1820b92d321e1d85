"""What a model writes in place is, without writing, what PyTorch answers; what it keeps between images is refused."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigvit_edge.errors import UserError
from bigvit_edge.export.functionalization import writes
from bigvit_edge.export.rewrite import rewrite_all

aten = torch.ops.aten


class Body(nn.Module):
    """A convolution to [1, 4, 6, 6] and what is done with it; a buffer of four ones."""

    def __init__(self, body: Callable[["Body", Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.body = nn.Conv2d(3, 4, 1), body
        self.kept = nn.Buffer(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self, self.conv(x))


def rewrite(model: nn.Module) -> torch.export.ExportedProgram:
    with torch.no_grad():
        return rewrite_all(torch.export.export(model.eval(), (torch.zeros(1, 3, 6, 6),), strict=False))


@torch.no_grad()
def check(model: nn.Module) -> torch.export.ExportedProgram:
    program = rewrite(model)
    assert not any(writes(node) for node in program.graph.nodes)
    for seed in (1, 2):
        image = torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(program.module()(image.clone()), model(image.clone()))
    return program


def activate(model: Body, x: Tensor) -> Tensor:
    return F.hardswish(F.relu_(x) - 1, inplace=True).mul_(2).add_(x)


def write_through_views(model: Body, x: Tensor) -> Tensor:
    flat = x.view(1, 4, 36)
    before = flat * 1
    flat[:, 1:3] = 0
    flat[:, :, ::5] += 1
    flat[0, -1] *= 3
    x.permute(0, 3, 1, 2)[:, :, 1] = x[..., 1, :, None, 0].mean()
    x.transpose(2, 3)[..., 4:, 0].clamp_(max=0.1)
    return torch.cat([x, before.view(1, 4, 6, 6)])


def write_parts(model: Body, x: Tensor) -> Tensor:
    first, second = x.chunk(2, 1)
    first.neg_()
    rows = x.unbind(2)
    rows[1].fill_(2)
    rows[-1].copy_(rows[0])
    return x + second.mean()


def write_by_index(model: Body, x: Tensor) -> Tensor:
    x[:, [0, 2]] = x[:, [1, 3]] * 2 + 1
    x.index_put_((torch.tensor([0, 0]), torch.tensor([1, 1])), torch.ones(2, 6, 6), accumulate=True)
    x.masked_fill_(x > 1, 0.5)
    return x


def write_diagonal(model: Body, x: Tensor) -> Tensor:
    torch.diagonal(x, dim1=2, dim2=3).mul_(0)
    x.as_strided((2, 2), (5, 1)).add_(1)
    return x


def write_literal(model: Body, x: Tensor) -> Tensor:
    grid = torch.tensor([1.0, 2.0, 3.0, 4.0])
    grid[1:] *= 2
    grid = grid.unsqueeze_(0).unsqueeze_(-1).unsqueeze(-1)
    return x * grid


def write_through_dropout(model: Body, x: Tensor) -> Tensor:
    F.dropout(x, 0.5, training=False).mul_(2)  # gives x itself, so x is doubled
    return x + x.contiguous().abs_()


def change_type(model: Body, x: Tensor) -> Tensor:
    half = x.half()
    half += x  # stays float16
    whole = torch.zeros(1, 4, 6, 6, dtype=torch.int64)
    whole.copy_(x * 3)
    return half.float() + whole


def change_image(model: Body, x: Tensor) -> Tensor:
    return x.sub_(0.5) + x


BODIES = [
    activate,
    write_through_views,
    write_parts,
    write_by_index,
    write_diagonal,
    write_literal,
    write_through_dropout,
    change_type,
    change_image,
]


@pytest.mark.parametrize("body", BODIES)
def test_writes_become_values(body: Callable[[Body, Tensor], Tensor]) -> None:
    check(Body(body))


def test_an_image_may_be_changed() -> None:
    class Normalized(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = x[:, :1]
            x.sub_(0.5).div_(0.25)
            return x, y.flatten(1)

    check(Normalized())


class Attention(nn.Module):
    """An in-place ReLU before attention, whose answer is reshaped, and a BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.qkv = nn.Conv2d(3, 8, 2, 2, bias=False), nn.BatchNorm2d(8), nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu_(self.norm(self.conv(x))).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(x).view(1, 9, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(1, 9, 8)


def test_nothing_else_is_taken_apart() -> None:
    targets = [node.target for node in check(Attention()).graph.nodes]
    assert aten.scaled_dot_product_attention.default in targets
    assert aten.reshape.default in targets
    assert not {aten.batch_norm.default, aten._native_batch_norm_legit_no_training.default} & set(targets)


# ---- what is kept from one image to the next -------------------------------------------------------------------------


class Mean(Body):
    def forward(self, x: Tensor) -> Tensor:
        self.kept.mul_(0.9).add_(0.1 * x.mean())
        return x[:, :1] * self.kept.sum()


class Count(Body):
    def forward(self, x: Tensor) -> Tensor:
        self.kept += 1
        return x * self.kept.sum()


@pytest.mark.parametrize(("kind", "line"), [(Mean, "self.kept.mul_(0.9)"), (Count, "self.kept += 1")])
def test_a_state_is_refused_by_buffer_and_line(kind: type[Body], line: str) -> None:
    with pytest.raises(UserError) as e:
        rewrite(kind(activate))
    assert "it writes self.kept at" in e.value.met
    assert "test_functionalization.py" in e.value.met
    assert line in e.value.met


def count_calls(model: Body, x: Tensor) -> Tensor:
    model.kept += 1
    return x * (1 + model.kept.sum() * 0)


def write_before_reading(model: Body, x: Tensor) -> Tensor:
    model.kept.copy_(x.mean((0, 2, 3)))
    return x * model.kept.view(1, 4, 1, 1)


def clamp(model: Body, x: Tensor) -> Tensor:
    model.kept.clamp_(max=0.5)
    return x * model.kept.view(1, 4, 1, 1)


@pytest.mark.parametrize("body", [count_calls, write_before_reading, clamp])
def test_a_buffer_that_no_later_answer_shows_is_let_pass(body: Callable[[Body, Tensor], Tensor]) -> None:
    model = Body(body)
    program = check(model)
    assert model.kept.shape == (4,)
    assert len(program.graph_signature.output_specs) == 1


def test_a_write_without_another_form_is_named() -> None:
    class Out(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.add(x, 1, out=x)

    with pytest.raises(UserError, match=r"aten.add.out writes .* at .*test_functionalization.py.*torch.add\(x, 1"):
        rewrite(Out())
