"""Convolutions in int8 in an .onnx file: what ONNX Runtime is given, and files that are not as the graph says."""

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from torch import nn

from bigvit_edge.export.backends.onnx.quantized import check
from bigvit_edge.export.convert import lower
from bigvit_edge.export.graph import Graph
from tests.export.convolutional import aim, quantized, randomize

TARGET = aim("onnx")


def build() -> list[nn.Module]:
    depthwise = nn.Conv2d(8, 16, 3, 2, 1, groups=8)  # two results a channel
    return [nn.Conv2d(3, 8, 3), nn.ReLU6(), depthwise, nn.SiLU(), nn.MaxPool2d(2), nn.Flatten(), nn.LazyLinear(5)]


@pytest.fixture(scope="module")
def made() -> tuple[Graph, bytes]:
    graph = quantized(randomize(nn.Sequential(*build())), TARGET)["onnx"]
    data = lower([graph], "onnx", TARGET, {}).data
    assert isinstance(data, bytes)
    return graph, data


def test_scales_are_sound_and_biases_whole(made: tuple[Graph, bytes]) -> None:
    model = onnx.load_from_string(made[1])
    data = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    kinds = Counter()
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            scale = data[node.input[1]]
            assert np.isfinite(scale).all()
            assert (scale > 0).all()
            values = data.get(node.input[0])
            kinds[node.op_type if values is None else str(values.dtype)] += 1
            assert values is None or values.dtype != np.int8 or values.min() >= -127
    assert kinds["int8"] == kinds["int32"] == len(made[0].integers.weights)
    assert kinds["DequantizeLinear"] >= kinds["QuantizeLinear"]


def test_another_weight_or_a_convolution_in_float_is_an_error(made: tuple[Graph, bytes]) -> None:
    graph, data = made
    check(data, graph)
    weights = dict(graph.integers.weights)
    name = sorted(weights)[0]
    other = replace(weights[name], integers=weights[name].integers.flip(0))
    for said in ({**weights, name: other}, {k: v for k, v in weights.items() if k != name}):
        with pytest.raises(RuntimeError, match=r"integer|quantis"):
            check(data, replace(graph, integers=replace(graph.integers, weights=said)))


def test_a_convolution_that_gives_floats_is_an_error(made: tuple[Graph, bytes]) -> None:
    graph, data = made
    model = onnx.load_from_string(data)
    makers = {name: node for node in model.graph.node for name in node.output}
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    rounded = makers[conv.input[0]]
    assert rounded.op_type == "DequantizeLinear"
    conv.input[0] = makers[rounded.input[0]].input[0]  # the float value that was rounded
    with pytest.raises(RuntimeError, match="expected integers"):
        check(model.SerializeToString(), graph)
