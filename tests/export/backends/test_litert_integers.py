"""Convolutions and what is between them in int8 in a .tflite: the kernel against NumPy, networks against PyTorch."""

from collections import Counter
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
from bigvit_edge.export.backends.litert import contents, integers, readback, simplification
from bigvit_edge.export.graph import Graph, read_constants
from bigvit_edge.export.integers import NONE, Integers, Range, Rounded
from bigvit_edge.export.quantization import choose_scale
from bigvit_edge.export.rewrite import rewrite_all
from bigvit_edge.runtime.tflite import list_methods
from tests.export.backends.test_litert import TARGET, bytes_of, capture, list_ops, lower, only_method, randomize

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
            if rounded.bias is not None:
                arguments[2] = rounded.bias
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


def stem(*rest: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU6(), *rest)


def squeeze() -> nn.Module:
    gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 1), nn.Sigmoid())
    return Join(torch.mul, nn.Identity(), gate)


def conv(*options: int, **more: Any) -> nn.Module:
    return nn.Conv2d(8, 8, *options, **more)  # type: ignore[arg-type]


def cat(a: Tensor, b: Tensor) -> Tensor:
    return torch.cat([a, b], 1)


# name -> body [1, 3, 32, 32] -> [1, 8, h, w], and how many conversions its file has: two of one region in int8, two for
# each op in float between, one where what is joined or resized is to have another span
CASES: Mapping[str, tuple[Callable[[], nn.Module], int]] = {
    "plain": (lambda: nn.Conv2d(3, 8, (3, 5), (2, 1), (1, 2)), 2),
    "kinds": (
        lambda: stem(
            conv(1), conv(3, 1, 1, groups=8), nn.ReLU(), conv(3, 1, 1, groups=2), conv(3, 1, 2, 2), conv(3, bias=False)
        ),
        2,
    ),
    "edges": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 8, 3, groups=4), nn.ZeroPad2d((0, 1, 0, 1)), conv(3, 2)),
        2,
    ),
    "transposed": (lambda: stem(nn.ConvTranspose2d(8, 8, 2, 2), nn.ReLU(), nn.ConvTranspose2d(8, 8, 4, 2, 1)), 2),
    "sums": (
        lambda: stem(Join(torch.add, nn.Identity(), conv(3, 1, 1)), Join(torch.sub, nn.Identity(), conv(1)), nn.ReLU()),
        2,
    ),
    "concat": (lambda: stem(Join(cat, nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 3, padding=1))), 3),
    "squeeze and excite": (lambda: stem(squeeze(), conv(1)), 2),
    "pools": (lambda: stem(nn.MaxPool2d(3, 2, 1), conv(1), nn.AvgPool2d(2), conv(1)), 4),
    "smooth": (lambda: stem(conv(1), nn.GELU(), conv(1), nn.Hardswish(), conv(1), nn.SiLU(), conv(1)), 6),
    "hard sigmoid": (lambda: stem(conv(1), nn.Hardsigmoid(), conv(1)), 2),
    "clamp alone": (lambda: stem(Join(torch.add, nn.Identity(), conv(1)), nn.Hardtanh(-0.5, 1.5)), 4),
    "sizes": (
        lambda: stem(nn.Upsample(scale_factor=2), conv(1), nn.Upsample(scale_factor=2, mode="bilinear"), conv(1)),
        2,
    ),
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
    assert method.conversions == conversions
    ops = [op for op in list_ops(file) if "CONV" in op.name]
    assert all({"INT8", "INT32"} == op.types for op in ops)
    assert len(ops) >= len(graph.integers.weights)


class Arrange(nn.Module):
    """Channels in the order of their means, of which nothing but the order is used."""

    def forward(self, x: Tensor) -> Tensor:
        return x.index_select(1, x.mean((0, 2, 3)).topk(8).indices)


def test_an_op_stays_whose_second_output_alone_is_read(tmp_path: Path) -> None:
    graph = build(stem(conv(1), Arrange(), conv(1)))
    leave = frozenset(n.name for n in graph.exported.graph.nodes if n.name.startswith(("topk", "getitem", "index")))
    graph, given = plan(graph, leave), images(4)
    exact = np.concatenate([Emulation(replace(graph, integers=Integers())).answer(image) for image in given])
    got = run(bytes_of(lower(graph)), tmp_path, given)
    assert np.abs(got - exact).max() < 0.2 * np.ptp(exact, axis=0).max()


