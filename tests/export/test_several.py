"""Several inputs and outputs: each format holds them under their names, and answers as PyTorch does."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bigvit_edge.artifact import write_data
from bigvit_edge.export.calibration import measure_spans, visit_layers
from bigvit_edge.export.convert import capture_signature, load_format, lower, rewrite
from bigvit_edge.export.graph import Graph, join_inputs
from bigvit_edge.runtime.opening import load_file, spell
from bigvit_edge.signature import Tensor
from bigvit_edge.target import Target, load_target
from tests.models.parts import Decoder, Encoder, draw_points

INPUTS = Tensor("features", (1, 17, 32)), Tensor("points", (1, 3, 2))
OUTPUTS = "masks", "scores"


@pytest.fixture(scope="module")
def graph() -> Graph:
    torch.manual_seed(0)
    return rewrite(capture_signature(Decoder(), INPUTS, OUTPUTS, None, "features"))


def test_a_graph_says_what_it_takes_and_gives(graph: Graph) -> None:
    expected = (
        "features float32 [1, 17, 32], points float32 [1, 3, 2] -> masks float32 [1, 3, 4, 4], scores float32 [1, 3]"
    )
    assert str(graph.signature) == expected


@pytest.mark.parametrize("name", ["onnx", "litert", "executorch", "coreml"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_file_answers_as_pytorch_does(graph: Graph, name: str, precision: str, tmp_path: Path) -> None:
    layers = dict.fromkeys(("place", "query", "score"), "int8") if precision == "int8" else {}
    check_file(replace(graph, precision=precision, layers=layers), name, load_target("host"), tmp_path)


def test_a_delegated_core_ml_package_goes_by_the_names_of_the_file(graph: Graph, tmp_path: Path) -> None:
    """It takes them in an order of its own."""
    check_file(graph, "executorch", replace(load_target("host"), delegate="coreml"), tmp_path)


def check_file(graph: Graph, name: str, target: Target, folder: Path) -> None:
    module, format_, precision = graph.module, load_format(name), graph.precision
    assert module
    artifact = lower([graph], name, target, {"task": "features"})
    path = folder / f"decoder{format_.SUFFIX}"
    write_data(artifact.data, path)
    runner = load_file(name, path)
    assert spell(runner.signature) == spell(graph.signature)
    with torch.no_grad():
        features, points = Encoder()(torch.randn(1, 3, 32, 32)), draw_points(1)
        expected = dict(zip(OUTPUTS, module(features, points), strict=True))
    found = runner.run({"points": points.numpy(), "features": features.numpy()})
    for output, answer in expected.items():
        most = {"fp32": 1e-5, "fp16": 0.02, "int8": 0.1}[precision] * float(answer.abs().max())
        np.testing.assert_allclose(found[output], answer, atol=most)


def test_several_inputs_are_calibrated_on_as_images_are(graph: Graph) -> None:
    """A record for each image: what Linears see of it, and the answers in one vector."""
    module = graph.module
    assert module
    features, points = torch.randn(2, 17, 32), draw_points(2)
    images = join_inputs({"features": features.numpy(), "points": points.numpy()})
    seen: list[str] = []
    answers = visit_layers(graph.exported, images[:1], lambda layer, *_: seen.append(layer))
    with torch.no_grad():
        expected = torch.cat([answer.flatten(1) for answer in module(features[:1], points[:1])], 1)
    np.testing.assert_allclose(answers, expected, atol=1e-5)
    assert seen == ["place", "query", "score"]
    (node,) = graph.exported.graph.find_nodes(op="placeholder")[-1:]
    assert measure_spans(graph.exported, [node.name], images)[node.name] == pytest.approx(
        (float(points.min()), float(points.max()))
    )
