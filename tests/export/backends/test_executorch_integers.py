"""Functions of one number in int8 in a .pte: XNNPACK's tables, whole in its delegate."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("executorch")

from bigvit_edge.export.backends.executorch.tables import TABLES
from tests.export.convolutional import Between, aim, draw, emulate, quantized, randomize, run

FUNCTIONS = {"gelu": nn.GELU(), "hardswish": nn.Hardswish(), "sigmoid": nn.Sigmoid(), "tanh": nn.Tanh()}


def test_a_function_of_one_number_is_a_table(tmp_path: Path) -> None:
    """All four in one file: no op of it is float, and none is outside the delegate."""
    assert len(TABLES) == len(FUNCTIONS)
    target, images = aim("executorch"), draw(3)
    model = randomize(Between(lambda x: torch.cat([f(x) for f in FUNCTIONS.values()], 1)))
    graph = quantized(model, target)["executorch"]
    assert FUNCTIONS.keys() <= graph.integers.ops
    artifact, got = run(graph, "executorch", target, tmp_path, images)
    (method,) = artifact.methods
    assert (method.delegates, method.leftovers) == (1, ())
    expected = emulate(graph, images)
    step = (graph.integers.spans["conv2d_1"][1] - graph.integers.spans["conv2d_1"][0]) / 255
    assert np.abs(got - expected).max() < 2.01 * step
    assert (np.abs(got - expected) < 0.01 * step).mean() > 0.8


def test_a_gelu_by_tanh_stays_float() -> None:
    model = randomize(Between(nn.GELU("tanh")))
    graph = quantized(model, aim("executorch"))["executorch"]
    assert not {"gelu"} & graph.integers.ops
    assert {"conv2d", "conv2d_1"} <= graph.integers.ops
