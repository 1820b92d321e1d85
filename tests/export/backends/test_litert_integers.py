"""Convolutions and what is between them in int8 in a .tflite: the kernel against NumPy, networks against PyTorch."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.fx import Interpreter, Node

from bigvit_edge.artifact import Array
from bigvit_edge.export.backends import litert
from bigvit_edge.export.backends.litert import readback
from bigvit_edge.export.graph import Graph, read_constants
from bigvit_edge.export.integers import Integers, Range, Rounded
from bigvit_edge.export.quantization import choose_scale
from bigvit_edge.export.rewrite import rewrite_all
from tests.export.backends.test_litert import bytes_of, capture, list_ops, lower, only_method, randomize

aten = torch.ops.aten

CONVOLUTIONS = {aten.conv2d.default, aten.conv_transpose2d.input}
CLAMPS = {aten.relu.default, aten.hardtanh.default, aten.clamp.default}
TIED = {aten.max_pool2d.default, aten.pad.default, aten.constant_pad_nd.default, aten.reshape.default}


class Emulation(Interpreter):
    """The graph in PyTorch with every value that has a span rounded, and the weights rounded; or watched in float."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph.exported.graph_module)
        self.plan, self.seen = graph.integers, dict[str, Range]()
        self.data = {node.name: value for node, value in read_constants(graph.exported).items()}
        self.inputs = [n.name for n in graph.exported.graph.find_nodes(op="placeholder")]

    def answer(self, image: Tensor) -> Any:
        with torch.no_grad():
            return self.run(*(self.data.get(name, image) for name in self.inputs))[0].numpy()

    def run_node(self, n: Node) -> Any:
        if n.name in self.plan.weights:
            rounded, arguments = self.plan.weights[n.name], list(self.fetch_args_kwargs_from_env(n)[0])
            arguments[1] = rounded.integers * spread(rounded.scale, n)
            arguments[2] = arguments[2] if rounded.bias is None else rounded.bias
            value = n.target(*arguments)  # type: ignore[operator]
        else:
            value = super().run_node(n)
        if isinstance(value, Tensor) and value.dtype == torch.float32:
            low, high = self.seen.get(n.name, (0.0, 0.0))
            self.seen[n.name] = min(low, float(value.min())), max(high, float(value.max()))
        if n.name in self.plan.spans:
            scale, zero = choose_scale(self.plan.spans[n.name])
            value = (torch.round(value / scale + zero).clamp(-128, 127) - zero) * scale
        return value


def spread(scale: Tensor, node: Node) -> Tensor:
    return scale.view((1, -1, 1, 1) if node.target is aten.conv_transpose2d.input else (-1, 1, 1, 1))


def round_weight(node: Node, weight: Tensor) -> Rounded:
    over = (0, 2, 3) if node.target is aten.conv_transpose2d.input else (1, 2, 3)
    scale = (weight.abs().amax(over) / 127).clamp(min=1e-7)
    return Rounded(torch.round(weight / spread(scale, node)).to(torch.int8), scale, None)


def images(count: int, size: int = 32) -> Tensor:
    return torch.randn(count, 1, 3, size, size, generator=torch.Generator().manual_seed(1))


def plan(graph: Graph, leave: frozenset[str] = frozenset()) -> Graph:
    """Every op that gives float32 in int8, but Linears and those left."""
    watched, constants = Emulation(graph), read_constants(graph.exported)
    for image in images(4):
        watched.answer(image)
    nodes = graph.exported.graph.find_nodes(op="call_function", target=aten.linear.default)
    linear = {n for first in nodes for n in [first, *first.users]}
    ops = [n for n in graph.exported.graph.nodes if n.op == "call_function" and n not in linear and n.name not in leave]
    spans: dict[str, Range] = {}
    for node in ops:
        for source in node.all_input_nodes:
            if source not in constants:
                spans.setdefault(source.name, watched.seen[source.name])
        spans[node.name] = spans[node.all_input_nodes[0].name] if node.target in TIED else watched.seen[node.name]
    for node in ops:  # one kernel with the next
        if node.target in CONVOLUTIONS and [user.target in CLAMPS and user in ops for user in node.users] == [True]:
            del spans[node.name]
        if node.target in (aten.pad.default, aten.constant_pad_nd.default):
            del spans[node.name]
    rounded = {n.name: round_weight(n, constants[n.args[1]]) for n in ops if n.target in CONVOLUTIONS}  # type: ignore[index]
    return replace(graph, precision="int8", integers=Integers(frozenset(n.name for n in ops), spans, rounded))


def build(body: nn.Module) -> Graph:
    model = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    graph = capture(randomize(model))
    return Graph(rewrite_all(graph.exported))


def run(data: bytes, folder: Path, given: Tensor) -> Array:
    (folder / "m.tflite").write_bytes(data)
    runner = litert.load(folder / "m.tflite")
    return np.concatenate([runner.run(image.numpy()) for image in given])


class Join(nn.Module):
    """Two bodies of one value, joined."""

    def __init__(self, how: Callable[..., Tensor], *parts: nn.Module) -> None:
        super().__init__()
        self.how, self.parts = how, nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        return self.how(*(part(x) for part in self.parts))


