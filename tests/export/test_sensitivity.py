"""SQNR against numpy, and the choice of precisions against an exhaustive search."""

from collections.abc import Mapping
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from bigvit_edge.export.calibration import calibrate, visit_layers
from bigvit_edge.export.convert import capture
from bigvit_edge.export.graph import Graph
from bigvit_edge.export.quantization import insert_quantization
from bigvit_edge.export.sensitivity import Rounder, Sensitivity, choose_precisions, measure_sensitivities
from bigvit_edge.target import Quant

IMAGES = np.random.default_rng(0).standard_normal((5, 3, 4, 4), np.float32)


def build() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 32), nn.Linear(32, 4)).eval()


def decibels(exact: np.ndarray, rounded: np.ndarray) -> float:
    return float(10 * np.log10((exact**2).sum() / ((rounded - exact) ** 2).sum()))


def test_sqnr_of_int8_is_numpys() -> None:
    model = build()
    weight, bias = (t.detach().numpy().astype(np.float64) for t in (model[1].weight, model[1].bias))
    step = np.abs(weight).max(1, keepdims=True) / 127
    exact, rounded = [], []
    for image in IMAGES.reshape(5, 48).astype(np.float64):
        low, high = min(image.min(), 0), max(image.max(), 0)
        scale = (high - low) / 255
        zero = np.round(-128 - low / scale)
        x = (np.clip(np.round(image / scale) + zero, -128, 127) - zero) * scale
        exact.append(weight @ image + bias)
        rounded.append(np.round(weight / step) * step @ x + bias)
    found = measure_sensitivities(capture(model, 4), {"1": ("int8", "fp32")}, IMAGES)
    assert [s.layer for s in found] == ["1"]
    assert found[0].macs == 48 * 32
    assert found[0].sqnr_db["int8"] == pytest.approx(decibels(np.array(exact), np.array(rounded)), abs=0.05)
    assert found[0].sqnr_db["fp32"] == float("inf")


def test_fewer_bits_and_fixed_ranges_are_noisier() -> None:
    graph = capture(build(), 4)
    ranges = calibrate(graph.exported, ["2"], IMAGES, Quant())
    graph = Graph(graph.exported, ranges=ranges)
    (found,) = measure_sensitivities(graph, {"2": ("int4", "int8", "int8-static")}, IMAGES)
    assert found.sqnr_db["int8"] > found.sqnr_db["int8-static"] > found.sqnr_db["int4"] > 10


@pytest.mark.parametrize("precision", ["int8", "int8-static", "int4"])
def test_rounding_is_what_the_quantised_graph_computes(precision: str) -> None:
    exported = capture(build(), 4).exported
    group = 16 if precision == "int4" else 32
    layers = {"1": precision, "2": precision}
    graph = Graph(exported, layers=layers, ranges=calibrate(exported, layers, IMAGES, Quant()), group=group)
    rounder = Rounder(graph)
    found = visit_layers(exported, IMAGES, lambda layer, node, args, value: rounder.round(layer, args, precision))
    expected = visit_layers(insert_quantization(graph), IMAGES, lambda *_: None)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found - visit_layers(exported, IMAGES, lambda *_: None)).max() > 1e-4


def test_bit_operations() -> None:
    one = Sensitivity("a", 10, {"int8": 40.0})
    assert [one.count_bops(p) for p in ("fp32", "int8", "int4")] == [10 * 32 * 32, 10 * 64, 10 * 32]


TOY = [
    Sensitivity("a", 100, {"int4": 20.0, "int8": 40.0, "fp32": float("inf")}),
    Sensitivity("b", 100, {"int4": 8.0, "int8": 30.0, "fp32": float("inf")}),
    Sensitivity("c", 100, {"int4": 25.0, "int8": 45.0, "fp32": float("inf")}),
]


def noise(precisions: Mapping[str, str]) -> float:
    return sum(10 ** (-s.sqnr_db[precisions[s.layer]] / 10) for s in TOY)


def cost(precisions: Mapping[str, str]) -> int:
    return sum(s.count_bops(precisions[s.layer]) for s in TOY)


@pytest.mark.parametrize("allowed", [1.0, 0.1, 0.012, 0.006, 0.0012, 1e-9])
def test_the_choice_is_the_cheapest_of_all(allowed: float) -> None:
    chosen = choose_precisions(TOY, lambda precisions: noise(precisions) <= allowed)
    every = [dict(zip("abc", p, strict=True)) for p in product(("int4", "int8", "fp32"), repeat=3)]
    assert noise(chosen) <= allowed
    assert cost(chosen) == min(cost(p) for p in every if noise(p) <= allowed)


def test_what_is_never_good_enough_ends_at_its_best() -> None:
    assert set(choose_precisions(TOY, lambda precisions: False).values()) == {"fp32"}


def test_a_precision_that_costs_as_much_and_rounds_worse_is_never_taken() -> None:
    only = Sensitivity("a", 9, {"int8": 40.0, "int8-static": 30.0})
    assert choose_precisions([only], lambda precisions: True) == {"a": "int8"}