def test_a_convolution_is_that_of_integers(tmp_path: Path) -> None:
    """Zeros around the image are the zero point; sums are of integers, and rounded once."""
    model = randomize(nn.Conv2d(3, 8, 3, 2, 1)).eval()
    scale, zero, given = *choose_scale((-3.0, 4.0)), images(1, 9)[0]
    steps, offset = choose_scale((-2.0, 2.5))
    graph = capture(nn.Sequential(model, nn.Flatten()), 9)
    (conv, _, *_) = [n for n in graph.exported.graph.nodes if n.op == "call_function"]
    rounded = round_weight(conv, model.weight.detach())
    spans = {str(conv.args[0]): (-3.0, 4.0), conv.name: (-2.0, 2.5)}
    file = lower(replace(graph, integers=Integers(frozenset({conv.name}), spans, {conv.name: rounded})))
    got = run(bytes_of(file), tmp_path, given[None]).reshape(8, 5, 5)

    image = np.clip(np.round(given[0].numpy() / np.float32(scale)) + zero, -128, 127).astype(int) - zero
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
    weights = rounded.integers.numpy().astype(int)
    unit = scale * rounded.scale.double().numpy()
    bias = np.round(model.bias.detach().double().numpy() / unit)
    sums = [
        [[(weights[o] * padded[:, 2 * y : 2 * y + 3, 2 * x : 2 * x + 3]).sum() for x in range(5)] for y in range(5)]
        for o in range(8)
    ]
    exact = (np.array(sums) + bias[:, None, None]) * unit[:, None, None] / steps
    expected = np.clip(np.round(exact) + offset, -128, 127)
    integers = got / steps + offset
    assert np.allclose(integers, np.round(integers), atol=1e-3)
    assert np.abs(integers - expected).max() < 1.01  # float32 rounds a tie to the other side
    assert (np.abs(integers - expected) < 0.01).mean() > 0.97
    assert len(np.unique(expected)) > 50


def test_channels_that_are_zero_and_values_that_never_vary(tmp_path: Path) -> None:
    """No scale is 0 or NaN, and a bias that its channel's steps are too fine for is kept."""
    body = stem(Join(torch.add, nn.Identity(), nn.Conv2d(8, 8, 3, 1, 1)), nn.Conv2d(8, 8, 1))
    graph = build(body)
    with torch.no_grad():
        values = dict(graph.exported.state_dict)
        values["0.2.parts.1.weight"].zero_()  # a sum with what is always zero
        values["0.2.parts.1.bias"].zero_()
        values["0.3.weight"][3] = 0
        values["0.3.bias"][3] = 20
    graph = plan(graph)
    file, given = lower(graph), images(4)
    got = run(bytes_of(file), tmp_path, given)
    exact = np.concatenate([Emulation(replace(graph, integers=Integers())).answer(image) for image in given])
    assert np.isfinite(got).all()
    assert np.abs(got - exact).max() < 0.02 * np.abs(exact).max()
    assert (only_method(file).delegates, only_method(file).leftovers) == (1, ())
    for tensor in contents.read_model(bytes_of(file)).subgraphs[0].tensors:
        if tensor.quantization is not None and tensor.quantization.scale is not None:
            assert (tensor.quantization.scale > 0).all()


def test_a_bias_of_one_s_own_and_what_stays_float(tmp_path: Path) -> None:
    graph = plan(build(stem(nn.Conv2d(8, 8, 1), nn.Hardsigmoid(), nn.Conv2d(8, 8, 1))))
    first, _, last = sorted(graph.integers.weights)
    biased = {
        name: replace(rounded, bias=torch.linspace(-0.5, 0.5, 8)) if name == last else rounded
        for name, rounded in graph.integers.weights.items()
    }
    graph = replace(graph, integers=replace(graph.integers, weights=biased))
    given = images(2)
    got = run(bytes_of(lower(graph)), tmp_path, given)
    emulated = np.concatenate([Emulation(graph).answer(image) for image in given])
    assert np.abs(got - emulated).max() < 0.02

    ops = graph.integers.ops - {first}
    left = {name: rounded for name, rounded in biased.items() if name != first}
    file = lower(replace(graph, integers=replace(graph.integers, ops=ops, weights=left)))
    assert Counter("INT8" in op.types for op in list_ops(file) if op.name == "CONV_2D") == {True: 2, False: 1}


