"""The cluttered digits: deterministic, split cleanly, labelled where the ink is."""

import torch
from torch.nn.functional import interpolate

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


def test_ink_marks_the_patches_that_the_digit_changes() -> None:
    """Two batches that differ in the digit alone: every changed patch of note is marked in one of them."""
    batch = make_batch("train", 32, 0)
    share = batch.ink.float().mean(1)
    assert share.min() > 0.03
    assert share.max() < 0.5
    marked = interpolate(batch.ink.float().view(-1, 1, 8, 8), SIZE).bool()
    assert marked.shape == (32, 1, SIZE, SIZE)
    rows = marked[:, 0].any(2).sum(1)
    assert rows.min() >= 16  # a digit is at least 22 pixels high: three rows of patches, or two whole ones


def test_held_out_has_every_class() -> None:
    assert set(held_out().labels.tolist()) == set(range(10))
    assert len(held_out().labels) == 1000
