"""What is float between convolutions in int8, and what converters make of it: the files answer as the emulation."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

pytest.importorskip("executorch")
pytest.importorskip("litert_torch")
pytest.importorskip("onnxruntime")
pytest.importorskip("coremltools")

from bigvit_edge.export.convert import capture
from bigvit_edge.export.graph import Graph, Ranges
from bigvit_edge.export.integers import Integers
from bigvit_edge.export.quantization import bound_steps, choose_scale
from bigvit_edge.runtime.formats.onnx import set_options
from tests.export.convolutional import Between, aim, answer, draw, emulate, quantized, randomize, run

IMAGES = draw(3)
# What a converter writes as several ops, whose values between have no span.
CONVERTED: dict[str, Callable[[Tensor], Tensor]] = {
    "reflect": lambda x: F.pad(x.relu(), (1, 1, 1, 1), mode="reflect"),
    "replicate": lambda x: F.pad(x.relu(), (1, 1, 1, 1), mode="replicate"),
    "ceil": lambda x: F.max_pool2d(x.relu(), 3, 2, 1, ceil_mode=True),
    "nearest": lambda x: F.interpolate(x.relu(), scale_factor=1.7, mode="nearest"),
    "shuffle": lambda x: F.pixel_shuffle(x, 2).relu(),
    "factor": lambda x: x.relu() * 4,
}
ROW = nn.Conv1d(4, 4, 3, padding=2, dilation=2)
# What leaves XNNPACK's delegate and goes on in it as well; and an average and convolutions in float behind zeros.
PARTED: dict[str, Callable[[Tensor], Tensor]] = {
    "prelu": lambda x: F.prelu(x, torch.tensor([0.25])),
    "mish": F.mish,
    "where": lambda x: torch.where(x > 0, x, 0.1 * x),
    "average": lambda x: F.avg_pool2d(x.relu(), 3, 2, 1),
    "same": nn.Conv2d(4, 4, 4, padding="same", groups=2),
    "row": lambda x: ROW(x.flatten(2)).unflatten(2, x.shape[2:]),
}


def check_file(model: nn.Module, name: str, folder: Path) -> None:
    """Within a twentieth of the largest answer: layouts or scales that are mistaken are off by all of it."""
    graph, expected = (found := quantized(model, aim(name))[name]), emulate(found, IMAGES)
    _, got = run(graph, name, aim(name), folder, IMAGES)
    assert np.abs(got - expected).max() < 0.05 * np.abs(expected).max()
    assert graph.integers.weights


@pytest.mark.parametrize("how", CONVERTED)
def test_litert(how: str, tmp_path: Path) -> None:
    check_file(randomize(Between(CONVERTED[how])), "litert", tmp_path)


@pytest.mark.parametrize("how", PARTED)
def test_executorch(how: str, tmp_path: Path) -> None:
    check_file(randomize(Between(PARTED[how])), "executorch", tmp_path)


def test_a_convolution_without_a_name_in_core_ml(tmp_path: Path) -> None:
    """It has no layer to be listed under, but integers all the same."""
    blur = torch.ones(2, 2, 3, 3) / 18
    model = randomize(Between(lambda x: F.conv2d(x.relu().unflatten(1, (2, 2))[:, 0], blur, padding=1)))
    check_file(model, "coreml", tmp_path)


class Twice(nn.Module):
    """One convolution called twice on one value: [1, 3, S, S] -> [1, 4 S S]."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return (self.second(self.first(x).relu()).relu() + self.first(x).relu()).flatten(1)


@pytest.mark.parametrize("name", ["litert", "onnx"])
def test_a_convolution_called_twice_on_one_value(name: str, tmp_path: Path) -> None:
    check_file(randomize(Twice()), name, tmp_path)


def test_an_onnx_file_opens_where_products_must_be_exact(tmp_path: Path) -> None:
    """As on x86 without VNNI: each convolution has its weight and zero points to itself."""
    import onnxruntime

    model = randomize(Between(lambda x: x.relu()))
    graph = quantized(model, aim("onnx"))["onnx"]
    run(graph, "onnx", aim("onnx"), tmp_path, IMAGES)
    options = set_options(1)
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), options, providers=["CPUExecutionProvider"])
    got = np.concatenate([session.run(None, {"pixel_values": image[None]})[0] for image in IMAGES])
    np.testing.assert_allclose(got, emulate(graph, IMAGES), atol=0.05 * np.abs(got).max())


