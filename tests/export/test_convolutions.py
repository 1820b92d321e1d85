"""Weights and biases in int8 against errors worked out in PyTorch on images that were not calibrated on."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bigvit_edge.artifact import Array
from bigvit_edge.export.calibrated import join_spans
from bigvit_edge.export.calibration import measure_spans
from bigvit_edge.export.convert import capture
from bigvit_edge.export.convolutions import _take_patches, round_convolutions
from bigvit_edge.export.graph import Graph
from bigvit_edge.export.integers import Range, Rounded
from bigvit_edge.export.placement import list_convolutions, list_values, place_integers
from bigvit_edge.export.quantization import MOST_BIAS, choose_scale

SIZE = 12


def draw_pictures(count: int, seed: int) -> Array:
    """Smooth pictures, whose pixels and colours vary together as a photograph's do."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 4, 4, generator=generator) + 2 * torch.randn(count, 1, 4, 4, generator=generator)
    return nn.functional.interpolate(coarse, size=SIZE, mode="bilinear").numpy()


def round_all(
    model: nn.Module, images: Array, learned: bool = True
) -> tuple[dict[str, Rounded], dict[str, Range], Graph]:
    graph = capture(model.eval(), SIZE)
    graph = replace(graph, calibration=images if learned else None)
    ops = place_integers(graph.exported, list_convolutions(graph.exported), "litert")
    names = {value.name for pair in list_values(graph.exported, ops) for value in pair}
    spans = join_spans(graph.exported, ops, measure_spans(graph.exported, names, images))
    return round_convolutions(graph, ops, spans, images), spans, graph


def last_error(convolution: nn.Conv2d, rounded: Rounded, inputs: Tensor) -> float:
    weight = rounded.integers * rounded.scale.view(-1, 1, 1, 1)
    bias = convolution.bias if rounded.bias is None else rounded.bias
    options = (convolution.stride, convolution.padding, convolution.dilation, convolution.groups)
    with torch.no_grad():
        made = nn.functional.conv2d(inputs, weight, bias, *options)
        return float((made - convolution(inputs)).square().mean())


KINDS: Sequence[tuple[str, nn.Conv2d]] = (
    ("1x1", nn.Conv2d(16, 24, 1)),
    ("3x3", nn.Conv2d(16, 8, 3, padding=1)),
    ("strided, uneven, dilated", nn.Conv2d(16, 8, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2))),
    ("grouped", nn.Conv2d(16, 12, 3, groups=4, padding=1)),
    ("depthwise", nn.Conv2d(16, 16, 3, groups=16, padding=1)),
    ("depthwise, two of each, no bias", nn.Conv2d(16, 32, 3, groups=16, bias=False)),
)


@pytest.mark.parametrize("convolution", [kind for _, kind in KINDS], ids=[name for name, _ in KINDS])
def test_chosen_integers_change_outputs_less_than_the_nearest(convolution: nn.Conv2d) -> None:
    torch.manual_seed(0)
    start = nn.Conv2d(3, 16, 3, padding=1)
    model = nn.Sequential(start, nn.ReLU(), convolution)
    images = draw_pictures(8, 0)
    chosen, _, _ = round_all(model, images)
    nearest, _, _ = round_all(model, images, learned=False)
    unseen = torch.relu(start(torch.from_numpy(draw_pictures(8, 1)))).detach()
    assert chosen["conv2d_1"].integers.shape == convolution.weight.shape
    assert torch.equal(chosen["conv2d_1"].scale, nearest["conv2d_1"].scale)
    limit = 0.7 * last_error(convolution, nearest["conv2d_1"], unseen)
    assert last_error(convolution, chosen["conv2d_1"], unseen) < limit


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU6(), nn.Hardtanh(-0.5, 2.0), nn.Identity()])
def test_means_behind_the_activation_are_those_of_float(activation: nn.Module) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), activation)
    with torch.no_grad():
        model[0].weight *= torch.logspace(-3, 0, 27).view(3, 3, 3)  # most of a channel's weights round to nothing
    images = draw_pictures(4, 2)
    rounded, spans, _ = round_all(model, images)
    (found,) = rounded.values()
    scale, zero = choose_scale(spans["input"])
    pixels = torch.fake_quantize_per_tensor_affine(torch.from_numpy(images), scale, zero, -128, 127)
    weight = found.integers * found.scale.view(-1, 1, 1, 1)
    with torch.no_grad():
        made = activation(nn.functional.conv2d(pixels, weight, found.bias)).mean((0, 2, 3))
        wanted = model(torch.from_numpy(images)).mean((0, 2, 3))
    torch.testing.assert_close(made, wanted, atol=2e-3, rtol=0)