class Scaled(nn.Module):
    """A convolution times a number for each channel, some of them negative, one zero."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)
        self.register_buffer("gamma", torch.tensor([1.5, -0.5, 0.25, 0.0, 2.0, -1.0, 0.1, 1.0]).view(8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * self.gamma  # type: ignore[no-any-return]


def stem(*rest: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU6(), *rest)


def squeeze() -> nn.Module:
    gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 1), nn.Sigmoid())
    return Join(torch.mul, nn.Identity(), gate)


# name -> body [1, 3, 32, 32] -> [1, 8, h, w], and how many conversions its file has: two of one region in
# int8, one more where what is joined or resized is to have another span
CASES: Mapping[str, tuple[Callable[[], nn.Module], int]] = {
    "plain": (lambda: nn.Conv2d(3, 8, 3, padding=1), 2),
    "relu6": (stem, 2),
    "pointwise": (lambda: stem(nn.Conv2d(8, 8, 1)), 2),
    "depthwise": (lambda: stem(nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.ReLU()), 2),
    "multiplier": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 8, 3, groups=4)), 2),
    "grouped": (lambda: stem(nn.Conv2d(8, 8, 3, 1, 1, groups=2)), 2),
    "dilated": (lambda: stem(nn.Conv2d(8, 8, 3, 1, 2, dilation=2)), 2),
    "asymmetric": (lambda: stem(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(8, 8, 3, 2)), 2),
    "rectangular": (lambda: nn.Conv2d(3, 8, (3, 5), (2, 1), (1, 2)), 2),
    "transposed": (lambda: stem(nn.ConvTranspose2d(8, 8, 2, 2)), 2),
    "transposed 4": (lambda: stem(nn.ConvTranspose2d(8, 8, 4, 2, 1)), 2),
    "no bias": (lambda: stem(nn.Conv2d(8, 8, 3, 1, 1, bias=False)), 2),
    "residual": (lambda: stem(Join(torch.add, nn.Identity(), nn.Conv2d(8, 8, 3, 1, 1))), 2),
    "difference": (lambda: stem(Join(torch.sub, nn.Identity(), nn.Conv2d(8, 8, 3, 1, 1)), nn.ReLU()), 2),
    "concat": (
        lambda: stem(Join(lambda a, b: torch.cat([a, b], 1), nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 3, padding=1))),
        3,
    ),
    "squeeze and excite": (lambda: stem(squeeze(), nn.Conv2d(8, 8, 1)), 2),
    "max pool": (lambda: stem(nn.MaxPool2d(3, 2, 1), nn.Conv2d(8, 8, 1)), 2),
    "average pool": (lambda: stem(nn.AvgPool2d(2), nn.Conv2d(8, 8, 1)), 4),
    "gelu": (lambda: stem(nn.Conv2d(8, 8, 1), nn.GELU(), nn.Conv2d(8, 8, 1)), 4),
    "hardswish": (lambda: stem(nn.Conv2d(8, 8, 1), nn.Hardswish(), nn.Conv2d(8, 8, 1)), 4),
    "silu": (lambda: stem(nn.Conv2d(8, 8, 1), nn.SiLU(), nn.Conv2d(8, 8, 1)), 2),
    "hardsigmoid": (lambda: stem(nn.Conv2d(8, 8, 1), nn.Hardsigmoid(), nn.Conv2d(8, 8, 1)), 2),
    "clamp alone": (lambda: stem(Join(torch.add, nn.Identity(), nn.Conv2d(8, 8, 1)), nn.Hardtanh(-0.5, 1.5)), 4),
    "scaled": (lambda: stem(Scaled(), nn.Conv2d(8, 8, 1)), 2),
    "nearest": (lambda: stem(nn.Upsample(scale_factor=2), nn.Conv2d(8, 8, 1)), 2),
    "bilinear": (lambda: stem(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(8, 8, 1)), 3),
}


@pytest.mark.parametrize("name", CASES)
def test_a_network_answers_as_its_integers_in_pytorch(name: str, tmp_path: Path) -> None:
    body, conversions = CASES[name]
    graph = plan(build(body()))
    file = lower(graph)
    given = images(4)
    got = run(bytes_of(file), tmp_path, given)
    emulated = np.concatenate([Emulation(graph).answer(image) for image in given])
    exact = np.concatenate([Emulation(replace(graph, integers=Integers())).answer(image) for image in given])
    rounding = np.abs(emulated - exact).max()
    assert 0 < rounding < 0.3 * np.ptp(exact, axis=0).max()
    assert np.abs(got - emulated).max() < 1.5 * rounding  # a wrong scale is a hundred times that
    method = only_method(file)
    assert (method.delegates, method.leftovers) == (1, ())
    assert readback.count_conversions(bytes_of(file)) == conversions
    ops = [op for op in list_ops(file) if "CONV" in op.name]
    assert all({"INT8", "INT32"} == op.types for op in ops)
    assert len(ops) >= len(graph.integers.weights)
