"""Models of others around one of ours, as a user's factory would give them: MODEL `tests.models.around:build`."""

import numpy as np
import torch
from torch import Tensor, nn

from bigvit_edge.export.convert import capture, part, rewrite
from bigvit_edge.export.graph import Graph
from bigvit_edge.models.blvit import BLViT
from bigvit_edge.models.load import load_model

SIZE = 32  # pixels


class Around(nn.Module):
    """Pixels in -1..1 as a camera has them -> probabilities. In front a smaller and smoother image, behind the logits
    two Linears; `keep` is handed on."""

    mean = std = (0.5, 0.5, 0.5)

    def __init__(self, net: nn.Module, classes: int, image_size: int) -> None:
        super().__init__()
        self.image_size, self.net = image_size, net
        self.smooth = nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False)
        self.hidden, self.out = nn.Linear(classes, 16), nn.Linear(16, 4)

    @property
    def keep(self) -> float | None:
        return getattr(self.net, "keep", None)

    @keep.setter
    def keep(self, keep: float) -> None:
        self.net.keep = keep  # type: ignore[assignment]

    def forward(self, images: Tensor) -> Tensor:
        images = self.smooth(nn.functional.avg_pool2d((images + 1) * 127.5, 2))
        logits = self.net((images - 127.5) / 127.5)
        return self.out(nn.functional.gelu(self.hidden(logits))).softmax(-1)  # type: ignore[no-any-return]


def build() -> Around:
    """Around a tiny big.LITTLE ViT of 16 pixels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dims = {"dim": 32, "little_dim": 16, "head_dim": 16, "little_head_dim": 8}
        net = BLViT(image_size=SIZE // 2, patch=4, depth=2, num_classes=5, **dims)
        for parameter in net.parameters():  # the start has gammas of 1e-4: make every path count
            parameter.data.normal_(0, 0.3)
        return Around(net, 5, SIZE)


def part_model(model: nn.Module, name: str = "net", size: int = SIZE, keep: float | None = None) -> Graph:
    """The model's graph in fp32, with the one of ours of that name parted."""
    images = np.random.default_rng(0).standard_normal((2, 3, size, size), dtype=np.float32)
    return part(rewrite(capture(model, size, keep)), name, images)


def build_s() -> Around:
    """Around blvit_s."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Around(load_model("blvit_s"), 1000, 448)
