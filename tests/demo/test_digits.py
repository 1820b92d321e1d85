"""The cluttered digits: deterministic, split cleanly, labelled where the ink is."""

import pytest
import torch

from bigvit_edge.demo import digits
from bigvit_edge.demo.digits import PATCH, PHOTOS, SIZE, held_out, load_split, make_batch


def test_equal_seeds_give_equal_images_and_others_do_not() -> None:
    a, b, c = (make_batch("train", 8, seed) for seed in (3, 3, 4))
    assert torch.equal(a.images, b.images)
    assert torch.equal(a.ink, b.ink)
    assert not torch.equal(a.images, c.images)


def test_varied_backgrounds_are_other_backgrounds() -> None:
    plain, varied = make_batch("train", 64, 0), make_batch("train", 64, 0, vary=True)
    assert plain.images.shape == varied.images.shape
    assert not torch.equal(plain.images, varied.images)
    spread = (varied.images - plain.images).abs().mean((1, 2, 3))  # [B]
    assert (spread > 0.05).float().mean() > 0.9


def test_shapes_ranges_and_whole_levels() -> None:
    batch = make_batch("train", 16, 0)
    assert batch.images.shape == (16, 3, SIZE, SIZE)
    assert batch.ink.shape == (16, (SIZE // PATCH) ** 2)
    levels = batch.images * 255
    assert levels.min() >= 0
    assert levels.max() <= 255
    torch.testing.assert_close(levels, levels.round())


def test_splits_share_no_digit_and_no_photograph() -> None:
    train, test = load_split("train"), load_split("held_out")
    assert len(train.digits) + len(test.digits) == 1797
    assert not set(PHOTOS["train"]) & set(PHOTOS["held_out"])
    ours = {tuple(d.flatten().tolist()) for d in train.digits}
    assert not ours & {tuple(d.flatten().tolist()) for d in test.digits}
    assert len(train.photos) == len(PHOTOS["train"])


def test_ink_marks_the_patches_where_the_digit_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """With green ink, no strokes and no photograph, the green pixels of a patch say whether it holds the digit."""
    green = torch.tensor([0.0, 1.0, 0.0]).view(1, 3, 1, 1)
    monkeypatch.setattr(digits, "_draw_background", lambda photos, count, g: torch.zeros(count, 3, SIZE, SIZE))
    monkeypatch.setattr(digits, "_contrasting_color", lambda background, shape, g: green.expand(len(shape), -1, -1, -1))
    monkeypatch.setattr(digits, "_draw_stroke", lambda count, g: torch.zeros(count, 1, SIZE, SIZE))
    batch = make_batch("train", 32, 0)
    area = batch.images[:, 1].unfold(1, PATCH, PATCH).unfold(2, PATCH, PATCH).mean((3, 4)).flatten(1)  # [B, patches]
    assert batch.ink[area > 0.1].all()
    assert not batch.ink[area < 0.03].any()
    assert 0.05 < batch.ink.float().mean() < 0.4


def test_held_out_has_every_class() -> None:
    assert set(held_out().labels.tolist()) == set(range(10))
    assert len(held_out().labels) == 1000
