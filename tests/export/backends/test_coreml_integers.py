"""Convolutions in int8 in an .mlpackage: with activations where the system has them, else weights alone."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from bigvit_edge.artifact import Array, Artifact
from bigvit_edge.export.graph import Graph
from bigvit_edge.runtime import mil
from tests.export.convolutional import aim, answer, draw, measure, quantized, randomize, run


@pytest.mark.parametrize("deployment", ["iOS16", "iOS17"])
def test_what_a_system_has_is_in_the_file(deployment: str, tmp_path: Path) -> None:
    layers = nn.Conv2d(3, 8, 3), nn.ReLU6(), nn.Conv2d(8, 8, 3, 2, 1, groups=8), nn.Flatten(), nn.LazyLinear(5)
    model, images, target = randomize(nn.Sequential(*layers)), draw(), aim("coreml", deployment=deployment)
    graph = quantized(model, target)["coreml"]
    artifact, got = run(graph, "coreml", target, tmp_path, images)
    kinds, weights = count_ops(artifact)
    exact = answer(model, images)
    assert measure(got - exact) < 0.1 * measure(exact)
    assert weights == len(graph.layers) == 3
    assert (kinds["quantize"] > 0) is (deployment >= "iOS17")
    assert bool(graph.integers.ops) is (deployment >= "iOS17")
    if deployment < "iOS17":
        assert_by_channel(graph, got, exact)


def count_ops(artifact: Artifact) -> tuple[Counter[str], int]:
    """Ops by kind, and how many weights are int8."""
    assert not isinstance(artifact.data, bytes)
    ops = list(mil.list_ops(artifact.data, "the package", "main"))
    weights = [op for op in ops if op.type.startswith("constexpr_")]
    for op in weights:
        assert {"int8"} & {kind.dtype for kind in op.types.values()}
    return Counter(op.type for op in ops), len(weights)


def assert_by_channel(graph: Graph, got: Array, exact: Array) -> None:
    """Weights alone, with a scale a channel, cost less than activations do."""
    assert graph.integers.weights == {}
    assert np.abs(got - exact).max() < 0.05 * np.ptp(exact)