def test_two_signatures_each_have_their_own(tmp_path: Path) -> None:
    body = stem(nn.Conv2d(8, 8, 3, 1, 1))
    graphs = [replace(plan(build(body)), keep=keep) for keep in (0.5, 1.0)]
    wide = {name: (3 * low, 3 * high) for name, (low, high) in graphs[1].integers.spans.items()}
    graphs[1] = replace(graphs[1], integers=replace(graphs[1].integers, spans=wide))
    data = bytes_of(litert.lower(graphs, TARGET, {}))
    (tmp_path / "m.tflite").write_bytes(data)
    given = images(2)
    for graph, name in zip(graphs, list_methods(data), strict=True):
        runner = litert.load(tmp_path / "m.tflite", method=name)
        got = np.concatenate([runner.run(image.numpy()) for image in given])
        emulated = np.concatenate([Emulation(graph).answer(image) for image in given])
        assert np.abs(got - emulated).max() < 0.01
    assert [readback.count_conversions(data, number) for number in (0, 1)] == [2, 2]


@pytest.fixture(scope="module")
def simple() -> Graph:
    return plan(build(stem(nn.Conv2d(8, 8, 3, 1, 1))))


def test_linears_beside_are_the_quantiser_s(simple: Graph) -> None:
    file = lower(replace(simple, layers={"3": "int8"}))
    assert Counter(op.name for op in list_ops(file) if "INT8" in op.types and "INT32" not in op.types) == {
        "QUANTIZE": 1,
        "DEQUANTIZE": 1,
        "FULLY_CONNECTED": 1,
    }


@pytest.mark.parametrize("fault", ["span", "weight", "op", "more"])
def test_a_file_that_is_not_as_the_graph_says_is_an_error(
    fault: str, simple: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check reads the file; what wrote it is told something else."""
    honest, plan = integers.check_subgraph, simple.integers
    name = sorted(plan.weights)[-1]
    other = {
        "span": replace(plan, spans={**plan.spans, name: (-9.0, 9.0)}),
        "weight": replace(plan, weights={**plan.weights, name: round_weight_of(plan.weights[name])}),
        "op": replace(plan, ops=plan.ops - {name}, weights={k: v for k, v in plan.weights.items() if k != name}),
        "more": plan,
    }[fault]
    said = replace(plan, ops=frozenset(), weights={}) if fault == "more" else plan

    def check(before: Any, after: Any, number: int, graph: Graph, *rest: Any) -> None:
        honest(before, after, number, replace(simple, integers=said), *rest)

    monkeypatch.setattr(integers, "check_subgraph", check)
    words = {"span": "has the scale", "weight": "is not the float one", "op": "did not become", "more": "does not say"}
    with pytest.raises(RuntimeError, match=words[fault]):
        lower(replace(simple, integers=other))


def round_weight_of(rounded: Rounded) -> Rounded:
    return replace(rounded, integers=rounded.integers.flip(1))


def test_names_of_tensors_are_the_modules(simple: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    litert._float_files.clear()
    data, (nodes,) = litert.lower_float([simple], ["a"])
    monkeypatch.setattr(simplification, "has_convolutions", lambda exported: False)
    litert._float_files.clear()
    plain, (none,) = litert.lower_float([replace(simple, integers=NONE)], ["a"])
    litert._float_files.clear()
    names = [[t.name for t in contents.read_model(file).subgraphs[0].tensors] for file in (data, plain)]
    assert names[0] == names[1]
    assert (len(nodes) > 5, none) == (True, {})
    assert {node for made in nodes.values() for node in made} <= {node.name for node in simple.exported.graph.nodes}
