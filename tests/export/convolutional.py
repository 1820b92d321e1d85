"""Tiny convolutional networks, their int8 by format, and its emulation in PyTorch."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bigvit_edge.artifact import Array, Artifact, write_data
from bigvit_edge.export.convert import Subject, capture, load_backend, lower, place, quantize, rewrite
from bigvit_edge.export.graph import Graph
from bigvit_edge.export.quantization import insert_quantization
from bigvit_edge.target import Target, load_target

FORMATS = ("executorch", "litert", "onnx", "coreml")
SIZE = 16


class Squeeze(nn.Module):
    """A squeeze-and-excite."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, channels // 2, 1), nn.Conv2d(channels // 2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.expand(self.reduce(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class Hybrid(nn.Module):
    """Each kind of op of a mobile hybrid once: [1, 3, S, S] -> [1, 5]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8)
        self.expand, self.depthwise = nn.Conv2d(8, 16, 1), nn.Conv2d(16, 16, 3, 1, 1, groups=16)
        self.squeeze, self.project = Squeeze(16), nn.Conv2d(16, 8, 1)
        self.down, self.wide = nn.Conv2d(8, 8, 3, 2, 1, groups=2), nn.Conv2d(16, 16, 3, 1, 2, dilation=2)
        self.norm2, self.qkv, self.proj = nn.LayerNorm(16), nn.Linear(16, 48), nn.Linear(16, 16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.norm(self.stem(x)))  # [1, 8, S/2, S/2]
        x = x + self.project(self.squeeze(F.hardswish(self.depthwise(F.gelu(self.expand(x))))))
        x = torch.cat([self.down(x), F.max_pool2d(x, 3, 2, 1)], 1)  # [1, 16, S/4, S/4]
        t = F.silu(self.wide(x)).flatten(2).transpose(1, 2)  # [1, N, 16]
        q, k, v = self.qkv(self.norm2(t)).unflatten(2, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        t = t + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return self.head(t.mean(1))  # type: ignore[no-any-return]


class Between(nn.Module):
    """A convolution [1, 3, S, S] -> [1, 4, S, S], what is done with it, and one behind."""

    def __init__(self, how: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.how, self.first, self.second = how, nn.Conv2d(3, 4, 3, padding=1), nn.LazyConv2d(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.how(self.first(x))).flatten(1)  # type: ignore[no-any-return]


def randomize(model: nn.Module, size: int = SIZE) -> nn.Module:
    """Weights that keep the size of what goes through, as trained ones do."""
    model.eval()(torch.zeros(1, 3, size, size))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in model.named_parameters():
            drawn = torch.randn(value.shape, generator=generator)
            gain = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            value.copy_(drawn * 1.5 / value[0].numel() ** 0.5 if value.dim() > 1 else gain + 0.2 * drawn)
    return model


def draw(count: int = 6, size: int = SIZE, seed: int = 1) -> Array:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed)).numpy()


def aim(*formats: str, precision: str = "int8", **settings: object) -> Target:
    return replace(
        load_target("host"), **{"formats": formats, "precisions": (precision,), "deployment": "iOS17", **settings}
    )  # type: ignore[arg-type]


def quantized(
    model: nn.Module, target: Target, size: int = SIZE, calibration: Array | None = None
) -> Mapping[str, Graph]:
    """Quantise a model for each format of a target, in its only precision."""
    seen = draw(8, size, 2) if calibration is None else calibration
    subject = Subject(model, size, (None,), seen, True, {})
    graph = rewrite(capture(model, size))
    (precision,) = target.precisions
    placed = place(quantize([graph], precision, target, subject, lambda *_: None), target, subject)
    return {name: one for name, (one,) in placed.items()}


def emulate(graph: Graph, images: Array) -> Array:
    """Compute what the file should: the graph with its integers written into it."""
    module = insert_quantization(graph).module(check_guards=False)
    with torch.no_grad():
        return np.concatenate([module(torch.from_numpy(image[None])).numpy() for image in images])


def answer(model: nn.Module, images: Array) -> Array:
    with torch.no_grad():
        return model(torch.from_numpy(images)).numpy()  # type: ignore[no-any-return]


def run(graph: Graph, name: str, target: Target, folder: Path, images: Array) -> tuple[Artifact, Array]:
    """Lower a graph to a format; the file, and what its real runtime says."""
    artifact, backend = lower([graph], name, target, {}), load_backend(name)
    path = folder / f"m{backend.SUFFIX}"
    write_data(artifact.data, path)
    runner = backend.load(path)
    return artifact, np.concatenate([runner.run(image[None]) for image in images])


def measure(values: Array) -> float:
    """Root of the mean square."""
    return float(np.sqrt(np.square(values, dtype=np.float64).mean()))
