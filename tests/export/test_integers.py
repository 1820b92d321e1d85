"""One op in int8 on ranges, by the emulation and by each format's runtime, against integers in NumPy."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from bigvit_edge.artifact import Array
from bigvit_edge.export.convert import capture, rewrite
from bigvit_edge.export.graph import Graph
from bigvit_edge.export.integers import Integers, Rounded
from bigvit_edge.export.quantization import choose_scale, insert_integers, ops, quantize_rows_weight
from tests.export.convolutional import FORMATS, aim, draw, emulate, randomize, run

IMAGE, RESULT = (-3.0, 4.0), (-2.0, 2.5)
SIZE = 9


def prepare(model: nn.Module, clip: bool = False) -> Graph:
    """A graph whose first op is a convolution, in int8 with a bias of its own, and the clip behind it."""
    exported = rewrite(capture(nn.Sequential(model, nn.Flatten()), SIZE)).exported
    calls = [node for node in exported.graph.nodes if node.op == "call_function"]
    conv, inside = calls[0], calls[: 1 + clip]
    weight = next(model.parameters()).detach()
    integers, scale = quantize_rows_weight(weight.flatten(1))
    rounded = Rounded(integers.view(weight.shape), scale, torch.linspace(-0.5, 0.5, len(weight)))
    spans = {conv.args[0].name: IMAGE, inside[-1].name: RESULT}  # type: ignore[union-attr]
    names = frozenset(node.name for node in inside)
    layer = "0.0" if clip else "0"
    return Graph(exported, "int8", {layer: "int8"}, integers=Integers(names, spans, {conv.name: rounded}))


def convolve(image: Array, graph: Graph, clip: bool) -> NDArray[np.float64]:
    """In integers, rounded once: 3 x 3, by twos, zeros around the image."""
    (rounded,) = graph.integers.weights.values()
    (scale, zero), (steps, offset) = choose_scale(IMAGE), choose_scale(RESULT)
    given = np.clip(np.round(image / np.float32(scale)) + zero, -128, 127).astype(int) - zero
    padded, weights = np.pad(given, ((0, 0), (1, 1), (1, 1))), rounded.integers.numpy().astype(int)
    out = (SIZE + 1) // 2
    sums = np.array(
        [
            [
                [(weights[o] * padded[:, 2 * y : 2 * y + 3, 2 * x : 2 * x + 3]).sum() for x in range(out)]
                for y in range(out)
            ]
            for o in range(len(weights))
        ]
    )
    unit = scale * rounded.scale.double().numpy()
    assert rounded.bias is not None
    exact = (sums + np.round(rounded.bias.double().numpy() / unit)[:, None, None]) * unit[:, None, None]
    exact = np.clip(exact, 0, 6) if clip else exact
    return np.clip(np.round(exact / steps) + offset, -128, 127)


@pytest.mark.parametrize(("name", "clip"), [("emulation", False), *((name, True) for name in ("emulation", *FORMATS))])
def test_a_convolution_is_that_of_integers(name: str, clip: bool, tmp_path: Path) -> None:
    conv = nn.Conv2d(3, 8, 3, 2, 1)
    model = randomize(nn.Sequential(conv, nn.ReLU6()) if clip else conv, SIZE)
    graph, images = prepare(model, clip), draw(1, SIZE)
    got = emulate(graph, images) if name == "emulation" else run(graph, name, aim(name), tmp_path, images)[1]
    steps, offset = choose_scale(RESULT)
    integers, expected = got.reshape(8, 5, 5) / steps + offset, convolve(images[0], graph, clip)
    # fp16 tells 1/2048 of a value, of up to 127 steps; float32 rounds a tie to the other side
    assert np.abs(integers - expected).max() < (1.2 if name == "coreml" else 1.01)
    near = 0.1 if name == "coreml" else 0.01
    assert (np.abs(integers - expected) < near).mean() > (0.9 if name == "coreml" else 0.97)
    assert len(np.unique(expected)) > 50


@pytest.mark.parametrize("unsigned", [False, True])
def test_each_value_is_written_once_and_read_where_it_is(unsigned: bool) -> None:
    """Quantised behind what makes it; -128 is in no weight; the graph itself stays."""
    graph = prepare(randomize(nn.Conv2d(3, 8, 3, 2, 1), SIZE))
    before = str(graph.exported.graph)
    program = insert_integers(graph.exported, graph.integers, unsigned)
    assert str(graph.exported.graph) == before
    targets = [node.target for node in program.graph.nodes]
    assert targets.count(ops.quantize_per_tensor.default) == targets.count(ops.dequantize_per_tensor.default) == 2
    assert targets.count(ops.dequantize_per_channel.default) == 1 + unsigned  # QDQ files have a bias of int32
    types = {str(node.args[5]) for node in program.graph.nodes if node.target is ops.quantize_per_tensor.default}
    assert types == {"torch.uint8" if unsigned else "torch.int8"}
    assert insert_integers(graph.exported, Integers()) is graph.exported
    image = torch.from_numpy(draw(1, SIZE))
    plain = insert_integers(graph.exported, graph.integers).module()(image)
    torch.testing.assert_close(program.module()(image), plain, atol=choose_scale(RESULT)[0] * 1.01, rtol=0)
    assert (program.module()(image) == plain).float().mean() > 0.97
