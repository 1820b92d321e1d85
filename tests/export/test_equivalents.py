"""Ops written in others give the same numbers, and are gone from the graph."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from bigvit_edge.export.convert import capture, rewrite
from bigvit_edge.export.equivalents import EVERYWHERE, LITERT, XNNPACK, write_equivalents
from bigvit_edge.export.graph import copy_program
from bigvit_edge.export.resizing import make_resizing

aten = torch.ops.aten
TOKENS, CHANNELS = 16, 6
STAY = {aten.topk.default, aten.slice.Tensor, aten.expand.default}  # which others are written in


class Body(nn.Module):
    def __init__(self, body: Callable[..., Tensor]) -> None:
        super().__init__()
        self.patches, self.body = nn.Conv2d(3, CHANNELS, 4, 4), body

    def forward(self, image: Tensor) -> Tensor:
        return self.body(self.patches(image).flatten(2).transpose(1, 2)).flatten(1)  # body takes [1, N, C]


def run(body: Callable[..., Tensor], writers: Mapping[Any, Any]) -> tuple[Tensor, Tensor, set[Any]]:
    """PyTorch's answer, the written graph's, and the ops in it."""
    torch.manual_seed(1)
    model = Body(body).eval()
    graph = rewrite(capture(model, 16))
    program = copy_program(graph.exported)
    write_equivalents(program, writers)
    program.graph.eliminate_dead_code()
    program.graph.lint()
    program.graph_module.recompile()
    image = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        return model(image), program.module()(image), {node.target for node in program.graph.nodes}


def order(x: Tensor, **options: Any) -> Tensor:
    """Tokens by their first channel, in channels of both results."""
    values, places = x[..., 0].sort(dim=1, **options)
    return torch.cat([values, x.gather(1, places[..., None].expand(-1, -1, CHANNELS)).flatten(1)], 1)


def windows(size: tuple[int, int]) -> Callable[[Tensor], Tensor]:
    return lambda x: nn.functional.adaptive_max_pool2d(x.transpose(1, 2).reshape(1, CHANNELS, 2, 8), size)


def medians(x: Tensor) -> Tensor:
    middle, places = x.median(1, keepdim=True)
    return torch.cat([middle, places.float(), x[:, :5].median(1, keepdim=True).values], 1)


@pytest.mark.parametrize(
    "body",
    [
        order,
        lambda x: order(x, descending=True),
        lambda x: order(x, descending=True, stable=True),
        lambda x: x.sum(-1).argsort(dim=1, stable=True).float(),
        lambda x: x.sum(-1).topk(5).indices.sort().values.float(),
        medians,
        windows((2, 4)),
        windows((2, 3)),
        lambda x: torch.diagonal(x @ x.transpose(1, 2), dim1=1, dim2=2),
        lambda x: torch.diagonal(x, 3, 2, 1) + torch.diagonal(x, 3, -1, 1),
        lambda x: torch.diagonal(x, -4, 2, 1),
        lambda x: torch.diagonal(x, -14, 1, 2),
        lambda x: torch.einsum("bii->bi", x @ x.transpose(1, 2)),
        lambda x: torch.einsum("bii, bic -> cb", x @ x.transpose(1, 2), x),
        lambda x: (x * 40 + 120).to(torch.uint8).sort(1)[0].float(),
        lambda x: (x * 40 + 120).to(torch.uint8).median(1).values.float(),
        lambda x: (x * 300).clamp(-128, 127).to(torch.int8).sort(2)[0].float(),
        lambda x: torch.cat([torch.full_like(x[:, :1], -(2.0**31)), x * 9], 1).int().sort(1)[0].float(),
        lambda x: (x[..., 0] > 0).sort(1, descending=True)[0].float(),
        lambda x: torch.stack([x.mean().sort()[0], x.amax().sort(0, True)[1].float()])[None],
        lambda x: torch.stack([*map(torch.Tensor.float, x.mean().median(0)), x.mean().argsort().float()])[None],
    ],
)
def test_what_few_formats_have(body: Callable[..., Tensor]) -> None:
    wanted, got, ops = run(body, EVERYWHERE)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)
    assert not ops & (EVERYWHERE.keys() - {aten.einsum.default})


def pick(x: Tensor, count: int = 5) -> Tensor:
    return x[..., 0].topk(count).indices  # [1, count]


def rows(x: Tensor) -> Tensor:
    return pick(x)[..., None].expand(-1, -1, CHANNELS)


def put(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, [1, 5, 7]] = x[:, [0, 0, 2]] * 2 + 1
    x[:, [2, 2, 9], [0, 0, 4]] = 7.0
    x[:, torch.arange(TOKENS) % 3 == 0] = x[:, :1]
    return x


def add_up(x: Tensor) -> Tensor:
    return x.index_put((torch.tensor(0), torch.tensor([4, 4, 3])), x[0, :3], accumulate=True)


@pytest.mark.parametrize(
    "body",
    [
        lambda x: x[..., 0].scatter(1, pick(x), 0.5),
        lambda x: x.scatter(1, rows(x), -1.0),
        lambda x: x.scatter(1, rows(x), x[:, 2:9]),
        lambda x: x[..., 0].scatter(1, pick(x), x[:, :5, 1]),
        lambda x: x.scatter_add(1, rows(x) // 2, x),
        lambda x: x.scatter_add(2, x.argsort(2)[..., :2], x),
        lambda x: x.scatter_reduce(1, rows(x) // 3, x, reduce="mean"),
        lambda x: x.scatter_reduce(1, rows(x) // 3, x, reduce="sum"),
        put,
        add_up,
        lambda x: x.topk(3, 1).values,
        lambda x: torch.cat([*map(torch.Tensor.float, x.topk(3, 1, largest=False))], 1),
        lambda x: (x * 40 + 120).to(torch.uint8).topk(3, 1, largest=False).values.float(),
        lambda x: torch.stack([*map(torch.Tensor.float, x.mean().topk(1, 0, largest=False))])[None],
    ],
)
def test_scatters(body: Callable[..., Tensor]) -> None:
    wanted, got, ops = run(body, LITERT)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)
    assert not ops & ({*LITERT, aten.scatter_reduce.two} - STAY)


@pytest.mark.parametrize(
    "body",
    [
        lambda x: x.scatter_reduce(1, rows(x), x, reduce="amax"),
        lambda x: x.scatter_reduce(1, rows(x), x, reduce="mean", include_self=False),
        lambda x: x.index_put((torch.tensor([0]), pick(x)[0]), x[0, :5]),  # which places is known at run time alone
        lambda x: x.mean().scatter_add(0, torch.tensor(0), x.amax())[None, None],
    ],
)
def test_what_has_no_equivalent_stays(body: Callable[..., Tensor]) -> None:
    wanted, got, ops = run(body, LITERT)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)
    assert ops & ({*LITERT, aten.scatter_reduce.two} - STAY)


@pytest.mark.parametrize(
    ("options", "stays"),
    [
        ({"size": (5, 11)}, False),
        ({"scale_factor": 1.7}, False),
        ({"scale_factor": (1.0, 0.5)}, False),
        ({"scale_factor": 2}, False),
        ({"size": (5, 11), "mode": "nearest-exact"}, False),
        ({"scale_factor": 1.7, "mode": "bilinear", "recompute_scale_factor": False}, False),
        ({"scale_factor": 1.7, "mode": "bilinear", "recompute_scale_factor": True}, True),
        ({"size": (5, 9), "mode": "bilinear", "align_corners": True}, True),
        ({"size": (5, 9), "mode": "bicubic"}, False),
        ({"size": (5, 9), "mode": "bicubic", "align_corners": True}, False),
        ({"size": (3, 2), "mode": "bilinear", "antialias": True}, False),
    ],
)
def test_resizing(options: dict[str, Any], stays: bool) -> None:
    def body(x: Tensor) -> Tensor:
        return nn.functional.interpolate(x.transpose(1, 2).reshape(1, CHANNELS, 2, 8), **options)

    wanted, got, ops = run(body, LITERT)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)
    assert bool(ops & LITERT.keys()) == stays


def test_resizing_of_other_types() -> None:
    def body(x: Tensor) -> Tensor:
        image = x.transpose(1, 2).reshape(1, CHANNELS, 2, 8)
        smaller = [nn.functional.interpolate(i, size=(3, 5)) for i in (image.double(), (image * 9).to(torch.uint8))]
        return torch.cat([i.float() for i in smaller], 1)

    wanted, got, _ = run(body, LITERT)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)


def test_resizing_takes_no_room_for_whole_images() -> None:
    class Sizes(TorchDispatchMode):
        seen: ClassVar[list[int]] = []

        def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = op(*args, **(kwargs or {}))
            self.seen.append(made.numel())
            return made

    body = Body(lambda x: nn.functional.interpolate(x[None], (64, 40), mode="bicubic"))
    (node,) = capture(body, 32).exported.graph.find_nodes(op="call_function", target=aten.upsample_bicubic2d.vec)
    with Sizes():
        rows, columns = make_resizing(node, 2), make_resizing(node, 3)
    assert (rows.shape, columns.shape) == ((64, 64), (CHANNELS, 40))
    assert max(Sizes.seen) == 2 * rows.numel()


@pytest.mark.parametrize(
    ("start", "end", "step"),
    [(0, None, 2), (1, None, 2), (1, 16, 3), (2, 15, 7), (-7, None, 4), (0, 16, 15), (5, 6, 2)],
)
def test_steps_are_views(start: int, end: int | None, step: int) -> None:
    """16 tokens: groups that fit, and a last one that ends early."""
    wanted, got, ops = run(lambda x: x[:, start:end:step] * 2, XNNPACK)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)
    assert aten.slice.Tensor in ops
    assert aten.index.Tensor not in ops


def same(x: Tensor, size: int, step: int) -> Tensor:
    """As TensorFlow pads, and timm after it."""
    return nn.functional.max_pool2d(nn.functional.pad(x, (0, 1, 1, 0), value=float("-inf")), size, step)


@pytest.mark.parametrize(
    "pool",
    [
        lambda x: nn.functional.max_pool2d(x, 3, 2, 1),
        lambda x: nn.functional.max_pool2d(x, (3, 2), 1, (1, 0)),
        lambda x: same(x, 3, 2),
        lambda x: same(x, 2, 1),
        lambda x: same(x, 2, 3),
        lambda x: nn.functional.max_pool2d(nn.functional.pad(x, (1, 0), value=float("-inf")), 3, 1),
    ],
)
@pytest.mark.parametrize("before", [torch.relu, torch.neg])
def test_maxima_are_padded_without_infinity(before: Any, pool: Any) -> None:
    wanted, got, ops = run(lambda x: pool(before(x.transpose(1, 2).reshape(1, CHANNELS, 4, 4))), LITERT)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)
    assert ops & {aten.constant_pad_nd.default, aten.cat.default}
    assert aten.pad.default not in ops


@pytest.mark.parametrize(
    "pool",
    [
        lambda x: nn.functional.avg_pool2d(x, 3, 2, 1),
        lambda x: nn.functional.avg_pool2d(x, 3, 2, 1, True, False),
        lambda x: nn.functional.avg_pool2d(x, (3, 2), 2, 0, True),
        lambda x: nn.functional.avg_pool2d(x, 2, 1, 1, False, True, 3),
        lambda x: nn.functional.adaptive_avg_pool2d(x, 2),
        lambda x: nn.functional.adaptive_avg_pool2d(x, (3, 5)),
        lambda x: nn.functional.adaptive_avg_pool2d(x, 1),
    ],
)
def test_averages(pool: Any) -> None:
    wanted, got, ops = run(lambda x: pool(x.transpose(1, 2).reshape(1, CHANNELS, 4, 4)), LITERT)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)
    assert aten.adaptive_avg_pool2d.default not in ops


@pytest.mark.parametrize(
    "body",
    [
        lambda x: x[:, :1].expand(1, 5, CHANNELS) * x[:, :5],  # which repeats it by itself
        lambda x: x[:, :1].expand(1, 5, CHANNELS).softmax(-1),
        lambda x: x.unsqueeze(1).expand(3, 1, 2, -1, -1).flatten(0, 2).relu(),
        lambda x: x.repeat(1, 2, 3),
        lambda x: x.repeat(4, 2, 1, 1).flatten(0, 1),
        lambda x: x.repeat(1, 1, 1),
        lambda x: x.repeat_interleave(3, 1),
        lambda x: x.repeat_interleave(1, -1),
    ],
)
@pytest.mark.parametrize("writers", [XNNPACK, LITERT])
def test_repetitions_are_products_or_copies(body: Any, writers: Mapping[Any, Any]) -> None:
    wanted, got, ops = run(lambda x: body(x).flatten(0, 1).flatten().unsqueeze(0), writers)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)
    assert not ops & {aten.expand.default, aten.repeat.default, aten.repeat_interleave.self_int}


def test_padding_with_a_number() -> None:
    def body(x: Tensor) -> Tensor:
        ones = nn.functional.pad(x, (0, 1), value=1.0)
        return nn.functional.pad(ones, (2, 0, 1, 3), value=-0.5)

    wanted, got, ops = run(body, LITERT)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)
    assert not ops & {aten.pad.default, aten.constant_pad_nd.default}


@pytest.mark.parametrize("value", [1, -0.5])
def test_a_product_added(value: float) -> None:
    gain, bias = torch.rand(CHANNELS), torch.rand(1, 1, CHANNELS)
    wanted, got, ops = run(lambda x: torch.addcmul(bias, x, gain, value=value), EVERYWHERE)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)
    assert aten.addcmul.default not in ops


@pytest.mark.parametrize(
    "body",
    [
        lambda x: nn.functional.max_pool2d(nn.functional.pad(x, (1, 1, 1, 1), value=float("-inf")), 3, 1, 0, 2),
        lambda x: nn.functional.avg_pool2d((x * 9).long(), 3, 2, 1, count_include_pad=False).float(),
        lambda x: torch.cat([x.repeat(1, 0, 1, 1), x], 1),
        lambda x: nn.functional.pad(x, (), value=1.5) * 2,
    ],
)
def test_what_cannot_be_written_otherwise_stays(body: Any) -> None:
    """Windows that step over the edge, integers, nothing at all."""
    wanted, got, _ = run(lambda x: body(x.transpose(1, 2).reshape(1, CHANNELS, 4, 4)), LITERT)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)