class Tokens(nn.Module):
    """A Linear of 32 inputs between two convolutions: [1, 3, S, S] -> [1, 5]."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.expand, self.project = nn.Conv2d(3, 32, 4, 4), nn.Linear(32, 64), nn.Linear(64, 32)
        self.second, self.head = nn.Conv2d(32, 8, 3, 2, 1), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        t = x.flatten(2).transpose(1, 2)  # [1, N, 32]
        t = t + self.project(F.gelu(self.expand(t)))
        x = self.second(t.transpose(1, 2).reshape(x.shape))
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


def test_int4_linears_beside_int8_convolutions_in_litert(tmp_path: Path) -> None:
    target = aim("litert", precision="int4")
    graph = quantized(randomize(Tokens()), target)["litert"]
    assert sorted(graph.layers.values()).count("int4") >= 2
    assert graph.integers.weights
    _, got = run(graph, "litert", target, tmp_path, IMAGES)
    expected = emulate(graph, IMAGES)
    assert np.abs(got - expected).max() < 0.2 * np.abs(expected).max()


class MultiQuery(nn.Module):
    """Attention whose queries are a convolution's, two heads of them, and whose keys are few: [1, 4, S, S] alike."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.query, self.key, self.value = nn.Conv2d(4, 4, 4, 4), *(nn.Conv2d(4, n, 1) for n in (16, 8, 8))
        self.output = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        q = self.query(x).reshape(1, 2, 8, -1).transpose(2, 3)  # [1, 2, N, 8]
        k, v = (own(self.down(x)).reshape(1, 8, -1).transpose(1, 2)[:, None] for own in (self.key, self.value))
        attended = F.scaled_dot_product_attention(q, k, v).transpose(2, 3)  # [1, 2, 8, N]
        return x + self.output(attended.reshape(1, 16, *x.shape[2:]))  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ["executorch", "litert", "onnx"])
def test_queries_of_a_convolution(name: str, tmp_path: Path) -> None:
    """LiteRT's converter scales the queries in the convolution and names them after the attention."""
    check_file(randomize(Between(MultiQuery())), name, tmp_path)


class Fading(nn.Module):
    """Four convolutions that divide what they read by about ten thousand each: [1, 3, S, S] -> [1, 4 S S]."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(n, 4, 3, padding=1, bias=False) for n in (3, 4, 4, 4))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x).relu()
        return x.flatten(1)


@pytest.mark.parametrize("name", ["executorch", "litert", "onnx"])
def test_a_network_whose_signal_fades(name: str, tmp_path: Path) -> None:
    """As those with random weights do: its values are held in steps of their own, however small."""
    model = randomize(Fading())
    with torch.no_grad():
        for weight in model.parameters():
            weight *= 1e-4
    check_file(model, name, tmp_path)
    assert 0 < np.abs(answer(model, IMAGES)).max() < 1e-14


@pytest.mark.parametrize("name", ["executorch", "litert", "onnx"])
def test_an_activation_that_is_next_to_nothing(name: str, tmp_path: Path) -> None:
    """XNNPACK takes no convolution whose products are 256 steps of its output; LiteRT's file has no value to know."""
    model = randomize(Between(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())))
    conv = model.how[0]
    with torch.no_grad():
        conv.bias -= conv(model.first(torch.from_numpy(draw(8, seed=2)))).amax((0, 2, 3)) - 1e-9
    check_file(model, name, tmp_path)


def test_half_has_the_scales_of_a_core_ml_package() -> None:
    graph = Graph(  # of values of 1e-16, which float16 has not
        capture(randomize(Between(nn.ReLU())), 16).exported, ranges={"head": Ranges((0.0, 1e-16), (-1e-16, 0.0))},
        integers=Integers(spans={"x": (-1.0, 2.0), "y": (-1e-16, 3e-16)}),
    )  # fmt: skip
    bound = bound_steps(graph)
    spans = [*bound.integers.spans.values(), bound.ranges["head"].input, bound.ranges["head"].output]
    assert all(np.float16(choose_scale(span)[0]) > 0 for span in spans)
    assert bound.integers.spans["x"] == (-1.0, 2.0)
