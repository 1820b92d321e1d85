"""Ops that coremltools refuses, in others that it takes: the saved package against eager PyTorch."""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigvit_edge.artifact import write_data
from bigvit_edge.errors import UserError
from bigvit_edge.export.backends import coreml
from bigvit_edge.export.convert import capture, lower, rewrite
from bigvit_edge.target import Target, load_target

SIDE = 8
ROWS = torch.tensor([2, 0, 2])
GRAINS = torch.rand(1, 6, 6, 2, generator=torch.Generator().manual_seed(1)) * 2.4 - 1.2


def put(x: Tensor, accumulate: bool) -> Tensor:
    at = (None, None, ROWS, torch.tensor([[1], [3]]))  # [2, 3] places
    return torch.ops.aten.index_put(x, at, x[0, 0, :2, :3], accumulate)


def assign(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, ::2] = 0
    y[:, :, [1, 5]] = y[:, :, [5, 1]] * 2
    y[..., -1, 3:7] = x[..., 0, 3:7]
    return y


def merge(x: Tensor, reduce: str) -> Tensor:
    at = ROWS.view(1, 1, 3, 1).expand(1, 3, 3, SIDE)
    return x.scatter_reduce(2, at, x[:, :, 3:6], reduce)


PROGRAMS: dict[str, Callable[[Tensor], Tensor]] = {
    "diagonals": lambda x: torch.cat([torch.diagonal(x[:, :, :5], d, 2, 3).sum(-1) for d in (0, 3, -2)], 1),
    "the trace of an einsum": lambda x: torch.einsum("bcii->bci", x),
    "argsort": lambda x: x.gather(3, x.argsort(dim=3, descending=True, stable=True)),
    "median": lambda x: x.median(2, keepdim=True).values + x.median(3).values.unsqueeze(2),
    "cdist": lambda x: torch.cdist(x[0], x[0] + 1).unsqueeze(0),
    "scatter": lambda x: x.scatter(2, ROWS.view(1, 1, 3, 1).expand(1, 3, 3, SIDE)[:, :, :2], 0.5),
    "scatter sum": lambda x: merge(x, "sum"),
    "scatter mean": lambda x: merge(x, "mean"),
    "put": lambda x: put(x, True),
    "assigned": assign,
    "top-k and gather of tokens": lambda x: x.flatten(2).gather(
        2, x.flatten(2).mean(1).topk(9)[1].unsqueeze(1).expand(1, 3, 9)
    ),
    "shuffled channels": lambda x: F.channel_shuffle(x[:, [0, 1, 2, 0]], 2),
    "pixel shuffle": lambda x: F.pixel_shuffle(F.pixel_unshuffle(x, 2) * 2, 2),
    "rolled and turned": lambda x: x.roll((2, -1), (2, 3)).rot90(1, (2, 3)).movedim(1, 2),
    "pooled by 2": lambda x: F.max_pool2d(x, 2) + F.avg_pool2d(x, 2),
    "circular padding": lambda x: F.pad(x, (1, 2, 2, 0), mode="circular"),
    "bilinear at 1.7": lambda x: F.interpolate(x, scale_factor=1.7, mode="bilinear"),
    "bilinear to corners": lambda x: F.interpolate(x, size=(5, 11), mode="bilinear", align_corners=True),
    "bicubic": lambda x: F.interpolate(x, size=(5, 11), mode="bicubic"),
    "nearest": lambda x: F.interpolate(x, scale_factor=1.5) + F.interpolate(x, size=12, mode="nearest-exact"),
    "smaller, antialiased": lambda x: F.interpolate(x, size=(3, 5), mode="bilinear", antialias=True),
    "sampled at a grid": lambda x: F.grid_sample(x, GRAINS, padding_mode="border", align_corners=False),
    "hardswish": lambda x: F.hardswish(x) + F.hardsigmoid(x) + F.threshold(x, 0.2, 0.0),
    "transposed convolution": lambda x: F.conv_transpose2d(x, GRAINS[0, :3, :, :, None].mT, None, 2, 1, (1, 0)),
    "unfolded and folded": lambda x: F.fold(F.unfold(x, (3, 2), 1, 1, 2) ** 2, (8, 8), (3, 2), 1, 1, 2),
    "windows of two": lambda x: torch.cat([x, -x]).view(2, 3, 2, 4, 2, 4).permute(0, 2, 4, 1, 3, 5).flatten(1)[1:],
    "remainder of a division": lambda x: torch.fmod(x, 0.3),
}  # fmt: skip


class Answers(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return torch.cat([function(image).flatten(1) for function in PROGRAMS.values()], 1)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Any]]:
    """What one saved package with all programs in it, and what PyTorch, say of each."""
    image = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    graph = rewrite(capture(Answers().eval(), SIDE))
    artifact = coreml.lower([graph], Target("test", "", ("coreml",), deployment="iOS17"), {})
    path = tmp_path_factory.mktemp("all") / "all.mlpackage"
    write_data(cast(dict[str, bytes], artifact.data), path)
    expected = [function(image).flatten(1).numpy() for function in PROGRAMS.values()]
    got = np.split(coreml.load(path)(image.numpy()), np.cumsum([e.shape[1] for e in expected])[:-1], 1)
    return dict(zip(PROGRAMS, zip(got, expected, strict=True), strict=True))


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_package_answers_as_pytorch(name: str, answers: dict[str, tuple[Any, Any]]) -> None:
    got, expected = answers[name]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


class Turned(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.view_as_real(torch.view_as_complex(x.view(1, 3, 8, 4, 2)) * 2).flatten(1)


class Masked(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return ((x * 9).int() & 5).float().flatten(1)


class Model(nn.Module):
    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.stem, self.part = nn.Conv2d(3, 3, 1), part

    def forward(self, x: Tensor) -> Tensor:
        return self.part(self.stem(x))


@pytest.mark.parametrize(
    ("part", "op", "reason"),
    [
        (Turned(), "aten.view_as_complex", "coremltools converts no such op"),
        (Masked(), "aten.bitwise_and", "only supports boolean input"),  # what coremltools says of it
    ],
)
def test_what_is_left_is_named_with_layer_line_and_a_way_out(part: nn.Module, op: str, reason: str) -> None:
    graph = rewrite(capture(Model(part), SIDE))
    with pytest.raises(UserError) as error:
        lower([graph], "coreml", load_target("ios"), {})
    said = str(error.value)
    assert f"coreml does not take {op} in layer part at " in said
    assert "test_coreml_operations.py" in said
    assert reason in said
    assert "another format, such as onnx" in said
