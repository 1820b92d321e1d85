"""Windows of photographs: as many as asked for, the same from one seed, and none of the other split's."""

import numpy as np
import pytest
import torch

from bigvit_edge.demo import photographs
from bigvit_edge.demo.digits import PHOTOS
from bigvit_edge.demo.photographs import draw_photographs


def test_windows_are_images_of_the_size_asked_for() -> None:
    drawn = draw_photographs("train", 5, 24, 0)
    assert (drawn.shape, drawn.dtype) == ((5, 3, 24, 24), torch.float32)
    assert 0 <= float(drawn.min()) < 0.2 < 0.8 < float(drawn.max()) <= 1
    levels = 255 * drawn.numpy()
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-4)
    assert all(float(image.std()) > 0.02 for image in drawn)


def test_the_seed_alone_decides() -> None:
    one, same, other = (draw_photographs("train", 4, 16, seed) for seed in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(draw_photographs("train", 2, 16, 3), one[:2])


def test_splits_share_no_photograph(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    find = photographs.find_photo
    monkeypatch.setattr(photographs, "find_photo", lambda name: opened.append(name) or find(name))
    seen = {}
    for split in PHOTOS:
        photographs._load.cache_clear()
        draw_photographs(split, 2, 16, 0)
        seen[split], opened[:] = set(opened), []
    photographs._load.cache_clear()
    train, held = seen.values()
    assert train
    assert held
    assert not train & held
