"""Graphs that take pixels: the same answers as the model gives to the normalised image."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bigvit_edge.export.convert import capture, rewrite
from bigvit_edge.export.graph import Graph
from bigvit_edge.export.half import write_as_half
from bigvit_edge.export.image import make_input
from bigvit_edge.export.pixels import answer_probabilities, restore_pixels, take_pixels
from bigvit_edge.models.load import load
from bigvit_edge.preprocessing import Preprocessing

aten = torch.ops.aten
SIZE = 16
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HOWS = {
    "RGB": Preprocessing(SIZE, MEAN, STD),
    "BGR of 0..255": Preprocessing(SIZE, (104.0, 117.0, 123.0), (57.4, 57.1, 58.4), color="BGR", scale=1.0),
}


class Patches(nn.Module):
    """A patch embedding, whose convolution becomes a Linear."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4, bias=bias)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.patches(x).flatten(2).transpose(1, 2).mean(1))


class Twice(nn.Module):
    """Reads the image twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.a(x) * self.b(x)).mean((2, 3)))


def convolve(**options: Any) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, **options), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    )


MODELS = {
    "patches": (Patches, True),
    "patches without bias": (lambda: Patches(bias=False), True),
    "convolution": (convolve, True),
    "convolution without bias": (lambda: convolve(stride=2, bias=False), True),
    "convolution with zeros around": (lambda: convolve(padding=1), False),
    "two convolutions": (Twice, True),
}


def run(graph: Graph, image: Any) -> Tensor:
    with torch.no_grad():
        return graph.exported.module(check_guards=False)(torch.from_numpy(image))  # type: ignore[no-any-return]


def count(graph: Graph, *targets: Any) -> int:
    return sum(node.target in targets for node in graph.exported.graph.nodes)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("color", HOWS)
@pytest.mark.parametrize("name", MODELS)
def test_pixels_have_the_answer_of_the_normalised_image(name: str, color: str, layout: str) -> None:
    torch.manual_seed(0)
    make, folds = MODELS[name]
    model, how = make().eval(), HOWS[color]
    pixels = np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 3), np.uint8)
    pixels[0, :2] = 255, 0, 128  # a border far from the mean
    graph = rewrite(capture(model, SIZE))
    taken = take_pixels(graph, told := replace(how, dtype="uint8", layout=layout))
    (example,), _ = taken.exported.example_inputs
    assert (tuple(example.shape), example.dtype) == (told.shape, torch.uint8)
    with torch.no_grad():
        expected = model(torch.from_numpy(make_input(pixels, how)))
    torch.testing.assert_close(run(taken, make_input(pixels, told)), expected, atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(run(graph, make_input(pixels, how)), expected)  # which stays as it is
    sums = count(taken, aten.mul.Tensor, aten.add.Tensor) - count(graph, aten.mul.Tensor, aten.add.Tensor)
    assert sums == (0 if folds else 2)


def test_patches_are_cut_of_bytes() -> None:
    how = Preprocessing(SIZE, MEAN, STD, dtype="uint8", layout="NHWC")
    taken = take_pixels(rewrite(capture(Patches().eval(), SIZE)), how)
    (turn,) = taken.exported.graph.find_nodes(op="call_function", target=aten.permute.default)
    assert turn.meta["val"].dtype == torch.uint8


def test_pixels_in_float_are_another_runtimes_own() -> None:
    torch.manual_seed(0)
    model, how = convolve().eval(), HOWS["RGB"]
    pixels = np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 3), np.uint8)
    taken = take_pixels(rewrite(capture(model, SIZE)), Preprocessing(SIZE, MEAN, STD, dtype="uint8"), as_bytes=False)
    assert not count(taken, aten._to_copy.default)
    with torch.no_grad():
        expected = model(torch.from_numpy(make_input(pixels, how)))
    given = pixels.transpose(0, 3, 1, 2).astype(np.float32)
    torch.testing.assert_close(run(taken, given), expected, atol=2e-5, rtol=2e-5)


def test_in_half_only_what_is_computed_is_half() -> None:
    how = Preprocessing(SIZE, MEAN, STD, dtype="uint8", layout="NHWC")
    half = write_as_half(take_pixels(rewrite(capture(Patches().eval(), SIZE)), how).exported)
    (image,), _ = half.example_inputs
    assert image.dtype == torch.uint8
    casts = half.graph.find_nodes(op="call_function", target=aten._to_copy.default)
    assert [cast.meta["val"].dtype for cast in casts] == [torch.float16, torch.float32]


@pytest.mark.parametrize("color", HOWS)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_pixels_are_restored_of_what_was_made_of_them(color: str, layout: str) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)
    told = replace(HOWS[color], dtype="uint8", layout=layout)
    np.testing.assert_array_equal(restore_pixels(make_input(pixels, HOWS[color]), told), make_input(pixels, told))


def test_probabilities_are_the_softmax_of_the_logits_once() -> None:
    image = np.random.default_rng(2).standard_normal((1, 3, SIZE, SIZE), np.float32)
    graph = rewrite(capture(convolve().eval(), SIZE))
    answered = answer_probabilities(graph)
    assert answered.output == "probabilities"
    torch.testing.assert_close(run(answered, image), run(graph, image).softmax(-1))
    own = rewrite(capture(nn.Sequential(convolve(), nn.Softmax(-1)).eval(), SIZE))
    assert (answer_probabilities(own).exported, answer_probabilities(own).output) == (own.exported, "probabilities")


def test_a_vit_of_ours_folds_what_normalises() -> None:
    model = load("vit_demo")
    graph = rewrite(capture(model.module, 64))
    taken = take_pixels(graph, replace(model.preprocessing, dtype="uint8"))
    weight, own = (part.exported.state_dict["embedding.patches.weight"] for part in (taken, graph))
    std = torch.tensor(model.preprocessing.std)[:, None, None]
    torch.testing.assert_close(weight, own / 255 / std)
