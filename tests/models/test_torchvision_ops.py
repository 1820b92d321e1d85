from importlib.util import find_spec
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from bigvit_edge.export.convert import capture
from bigvit_edge.models.torchvision_ops import define_torchvision_ops


@pytest.mark.skipif(find_spec("torchvision") is None, reason="needs the extra [timm]")
def test_a_model_may_normalise_with_torchvision() -> None:
    define_torchvision_ops()
    from torchvision.transforms import Normalize

    class Normalizing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.normalize = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

        def forward(self, x: Tensor) -> Tensor:
            return cast(Tensor, self.normalize(x)).flatten(1)

    image = torch.rand(1, 3, 4, 4)
    told = capture(Normalizing(), 4).exported.module()(image)
    assert torch.equal(told, Normalizing()(image))
