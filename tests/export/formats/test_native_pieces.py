"""Files of a model that the bve runtime runs in several pieces, each with several tensors, against PyTorch."""

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from bigvit_edge.export.convert import capture_cores, cut, rewrite
from bigvit_edge.export.graph import Graph
from bigvit_edge.export.native import lower_pieces
from bigvit_edge.target import load_target
from tests.export.core.test_partition import SIZE, Stages, make_weights

TARGET = load_target("android-native")


@pytest.fixture(scope="module")
def model() -> Stages:
    model = make_weights(Stages(lambda x: x + torch.sin(x), several=True))
    for parameter in model.parameters():
        parameter.data *= 0.3
    assert isinstance(model, Stages)
    return model


@pytest.fixture(scope="module")
def graph(model: Stages) -> Graph:
    (core,) = capture_cores(model, SIZE, (None,))
    return cut(rewrite(core))


@pytest.mark.parametrize(("name", "suffix"), [("executorch", ".pte"), ("litert", ".tflite")])
def test_pieces_give_one_another_what_they_should(
    name: str, suffix: str, model: Stages, graph: Graph, tmp_path: Path
) -> None:
    assert [(len(piece.inputs), len(piece.outputs)) for piece in graph.pieces] == [(1, 1), (2, 2)]
    format_ = import_module(f"bigvit_edge.export.formats.{name}")
    artifact = format_.lower([graph], TARGET, {})
    for lowered in lower_pieces([graph], TARGET, {}):
        assert artifact.data.count(lowered.data) == 1
    (method,) = artifact.methods
    assert {f"net.layers.{n}": 1 for n in (0, 1)}.items() <= method.fragments.items()
    path = tmp_path / f"m{suffix}"
    path.write_bytes(artifact.data)
    image = np.random.default_rng(0).standard_normal((1, 3, SIZE, SIZE), dtype=np.float32)
    with torch.no_grad():
        expected = model(torch.from_numpy(image)).numpy()
    np.testing.assert_allclose(format_.load(path)(image), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
