"""How a picture becomes an input."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bigvit_edge.demo.accuracy import normalize
from bigvit_edge.demo.digits import make_batch
from bigvit_edge.export import decoding, image
from bigvit_edge.export.image import read_image
from bigvit_edge.preprocessing import Preprocessing

HOW = Preprocessing(64, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_a_demo_image_saved_and_read_is_the_models_input(tmp_path: Path) -> None:
    image = make_batch("held_out", 1, 0).images
    pixels = (image[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    Image.fromarray(pixels).save(tmp_path / "digit.png")
    np.testing.assert_allclose(read_image(tmp_path / "digit.png", HOW), normalize(image).numpy(), atol=1e-6)


def test_a_wide_picture_is_cropped_in_the_middle(tmp_path: Path) -> None:
    wide = np.zeros((64, 192, 3), np.uint8)
    wide[:, 64:128] = (255, 0, 0)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    found = read_image(tmp_path / "wide.png", HOW)
    assert found.shape == (1, 3, 64, 64)
    np.testing.assert_allclose(found[0, 0], 1)
    np.testing.assert_allclose(found[0, 1:], -1)


def test_gray_and_transparent_pictures_are_read(tmp_path: Path) -> None:
    for mode in ("L", "RGBA", "P", "1"):
        Image.new(mode, (70, 65)).save(tmp_path / f"{mode}.png")
        assert read_image(tmp_path / f"{mode}.png", HOW).shape == (1, 3, 64, 64)


def test_sixteen_bit_gray_keeps_its_levels(tmp_path: Path) -> None:
    Image.fromarray(np.full((64, 64), 0x4000, np.uint16)).save(tmp_path / "deep.png")
    np.testing.assert_allclose(read_image(tmp_path / "deep.png", HOW), (0x40 / 255 - 0.5) / 0.5, atol=1e-6)


def test_a_phones_picture_is_turned_upright(tmp_path: Path) -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:32] = 255  # white above
    picture = Image.fromarray(pixels)
    exif = picture.getexif()
    exif[0x0112] = 3  # orientation: upside down
    picture.save(tmp_path / "turned.png", exif=exif)
    found = read_image(tmp_path / "turned.png", HOW)
    assert found[0, 0, 0, 0] == -1
    assert found[0, 0, 63, 0] == 1


def test_channels_may_be_wanted_in_the_other_order(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9), (255, 51, 0)).save(tmp_path / "red.png")
    how = Preprocessing(8, (0.5, 0.0, 0.0), (0.5, 1.0, 1.0), color="BGR")
    np.testing.assert_allclose(read_image(tmp_path / "red.png", how)[0, :, 0, 0], (-1, 0.2, 1), atol=1e-6)
    border = Preprocessing(8, (0.2, 0.4, 0.6), (1.0, 1.0, 1.0), color="BGR", crop="border")
    Image.new("RGB", (8, 2)).save(tmp_path / "wide.png")
    np.testing.assert_allclose(read_image(tmp_path / "wide.png", border)[0, :, 0, 0], 0, atol=1e-6)  # mean's colour


@pytest.mark.parametrize(("suffix", "levels"), [(".png", 1.5), (".jpg", 2.5), (".jp2", 4.5)])
def test_huge_pictures_are_seen_within_some_roundings(
    tmp_path: Path, suffix: str, levels: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = np.random.default_rng(1).integers(0, 256, (9, 12, 3)).astype(np.uint8)
    picture = Image.fromarray(small).resize((1200, 900), Image.Resampling.BICUBIC)
    picture.save(path := tmp_path / f"p{suffix}", **({"quality": 95} if suffix == ".jpg" else {}))
    how = Preprocessing(
        64,
        (0.0,) * 3,
        (1.0,) * 3,
        crop="center",
        resize="bicubic, antialiased",
        resize_to=73,  # type: ignore[arg-type]
    )
    exact = read_image(path, how)
    monkeypatch.setattr(decoding, "EXACT_MEGAPIXELS", 0.5)
    monkeypatch.setattr(decoding, "EXACT_JPEG2000_MEGAPIXELS", 0.5)
    quick = read_image(path, how)
    assert 0 < np.abs(quick - exact).max() < levels / 255


def test_a_jpeg_2000_of_too_few_levels_is_decoded_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (900, 900), (255, 0, 0)).save(tmp_path / "p.jp2", num_resolutions=1)
    monkeypatch.setattr(decoding, "EXACT_JPEG2000_MEGAPIXELS", 0.5)
    np.testing.assert_allclose(read_image(tmp_path / "p.jp2", HOW)[0, :, 0, 0], (1, -1, -1), atol=1e-6)


def test_a_picture_too_thin_to_resize_whole(tmp_path: Path) -> None:
    """Its middle, for the whole would be 64 x 6,400,000 pixels."""
    ramp = np.repeat(np.arange(100_000, dtype=np.int64)[:, None] * 256 // 100_000, 1, 1).astype(np.uint8)
    Image.fromarray(ramp).save(tmp_path / "thin.png")
    how = Preprocessing(64, (0.0,) * 3, (1.0,) * 3, crop="center")  # type: ignore[arg-type]
    np.testing.assert_allclose(read_image(tmp_path / "thin.png", how), 127.5 / 255, atol=1 / 255)


def test_a_picture_one_pixel_wide_needs_no_more_memory_than_itself(tmp_path: Path) -> None:
    Image.new("L", (1, 100_000), 255).save(tmp_path / "thin.png")
    np.testing.assert_allclose(read_image(tmp_path / "thin.png", HOW), 1)


def test_255ths_are_those_of_torchvision() -> None:
    """Its to_tensor divides: another rounding of the last bit moves what calibration chooses."""
    values = torch.arange(256, dtype=torch.uint8).expand(1, 3, 1, 256)
    how = Preprocessing(256, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    mean, std = (torch.tensor(triple).view(3, 1, 1) for triple in (how.mean, how.std))
    expected = (values.float().div(255) - mean) / std
    assert np.array_equal(image.normalize(values.float().numpy(), how), expected.numpy())
