"""The small program of made.py as a .pte for test_executorch.cc, and bve::dispatch alone, as one for
test_executorch_dispatch.cc:

python -m tests.runtime.doors.write_pte FILE FILE
"""

import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from bigvit_edge.export.backends.executorch import lower_programs, native
from bigvit_edge.export.graph import Graph
from bigvit_edge.export.program import from_bytes
from bigvit_edge.models.dispatch import DISPATCH
from bigvit_edge.runtime.executorch import FORWARD
from tests.runtime.doors import made


class Outline(nn.Module):
    """What a file has of a model: an image, logits, and something between them."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, image: Tensor) -> Tensor:
        return image.flatten(1)[:, : self.classes].float() * 2


def make_file(program: bytes, words: Mapping[str, str], others: Mapping[str, Tensor]) -> bytes:
    """A .pte with a method for each entry, named as the exporter does; and with others, of the first entry for images
    like these."""
    first, *rest = from_bytes(program).entries
    keeps = {entry.name if rest else FORWARD: entry.keep for entry in (first, *rest)}
    images = dict.fromkeys(keeps, torch.zeros(1, 3, first.image_size, first.image_size)) | dict(others)
    graphs = {
        name: Graph(torch.export.export(Outline(first.classes), (image,)), keep=keeps.get(name))
        for name, image in images.items()
    }
    return bytes(native.lower_programs(graphs, program, words).to_executorch().buffer)


def write(path: Path) -> Path:
    image = torch.zeros(1, 3, 4, 4)
    others = {
        "double": image.double(),
        "channels_last": image.to(memory_format=torch.channels_last),
        "wide": torch.zeros(1, 3, 4, 5),
        "packed_floats": torch.zeros(1, 4, 4, 3),
        "pixels": torch.zeros(1, 4, 4, 3, dtype=torch.uint8),
        "planar_pixels": image.byte(),
        "few_pixels": torch.zeros(1, 4, 3, 3, dtype=torch.uint8),
    }
    path.write_bytes(make_file(made.read_program(), {}, others))
    return path


class Dispatch(nn.Module):
    """bve::dispatch of k tokens, its tensors given: x, z, gain, offset, weight, bias."""

    def __init__(self, k: int = 3) -> None:
        super().__init__()
        self.k = k

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return DISPATCH(*tensors, 1e-6, self.k)  # type: ignore[no-any-return]


def write_dispatch(path: Path) -> Path:
    def export(k: int = 3, batch: int = 1, dtype: torch.dtype = torch.float32) -> Graph:
        shapes = ((batch, 5, 32), (batch, 5, 4), (4,), (4,), (1, 4), (1,))
        return Graph(torch.export.export(Dispatch(k), tuple(torch.zeros(shape, dtype=dtype) for shape in shapes)))

    graphs = {"forward": export(), "double": export(dtype=torch.float64), "batch": export(batch=2), "many": export(6)}
    path.write_bytes(bytes(lower_programs(graphs, {}).to_executorch().buffer))
    return path


if __name__ == "__main__":
    write(Path(sys.argv[1]))
    write_dispatch(Path(sys.argv[2]))
