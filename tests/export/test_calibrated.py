"""int8 on calibrated ranges by format: files against the emulation, bad input, and models it does not touch."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bigvit_edge.export.calibrated import add_integers, convolves, join_spans
from bigvit_edge.export.convert import capture, rewrite
from bigvit_edge.export.coverage import count_conversions
from bigvit_edge.export.graph import Graph
from bigvit_edge.export.quantization import choose_scale
from bigvit_edge.models.vit import ViT
from bigvit_edge.target import Quant
from tests.export.convolutional import (
    FORMATS,
    SIZE,
    Between,
    Hybrid,
    aim,
    answer,
    draw,
    emulate,
    measure,
    quantized,
    randomize,
    run,
)

aten = torch.ops.aten
TARGET = aim(*FORMATS)


def check_numbers(graph: Graph) -> None:
    """No scale is zero or not a number, and no weight is -128."""
    for span in graph.integers.spans.values():
        scale, zero = choose_scale(span)
        assert np.isfinite([*span, scale, zero]).all()
        assert scale > 0
    for rounded in graph.integers.weights.values():
        assert int(rounded.integers.min()) >= -127
        assert rounded.scale.isfinite().all()
        assert (rounded.scale > 0).all()
        assert rounded.bias is None or rounded.bias.isfinite().all()


# ---- a whole hybrid in each format -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hybrid() -> tuple[nn.Module, Mapping[str, Graph]]:
    model = randomize(Hybrid())
    return model, quantized(model, TARGET)


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_answers_as_the_emulation(
    name: str, hybrid: tuple[nn.Module, Mapping[str, Graph]], tmp_path: Path
) -> None:
    model, graphs = hybrid
    images, graph = draw(), graphs[name]
    check_numbers(graph)
    expected, exact = emulate(graph, images), answer(model, images)
    artifact, got = run(graph, name, TARGET, tmp_path, images)
    rounding = measure(expected - exact)
    assert 0 < rounding < 0.1 * measure(exact - exact.mean(0))
    assert measure(got - expected) < rounding
    assert measure(got - exact) < 1.5 * rounding
    (method,) = artifact.methods
    assert method.leftovers == ()
    assert method.delegates == (0 if name == "onnx" else 1)  # ONNX Runtime has none
    convolutions = sum(isinstance(part, nn.Conv2d) for part in model.modules())
    assert len(graph.integers.weights) == convolutions
    assert set(graph.layers) == {n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}


def test_formats_share_ranges_and_weights(hybrid: tuple[nn.Module, Mapping[str, Graph]]) -> None:
    _, graphs = hybrid
    first, *others = graphs.values()
    for other in others:
        assert other.exported is first.exported
        for node, rounded in other.integers.weights.items():
            assert torch.equal(rounded.integers, first.integers.weights[node].integers)


# ---- bad input -------------------------------------------------------------------------------------------------------


class Awkward(nn.Module):
    """Odd sizes, dilation, padding on one side, groups of three, a channel of zeros, a value that never varies."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 12, (3, 5), (2, 1), (0, 1)), nn.Conv2d(12, 9, 3, 2, dilation=3, groups=3)
        self.up, self.flat = nn.ConvTranspose2d(9, 6, 3, 2), nn.Conv2d(6, 6, 1)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(F.pad(self.down(F.pad(self.stem(x), (0, 1, 2, 0))), (2, 0, 0, 1)))
        return self.head((self.flat(x) + x).mean((2, 3)))  # type: ignore[no-any-return]


def build_awkward() -> nn.Module:
    model = randomize(Awkward(), 19)
    with torch.no_grad():
        for part, channel in ((model.stem, 0), (model.down, 4)):
            part.weight[channel] = 0
            part.bias[channel] = 0
        model.flat.weight.zero_()
        model.flat.bias.fill_(0.25)
        model.down.bias[5] = 40  # far more than its products
        model.down.weight[5] *= 1e-6
    return model


