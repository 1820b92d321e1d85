"""What a bundle says of its weights is enough to find the same again."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from bigvit_edge.errors import UserError
from bigvit_edge.export.bundle import Source, export_bundle
from bigvit_edge.export.check import check_bundle
from bigvit_edge.models.vit import ViT
from bigvit_edge.target import load_target, override


def make_state(seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    model = ViT(image_size=16, patch=8, dim=32, depth=1, head_dim=8, num_classes=5)
    return {key: torch.randn_like(tensor) * 0.3 for key, tensor in model.state_dict().items()}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Of the student's weights, with four heads."""
    torch.save({"student": make_state(1), "teacher": make_state(2)}, tmp_path / "w.pth")
    target = override(load_target("host"), ["formats=bve", "precisions=fp32", "limits.images=2"])
    source = Source(str(tmp_path / "w.pth"), weights_key="student", heads=4)
    manifest, _ = export_bundle(source, target, tmp_path / "out")
    assert (manifest.weights_key, manifest.heads) == ("student", 4)
    return tmp_path / "out"


def test_heads_and_key_are_the_manifests(bundle: Path) -> None:
    (checked,) = check_bundle(bundle)
    assert checked.faults == ()
    for other in ({"heads": 2}, {"weights_key": "teacher"}):
        (checked,) = check_bundle(bundle, **other)  # type: ignore[arg-type]
        assert checked.faults
    with pytest.raises(UserError, match=r"nothing under 'ema'"):
        check_bundle(bundle, weights_key="ema")
