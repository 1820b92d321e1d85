import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import Node

from bigvit_edge.export.convert import capture
from bigvit_edge.export.emulation import emulate_integers
from bigvit_edge.export.integers import Rounded
from bigvit_edge.export.quantization import choose_scale

SPANS = {"x": (-1.0, 1.0), "relu": (0.0, 2.0), "conv2d_1": (-3.0, 3.0)}


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.third(torch.tanh(self.second(torch.relu(self.first(x))))).mean((2, 3))


def round_to(span: tuple[float, float], value: Tensor) -> Tensor:
    scale, zero = choose_scale(span)
    return (torch.clamp(torch.round(value / scale) + zero, -128, 127) - zero) * scale


def test_each_convolution_meets_what_those_before_it_made_in_int8() -> None:
    torch.manual_seed(0)
    model = Two().eval()
    program = capture(model, 6).exported
    images = np.random.default_rng(0).uniform(-1, 1, (2, 3, 6, 6)).astype(np.float32)
    ops = [node for node in program.graph.nodes if node.name in ("conv2d", "relu", "conv2d_1")]
    met: dict[str, tuple[list[Tensor], list[Tensor]]] = {}
    generator = torch.Generator().manual_seed(1)
    given: dict[str, Rounded] = {}

    def choose(node: Node, inputs: list[Tensor], outputs: list[Tensor]) -> Rounded:
        met[node.name] = inputs, outputs
        shape = node.args[1].meta["val"].shape  # type: ignore[union-attr]
        integers = torch.randint(-127, 128, shape, generator=generator, dtype=torch.int8)
        given[node.name] = Rounded(integers, torch.full((shape[0],), 0.01), torch.full((shape[0],), 0.5))
        return given[node.name]

    emulate_integers(program, ops, SPANS, images, choose)
    assert set(met) == {"conv2d", "conv2d_1"}  # the third is none of the ops
    with torch.no_grad():
        for i, image in enumerate(torch.from_numpy(images)):
            rounded = round_to(SPANS["x"], image[None])
            torch.testing.assert_close(met["conv2d"][0][i], rounded)
            torch.testing.assert_close(met["conv2d"][1][i], model.first(image[None]))
            first = nn.functional.conv2d(rounded, 0.01 * given["conv2d"].integers, torch.full((4,), 0.5))
            torch.testing.assert_close(met["conv2d_1"][0][i], round_to(SPANS["relu"], torch.relu(first)))
            torch.testing.assert_close(met["conv2d_1"][1][i], model.second(torch.relu(model.first(image[None]))))
