"""Ranges from calibration images, against ranges worked out by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from bigvit_edge.errors import UserError
from bigvit_edge.export.calibration import BINS, Histogram, calibrate, choose_range, measure_spans, visit_layers
from bigvit_edge.export.convert import capture, rewrite
from bigvit_edge.models.load import load_model
from bigvit_edge.preprocessing import Preprocessing
from bigvit_edge.target import Quant

HOW = Preprocessing(16, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def fill(values: torch.Tensor) -> Histogram:
    seen = Histogram()
    seen.stretch(values)
    seen.count(values)
    return seen


def test_ranges_are_what_pytorchs_own_hooks_see() -> None:
    model = load_model("vit_demo")
    images = np.random.default_rng(0).standard_normal((3, 3, 64, 64), np.float32)
    seen: list[torch.Tensor] = []
    fc2 = dict(model.named_modules())["layers.2.mlp.fc2"]
    fc2.register_forward_hook(lambda module, args, output: seen.extend((args[0], output)))
    with torch.no_grad():
        model(torch.from_numpy(images))
    ranges = calibrate(rewrite(capture(load_model("vit_demo"), 64)).exported, ["layers.2.mlp.fc2"], images, Quant())
    assert set(ranges) == {"layers.2.mlp.fc2"}
    found = ranges["layers.2.mlp.fc2"]
    for (low, high), values in zip((found.input, found.output), seen, strict=True):
        assert low == pytest.approx(float(values.min()), abs=1e-4)
        assert high == pytest.approx(float(values.max()), abs=1e-4)


def test_walking_gives_the_models_answers() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 5), nn.GELU(), nn.Linear(5, 2)).eval()
    images = np.random.default_rng(0).standard_normal((4, 3, 4, 4), np.float32)
    seen = []
    logits = visit_layers(capture(model, 4).exported, images, lambda layer, node, args, value: seen.append(layer))
    np.testing.assert_allclose(logits, model(torch.from_numpy(images)).detach().numpy(), atol=1e-6)
    assert seen == ["1", "3"] * 4


def test_percentile_cuts_both_tails() -> None:
    values = torch.linspace(-1, 1, 10_001)
    low, high = choose_range(fill(values), Quant(observer="percentile", percentile=90))
    assert low == pytest.approx(-0.8, abs=3 / BINS)
    assert high == pytest.approx(0.8, abs=3 / BINS)


def test_the_mse_observer_clips_a_lone_outlier_and_keeps_a_flat_distribution() -> None:
    normal = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    quant = Quant(observer="mse")
    low, high = choose_range(fill(torch.cat([normal, torch.tensor([60.0, -60.0])])), quant)
    assert -40 < low < -5
    assert 5 < high < 40
    flat = fill(torch.linspace(-1, 1, 100_001))
    assert choose_range(flat, quant) == pytest.approx((-1, 1), abs=0.02)


def test_minmax_takes_all_there_was() -> None:
    assert choose_range(fill(torch.tensor([-3.0, 0.0, 9.0])), Quant(observer="minmax")) == (-3.0, 9.0)


@pytest.mark.parametrize("observer", ["minmax", "percentile", "mse"])
def test_a_constant_has_a_range(observer: str) -> None:
    assert choose_range(fill(torch.full((9,), 2.0)), Quant(observer=observer)) == (2.0, 2.0)


class Scaled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        doubled = x * 2
        return torch.cat([doubled - 1, torch.relu(-x.abs())], 1).mean((2, 3))


def test_spans_hold_what_all_images_have_and_say_so_of_zeros() -> None:
    images = np.random.default_rng(0).uniform(-1, 1, (40, 3, 8, 8)).astype(np.float32)
    spans = measure_spans(capture(Scaled(), 8).exported, ["mul", "sub", "relu", "x"], images)
    for name, low, high in (("x", -1, 1), ("mul", -2, 2), ("sub", -3, 1)):
        assert spans[name] == pytest.approx((low, high), abs=0.05)  # even values: nothing is worth clipping
    assert spans["relu"] == (0.0, 1.0)


def test_spans_clip_what_is_rare() -> None:
    images = np.random.default_rng(0).standard_normal((40, 3, 32, 32), np.float32)
    images[7, 0, 0, 0] = 60
    (low, high) = measure_spans(capture(Scaled(), 32).exported, ["x"], images)["x"]
    assert 4 < high < 40
    assert low < -2


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_spans_of_what_is_not_finite_are_refused(value: float) -> None:
    images = np.ones((3, 3, 8, 8), np.float32)
    images[2, 1, 4, 4] = value
    with pytest.raises(UserError, match="NaN or infinity on calibration images; expected finite numbers"):
        measure_spans(capture(Scaled(), 8).exported, ["mul"], images)