def test_random_weights_are_rounded_to_the_nearest_and_biases_stay() -> None:
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 4, 1, bias=False))
    rounded, _, _ = round_all(model, draw_pictures(2, 3), learned=False)
    for name, layer in (("conv2d", model[0]), ("conv2d_1", model[2])):
        assert rounded[name].bias is None
        step = rounded[name].scale.view(-1, 1, 1, 1)
        assert ((rounded[name].integers * step - layer.weight).abs() <= step / 2 * 1.001).all()
        assert int(rounded[name].integers.abs().max()) == 127


def test_transposed_convolutions_have_a_scale_for_each_output() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.ConvTranspose2d(6, 4, 2, stride=2, groups=2))
    rounded, _, _ = round_all(model, draw_pictures(4, 4))
    found = rounded["conv_transpose2d"]
    assert found.scale.shape == (2,)  # a group's outputs, which the groups share
    step = found.scale.view(1, -1, 1, 1)
    assert ((found.integers * step - model[1].weight).abs() <= step / 2 * 1.001).all()
    assert found.bias is not None
    assert found.bias.shape == (4,)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.start = nn.Conv2d(6, 6, 1), nn.Conv2d(3, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(torch.relu(self.layer(self.start(x))))


def test_convolutions_with_one_weight_share_its_integers() -> None:
    rounded, _, _ = round_all(Twice(), draw_pictures(2, 5))
    assert torch.equal(rounded["conv2d_1"].integers, rounded["conv2d_2"].integers)
    assert torch.equal(rounded["conv2d_1"].scale, rounded["conv2d_2"].scale)
    assert not torch.equal(rounded["conv2d_1"].bias, rounded["conv2d_2"].bias)


def spoil(model: nn.Sequential, how: str) -> Array:
    images = draw_pictures(3, 6)
    with torch.no_grad():
        if how == "a channel that is always zero":
            model[0].weight[1], model[0].bias[1], model[2].weight[2], model[2].bias[2] = 0, 0, 0, 0
        elif how == "nothing gets through":
            model[0].weight.zero_()
            model[0].bias.fill_(-3.0)
        elif how == "a bias far above its weights":
            model[2].weight[0], model[2].bias[0] = 1e-30, 1e6
        elif how == "black pictures":
            images = np.zeros_like(images)
    return images[:1] if how == "one picture" else images


@pytest.mark.parametrize(
    "how",
    ["a channel that is always zero", "nothing gets through", "a bias far above its weights", "black pictures",
     "one picture"],
)  # fmt: skip
def test_numbers_stay_numbers(how: str) -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=4), nn.ReLU(), nn.Conv2d(4, 3, 1))
    images = spoil(model, how)
    rounded, spans, graph = round_all(model, images)
    for name, found in rounded.items():
        (node,) = (node for node in graph.exported.graph.nodes if node.name == name)
        step = choose_scale(spans[node.args[0].name])[0] * found.scale.double()
        assert found.bias is not None
        assert (step > 0).all()
        assert step.isfinite().all()
        assert ((found.bias.double() / step).abs() <= MOST_BIAS * 1.001).all()
        assert int(found.integers.abs().max()) <= 127
    if how == "a channel that is always zero":
        assert not rounded["conv2d"].integers[1].any()
        assert not rounded["conv2d_1"].integers[2].any()
        assert rounded["conv2d_1"].integers[1].any()


def test_patches_are_what_unfold_takes() -> None:
    convolution = nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 3))
    (node,) = list_convolutions(capture(convolution.eval(), SIZE).exported)
    image = torch.from_numpy(draw_pictures(1, 7))
    found = _take_patches(node, image, 10_000, 0)[0]  # [places, inputs], in an order of their own
    unfolded = nn.functional.unfold(image, (3, 2), (1, 3), (1, 2), (2, 1))[0].T
    assert found.shape == unfolded.shape
    assert {tuple(row.tolist()) for row in found} == {tuple(row.tolist()) for row in unfolded}
