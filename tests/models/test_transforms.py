"""Evaluation transforms of others, against those others."""

from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bigvit_edge.errors import UserError
from bigvit_edge.export.image import read_image
from bigvit_edge.models.load import load
from bigvit_edge.models.timm_models import import_timm
from bigvit_edge.models.transforms import make_preprocessing, read_timm
from bigvit_edge.preprocessing import Preprocessing

needs_timm = pytest.mark.skipif(find_spec("timm") is None, reason="needs the extra [timm]")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = ((500, 375), (375, 500), (32, 32), (33, 47), (7, 5), (1, 1), (1, 300), (801, 64), (224, 224))


def write_picture(path: Path, size: tuple[int, int]) -> Path:
    """Smooth colours with edges and noise on them."""
    rng = np.random.default_rng(sum(size))
    small = rng.integers(0, 256, (5, 4, 3), np.uint8)
    smooth = np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BICUBIC), np.int16)  # [H, W, 3]
    smooth[:: max(2, size[1] // 7)] = 255
    noisy = smooth + rng.integers(-20, 20, smooth.shape)
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path)
    return path


def count_levels(found: Any, expected: Any, how: Preprocessing) -> Any:
    """Differences in steps of uint8."""
    return np.abs(found - expected) * np.array(how.std)[:, None, None] / how.scale


@needs_timm
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("crop_mode", "crop_pct", "interpolation", "side"),
    [
        ("center", 0.875, "bicubic", 224),
        ("center", 0.9, "bilinear", 31),
        ("center", 1.0, "bicubic", 64),
        ("center", 1.15, "bicubic", 64),  # less than the input: the rest is black
        ("squash", 0.95, "bicubic", 64),
        ("squash", 1.0, "lanczos", 33),
        ("border", 1.0, "bicubic", 64),
        ("border", 0.8, "bilinear", 33),
        ("center", 0.875, "nearest", 48),
    ],
)
def test_as_timm_does(
    tmp_path: Path, size: tuple[int, int], crop_mode: str, crop_pct: float, interpolation: str, side: int
) -> None:
    timm = import_timm()
    told = dict(crop_mode=crop_mode, crop_pct=crop_pct, interpolation=interpolation)
    transform = timm.data.create_transform((3, side, side), mean=MEAN, std=STD, **told)
    how = make_preprocessing("m", side, MEAN, STD, **told)[0]  # type: ignore[arg-type]
    path = write_picture(tmp_path / "picture.png", size)
    if crop_mode == "border" and min(size) * side / crop_pct < max(size) / 2:
        assert read_image(path, how).shape == (1, 3, side, side)  # timm resizes to no pixel at all, and raises
        return
    with Image.open(path) as picture:
        expected = transform(picture.convert("RGB")).numpy()
    levels = count_levels(read_image(path, how)[0], expected, how)
    assert levels.max() < 1e-3


def configure(**changes: Any) -> Any:
    told = dict(input_size=(3, 32, 32), mean=MEAN, std=STD, crop_pct=0.9, crop_mode="squash", interpolation="bilinear")
    return SimpleNamespace(pretrained_cfg={**told, **changes})


def test_timms_configuration_is_read_as_timm_reads_it() -> None:
    how = read_timm(configure(), "m")
    assert (how.size, how.crop, how.resize, how.resize_to) == (32, "squash", "bilinear, antialiased", 35)
    bare = read_timm(SimpleNamespace(pretrained_cfg={}), "m")  # type: ignore[arg-type]
    assert bare == Preprocessing(224, MEAN, STD, crop="center", resize="bicubic, antialiased", resize_to=256)
    test_size = configure(test_input_size=(3, 64, 64), test_crop_pct=1.0)
    assert [read_timm(test_size, "m", size).resize_to for size in (None, 48, 64)] == [35, 53, 64]
    with pytest.raises(UserError, match=r"m takes images \[3, 64, 32\]; expected square ones"):
        read_timm(configure(input_size=(3, 64, 32)), "m")
    with pytest.raises(UserError, match=r"m says interpolation 'hamming', where one of nearest, .* is expected"):
        read_timm(configure(interpolation="hamming"), "m")
    with pytest.raises(UserError, match=r"crop 'five', where one of .* is expected"):
        read_timm(configure(crop_mode="five"), "m")


class Net(torch.nn.Module):
    def __init__(self, **said: Any) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(3, 2)
        vars(self).update(dict(image_size=16, mean=MEAN, std=STD) | said)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(images.mean((2, 3)))  # type: ignore[no-any-return]


@pytest.fixture
def load_net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "net_that_says.py").write_text("build = None\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    import net_that_says

    def load_with(**said: Any) -> Any:
        monkeypatch.setattr(net_that_says, "build", lambda: Net(**said))
        return load("net_that_says:build")

    return load_with


def test_a_factory_may_say_its_crop_and_interpolation(load_net: Any) -> None:
    assert load_net().preprocessing == Preprocessing(16, MEAN, STD)
    told = load_net(crop_pct=0.875, interpolation="bicubic").preprocessing
    assert told == Preprocessing(16, MEAN, STD, crop="center", resize="bicubic, antialiased", resize_to=18)
    assert load_net(crop_mode="squash").preprocessing == Preprocessing(16, MEAN, STD, crop="squash")
    for wrong in (dict(crop_pct=0), dict(crop_pct=float("nan")), dict(crop_mode="five"), dict(interpolation="best")):
        with pytest.raises(UserError, match=f"the attribute `{next(iter(wrong))}` of net_that_says:build is"):
            load_net(**wrong)


def test_a_mean_of_0_to_255_is_taken_so_aloud(load_net: Any, tmp_path: Path) -> None:
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    loaded = load_net(mean=mean, std=std)
    assert loaded.notes == (f"mean {mean} is of pictures in 0..255: their values are not divided by 255",)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "p.png")
    expected = (pixels.astype(np.float64) - mean) / std
    np.testing.assert_allclose(
        read_image(tmp_path / "p.png", loaded.preprocessing)[0].transpose(1, 2, 0), expected, 1e-5, 1e-5
    )
    with pytest.raises(UserError, match=r"neither of pictures in 0..1 nor .* say both of pictures in 0\.\.1"):
        load_net(mean=mean, std=STD)
