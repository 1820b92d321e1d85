"""Where a graph computes in int8: the cheapest way, and nothing that no convolution wants."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.nn import functional as F

from bigvit_edge.export.convert import capture, rewrite
from bigvit_edge.export.coverage import count_conversions
from bigvit_edge.export.graph import Graph, read_constants
from bigvit_edge.export.integers import Integers
from bigvit_edge.export.placement import (
    LIGHT,
    has_kernel,
    list_convolutions,
    list_merged,
    list_values,
    place_integers,
    write_copies,
    write_for_integers,
)
from bigvit_edge.models.vit import ViT
from tests.export.convolutional import SIZE, Between, Hybrid, randomize

aten = torch.ops.aten


def prepare(how: Callable[[Tensor], Tensor]) -> Graph:
    graph = rewrite(capture(randomize(Between(how)), SIZE))
    return Graph(write_for_integers(graph.exported))


def place(graph: Graph, runtime: str = "executorch") -> tuple[list[str], int]:
    """The ops in int8 by name, and how many conversions that takes."""
    ops = place_integers(graph.exported, list_convolutions(graph.exported), runtime)
    spans = dict.fromkeys((value.name for value, _ in list_values(graph.exported, ops)), (0.0, 1.0))
    names = [node.name for node in ops]
    return names, count_conversions(replace(graph, integers=Integers(frozenset(names), spans)))


INSIDE: dict[str, Callable[[Tensor], Tensor]] = {
    "relu6": F.relu6,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "sum with itself": lambda x: x + x.relu(),
    "pooling": lambda x: F.max_pool2d(x, 2),
    "mean": lambda x: x * x.mean((2, 3), keepdim=True),
    "padding": lambda x: F.pad(x, (0, 1, 0, 1)),
    "halves": lambda x: torch.cat(x.chunk(2, 1)[::-1], 1),
    "shuffle": lambda x: x.view(1, 2, 2, SIZE, SIZE).transpose(1, 2).flatten(1, 2),
}


@pytest.mark.parametrize("name", INSIDE)
def test_what_is_between_convolutions_is_int8(name: str) -> None:
    graph = prepare(INSIDE[name])
    calls = [n.name for n in graph.exported.graph.nodes if n.op == "call_function"]
    for runtime in ("executorch", "litert", "onnx"):
        ops, conversions = place(graph, runtime)
        assert set(calls) - set(ops) <= {"flatten"}, runtime
        assert conversions == 2  # the image, and the logits


OUTSIDE: dict[str, Callable[[Tensor], Tensor]] = {
    "exponential": torch.exp,
    "softmax": lambda x: x.softmax(1),
    "layer norm": lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (4,)).permute(0, 3, 1, 2),
    "factor": lambda x: x.abs() * 2.5,
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_what_no_runtime_has_is_float_between_two_conversions(name: str) -> None:
    graph = prepare(OUTSIDE[name])
    for runtime in LIGHT:
        ops, conversions = place(graph, runtime)
        assert {"conv2d", "conv2d_1"} <= set(ops)
        assert conversions == 4


def test_an_op_between_two_in_float_stays_float() -> None:
    """Its conversions would cost more than it does."""
    ops, conversions = place(prepare(lambda x: x.exp().relu().exp()))
    assert "relu" not in ops
    assert conversions == 4
    ops, _ = place(prepare(lambda x: x.exp().sigmoid().transpose(2, 3).transpose(1, 2).exp()))
    assert {"conv2d", "conv2d_1"} <= set(ops)
    assert not {"sigmoid", "transpose", "transpose_1"} & set(ops)


def test_a_value_read_in_int8_and_in_float_is_converted_once_for_all_that_read_it_so() -> None:
    ops, conversions = place(prepare(lambda x: (y := x.relu()) + y.exp() * y.cos()))
    assert {"relu", "mul", "add"} <= set(ops)
    assert not {"exp", "cos"} & set(ops)
    assert conversions == 5  # the image, the clipped value back, two results of it, the logits


def test_a_model_without_convolutions_has_none() -> None:
    model = ViT(image_size=16, patch=8, dim=16, depth=1, head_dim=8, num_classes=5).eval()
    graph = rewrite(capture(model, 16))
    assert list_convolutions(graph.exported) == []
    assert place_integers(graph.exported, [], "executorch") == []
    assert write_for_integers(graph.exported) is write_copies(graph.exported) is graph.exported


def test_convolutions_are_of_images_and_have_weights_of_their_own() -> None:
    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows, self.image, self.up = nn.Conv1d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 3, 2, 2)
            self.volume = nn.Conv3d(1, 2, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.rows(x.flatten(2))
            z = F.conv2d(self.up(self.image(x)), y[:, :3, :9].view(1, 3, 3, 3))
            return z.mean((2, 3)) + y.mean() + self.volume(x[:, None]).mean() + self.image(x[0]).mean()

    graph = rewrite(capture(randomize(Several()), SIZE))
    found = list_convolutions(graph.exported)
    assert [node.target for node in found] == [aten.conv2d.default, aten.conv_transpose2d.input]
    assert all(node.args[1] in read_constants(graph.exported) for node in found)


def test_weights_and_sizes_decide_about_a_kernel() -> None:
    class Kinds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide = nn.Conv2d(4, 4, 7, padding=3, groups=4)
            self.small = nn.Conv2d(4, 4, 5, padding=2, groups=4)
            self.grouped = nn.ConvTranspose2d(4, 4, 2, 2, groups=2)
            self.single = nn.Conv2d(1, 1, 7, padding=3)  # of one channel: dense

        def forward(self, x: Tensor) -> Tensor:
            y = self.grouped(self.small(self.wide(torch.cat([x, x[:, :1]], 1))))
            return self.single(y[:, :1])  # type: ignore[no-any-return]

    wide, small, grouped, single = list_convolutions(rewrite(capture(randomize(Kinds()), SIZE)).exported)
    kernels = {name: [has_kernel(n, name) for n in (wide, small, grouped, single)] for name in LIGHT}
    assert kernels == {
        "executorch": [False, True, False, True],
        "litert": [False, True, False, True],
        "onnx": [True] * 4,
        "coreml": [True] * 4,
    }


def test_a_mean_of_some_pixels_a_wrapped_padding_and_numbers_stay_float() -> None:
    for how, op in (
        (lambda x: x * x.mean(2, keepdim=True), "mean"),
        (lambda x: F.pad(x, (1, 1), value=1.0), "pad"),
        (lambda x: F.adaptive_avg_pool2d(x, 2), "adaptive_avg_pool2d"),
        (lambda x: x.relu() + 1, "add"),
        (lambda x: torch.add(x, x.exp(), alpha=2), "add"),
        (lambda x: x[:, :, ::2], "slice_1"),
    ):
        graph = prepare(how)
        assert not any(op in place(graph, runtime)[0] for runtime in LIGHT), op


# ---- spans -----------------------------------------------------------------------------------------------------------


def node_of(graph: Graph, name: str) -> Node:
    return next(node for node in graph.exported.graph.nodes if node.name == name)


def test_what_is_one_kernel_has_no_value_and_moves_share_one() -> None:
    graph = prepare(lambda x: F.max_pool2d(F.relu6(x), 2).transpose(2, 3) + 0.0)
    ops = place_integers(graph.exported, list_convolutions(graph.exported), "executorch")
    assert [node.name for node in list_merged(ops)] == ["conv2d"]
    values = {value.name: leader.name for value, leader in list_values(graph.exported, ops)}
    assert "conv2d" not in values
    assert values["relu6"] == values["max_pool2d"] == values["transpose"]
    assert len({values["image"] if "image" in values else values["x"], values["relu6"], values["conv2d_1"]}) == 3


def test_a_convolution_read_before_its_clip_has_a_value() -> None:
    graph = prepare(lambda x: x.relu() + x)
    ops = place_integers(graph.exported, list_convolutions(graph.exported), "executorch")
    assert list_merged(ops) == set()


# ---- what is written otherwise ---------------------------------------------------------------------------------------


class Norms(nn.Module):
    """Batch norms that no convolution takes in."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False)
        for name, value in (("running_mean", 0.3), ("running_var", 2.0)):
            getattr(self.second, name).fill_(value)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x.relu()).sigmoid())  # type: ignore[no-any-return]