CALIBRATIONS = {
    "some": draw(8, 19, 2),
    "one": draw(1, 19, 2),
    "black": np.zeros((4, 3, 19, 19), np.float32),
    "flat": np.full((1, 3, 19, 19), 0.7, np.float32),
}


@pytest.fixture(scope="module")
def awkward() -> nn.Module:
    return build_awkward()


@pytest.mark.parametrize("seen", CALIBRATIONS)
def test_awkward_input_gives_sound_numbers(seen: str, awkward: nn.Module) -> None:
    for graph in quantized(awkward, TARGET, 19, CALIBRATIONS[seen]).values():
        check_numbers(graph)
        assert len(graph.integers.weights) == 4
        said = emulate(graph, CALIBRATIONS[seen])
        exact = answer(awkward, CALIBRATIONS[seen])
        assert np.abs(said - exact).max() < 0.05 * np.abs(exact).max()


@pytest.mark.parametrize(("seen", "name"), [("black", "executorch"), ("some", "litert"), ("some", "onnx")])
def test_files_of_awkward_input_answer_as_the_emulation(
    seen: str, name: str, awkward: nn.Module, tmp_path: Path
) -> None:
    target, images = aim(name), CALIBRATIONS[seen]
    graph = quantized(awkward, target, 19, images)[name]
    artifact, got = run(graph, name, target, tmp_path, images)
    expected = emulate(graph, images)
    assert np.isfinite(got).all()
    assert np.abs(got - expected).max() < 0.02 * np.abs(expected).max()
    assert artifact.methods[0].leftovers == ()


# ---- one value, several readers; one module, several calls -----------------------------------------------------------


class Readers(nn.Module):
    """Values read before and behind a clip, in int8 and in float, a convolution of two values; the logits in int8."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.last = (
            nn.Conv2d(3, 4, 3, padding=1),
            nn.Conv2d(4, 4, 3, padding=1),
            nn.Conv2d(8, 4, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + F.relu6(x)
        x = x.relu() * x.relu().cos()
        x = self.conv(x).relu() * self.conv(x.tanh() + x)
        return self.last(torch.cat([x, x.mean((2, 3), keepdim=True).expand_as(x)], 1)).sigmoid().flatten(1)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", FORMATS[:3])
def test_each_reader_has_its_form(name: str, tmp_path: Path) -> None:
    check_file(randomize(Readers()), name, tmp_path)


def test_a_linear_reads_what_a_convolution_gives(tmp_path: Path) -> None:
    """In Core ML it is one of int8 on a range then, and has to be."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(196, 5))
    check_file(randomize(model), "coreml", tmp_path)


@pytest.mark.parametrize(
    ("name", "layers"), [("litert", ["0", "2"]), ("executorch", ["0", "2", "3"]), ("onnx", ["0", "2", "3", "4"])]
)
def test_transposed_convolutions_where_a_runtime_has_them(name: str, layers: list[str], tmp_path: Path) -> None:
    """Behind a padding; one that does not enlarge; one of groups."""
    ups = nn.ConvTranspose2d(4, 6, 3, 2), nn.ConvTranspose2d(6, 6, 3, 1, 1), nn.ConvTranspose2d(6, 4, 2, 2, groups=2)
    model = randomize(nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ZeroPad2d((1, 0, 0, 2)), *ups, nn.Flatten()))
    assert sorted(check_file(model, name, tmp_path).layers) == layers


def check_file(model: nn.Module, name: str, folder: Path) -> Graph:
    """A file answers as the emulation, and that nearly as PyTorch; nothing is left out."""
    target, images = aim(name), draw(3)
    graph = quantized(model, target)[name]
    artifact, got = run(graph, name, target, folder, images)
    expected, exact = emulate(graph, images), answer(model, images)
    assert 0 < measure(expected - exact) < 0.1 * measure(exact)
    assert measure(got - expected) < measure(expected - exact)
    assert artifact.methods[0].leftovers == ()
    assert artifact.methods[0].delegates == (name != "onnx")
    return graph


