"""How a picture becomes an input."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bigvit_edge.artifact import Preprocessing
from bigvit_edge.demo.accuracy import normalize
from bigvit_edge.demo.digits import make_batch
from bigvit_edge.export.inference import read_image

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