WRITTEN: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "chunks": lambda x: x.chunk(2, 1)[1] * x.split([1, 2, 1], 1)[1],
    "norms": randomize(nn.Sequential(nn.Conv2d(3, 4, 1), Norms()))[1],  # type: ignore[index]
}


@pytest.mark.parametrize("name", WRITTEN)
def test_other_ops_compute_the_same(name: str) -> None:
    graph = rewrite(capture(randomize(Between(WRITTEN[name])), SIZE))
    image = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    written = write_for_integers(graph.exported)
    expected = graph.exported.module()(image)
    torch.testing.assert_close(written.module()(image), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(graph.exported.module()(image), expected, atol=0, rtol=0)
    targets = {node.target for node in written.graph.nodes}
    assert not targets & {aten.silu.default, aten.batch_norm.default, aten.chunk.default, aten.split_with_sizes.default}


def test_several_results_a_channel_are_of_copies() -> None:
    model = randomize(Between(nn.Conv2d(4, 12, 3, 2, 1, groups=4)))
    graph = rewrite(capture(model, SIZE))
    written = write_copies(graph.exported)
    image = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(written.module()(image), model(image), atol=1e-5, rtol=1e-5)
    groups = [(*node.args, 1)[6] for node in list_convolutions(written) if len(node.args) > 6]
    assert groups == [12]


def test_a_whole_hybrid_is_one_region_but_for_its_attention() -> None:
    graph = Graph(write_for_integers(rewrite(capture(randomize(Hybrid()), SIZE)).exported))
    ops, conversions = place(graph)
    assert conversions == 2
    outside = {n.name for n in graph.exported.graph.nodes if n.op == "call_function"} - set(ops)
    assert {name.split("_")[0] for name in outside} >= {"layer", "linear", "scaled"}
    assert not {name for name in outside if name.startswith(("conv", "relu", "gelu", "hardswish", "cat", "mul"))}