def test_a_convolution_of_rows_stays_float() -> None:
    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.rows = nn.Conv2d(3, 4, 3, padding=1), nn.Conv1d(4, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.rows(self.conv(x).flatten(2)).mean(2)  # type: ignore[no-any-return]

    for graph in quantized(randomize(Rows()), TARGET).values():
        assert set(graph.layers) == {"conv"}
        assert not any(name.startswith("conv1d") for name in graph.integers.ops)


# ---- models and formats that it does not touch -----------------------------------------------------------------------


def test_models_without_convolutions_are_as_they_were() -> None:
    model = ViT(image_size=16, patch=8, dim=16, depth=1, head_dim=8, num_classes=5).eval()
    graph = Graph(rewrite(capture(model, 16)).exported, "int8", {"head": "int8"})
    placed = add_integers([graph], TARGET, draw())
    assert {name: graphs == [graph] and graphs[0] is graph for name, graphs in placed.items()} == dict.fromkeys(
        FORMATS, True
    )
    floats = [replace(graph, precision="fp32", layers={})]
    assert add_integers(floats, TARGET, draw())["onnx"][0] is floats[0]


def test_what_a_format_cannot_have_leaves_the_layers() -> None:
    model = randomize(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 7, padding=3, groups=4), nn.Flatten()))
    graphs = quantized(model, aim(*FORMATS))
    assert {name: sorted(graph.layers) for name, graph in graphs.items()} == {
        "executorch": ["0"], "litert": ["0"], "onnx": ["0", "1"], "coreml": ["0", "1"],
    }  # fmt: skip


def test_older_systems_of_core_ml_have_weights_alone() -> None:
    model = randomize(Hybrid())
    graphs = quantized(model, aim("coreml", "onnx", deployment="iOS16"))
    assert graphs["coreml"].integers.ops == frozenset()
    assert graphs["coreml"].layers.keys() == graphs["onnx"].layers.keys()
    assert count_conversions(graphs["coreml"]) == 0 < count_conversions(graphs["onnx"])


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (Hybrid(), True),
        (ViT(image_size=16, patch=8, dim=16, depth=1, head_dim=8, num_classes=5), False),
        (nn.Conv2d(3, 4, 4, 4), False),
        (nn.Conv2d(3, 4, 4, 2), True),
        (nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.Conv2d(4, 4, 1)), True),
    ],
)
def test_models_that_convolve_are_known(model: nn.Module, found: bool) -> None:
    assert convolves(model.eval(), SIZE) is found


def test_a_model_that_looks_at_its_numbers_is_told_by_its_modules() -> None:
    class Looks(nn.Module):
        def __init__(self, stride: int) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 2, stride)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) if float(x.sum()) > 0 else x

    assert (convolves(Looks(1), SIZE), convolves(Looks(2), SIZE)) == (True, False)


def test_tied_values_have_one_span_and_a_sigmoid_its_own() -> None:
    model = randomize(Between(lambda x: torch.cat([F.max_pool2d(x, 1), x.sigmoid()], 1)))
    (graph,) = quantized(model, aim("executorch")).values()
    spans = graph.integers.spans
    joined = {spans[name] for name in spans if name.startswith(("conv2d", "max_pool", "cat")) and name != "conv2d_1"}
    assert len(joined) == 1
    ops = [node for node in graph.exported.graph.nodes if node.name in graph.integers.ops]
    told = {node.name: (-1.0, 1.0) for node in graph.exported.graph.nodes} | {"max_pool2d": (-5.0, 0.5)}
    assert join_spans(graph.exported, ops, told)["cat"] == (-5.0, 1.0)


def test_what_the_user_keeps_in_float_stays_there() -> None:
    quant = Quant(keep_float=("depthwise", "down"))
    (graph,) = quantized(randomize(Hybrid()), aim("onnx", quant=quant)).values()
    # `down` is a preset's word too, for a part of a big.LITTLE layer; here it is the user's
    assert [name in graph.layers for name in ("depthwise", "down", "expand")] == [False, False, True]
    assert len(graph.integers.weights) == 6
    (graph,) = quantized(randomize(Hybrid()), aim("onnx")).values()
    assert "down" in graph.layers
