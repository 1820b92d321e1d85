"""Parity figures against numbers worked out by hand, and the verdict on them."""

import numpy as np
import pytest

from bigvit_edge.artifact import Parity
from bigvit_edge.export.parity import compare, judge, make_references
from bigvit_edge.models.load import load
from bigvit_edge.target import Limits


def test_compare_by_hand() -> None:
    expected = np.array([[1.0, 0.0], [0.0, 2.0]], np.float32)
    found = np.array([[1.0, 0.0], [3.0, 1.0]], np.float32)
    parity = compare(found, expected)
    assert parity.max_abs == 3.0
    assert parity.cosine_min == pytest.approx(1 / np.sqrt(10))
    assert parity.cosine_mean == pytest.approx((1 + 1 / np.sqrt(10)) / 2)
    assert parity.top1_agreement == 0.5
    assert parity.images == 2


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_file_that_answers_nonsense_agrees_with_nothing(bad: float) -> None:
    expected = np.ones((3, 2), np.float32)
    found = expected.copy()
    found[1, 0] = bad
    parity = compare(found, expected)
    assert parity.top1_agreement == 0
    assert len(judge(parity, "fp32", Limits())) == 3


def test_all_zero_logits_are_no_match() -> None:
    assert compare(np.zeros((1, 2), np.float32), np.ones((1, 2), np.float32)).cosine_min == 0


@pytest.mark.parametrize(
    ("parity", "precision", "words"),
    [
        (Parity(2e-3, 1.0, 1.0, 1.0, 9), "fp32", ["fp32_max_abs"]),
        (Parity(2e-3, 1.0, 1.0, 1.0, 9), "int8", []),
        (Parity(0.5, 0.95, 0.998, 1.0, 9), "int8", ["int8_cosine)"]),
        (Parity(0.5, 0.4, 0.9995, 1.0, 9), "int8", ["cosine_min)"]),
        (Parity(0.5, 0.95, 0.9995, 0.98, 9), "int8", ["top1_agreement"]),
        (Parity(0.0, 1.0, 1.0, 1.0, 9), "fp32", []),
        (Parity(0.5, 0.95, 0.985, 0.96, 9), "int4", []),
        (Parity(0.5, 0.95, 0.9995, 0.91, 9), "int4", ["int4_agreement"]),
        (Parity(0.5, 0.95, 0.98, 1.0, 9), "int8-static", ["static_cosine"]),
        (Parity(0.5, 0.95, 0.998, 1.0, 9), "mixed", ["mixed_cosine"]),
        (Parity(0.5, 0.95, 0.9998, 1.0, 9), "fp16", ["fp16_cosine"]),
    ],
)
def test_judge_names_the_limit_that_was_missed(parity: Parity, precision: str, words: list[str]) -> None:
    faults = judge(parity, precision, Limits())
    assert len(faults) == len(words)
    for fault, word in zip(faults, words, strict=True):
        assert word in fault


def test_below_keep_one_half_departures_may_be_larger() -> None:
    parity = Parity(0.5, 0.2, 0.997, 0.97, 9)
    assert len(judge(parity, "int8", Limits(), keep=0.5)) == 3
    assert judge(parity, "int8", Limits(), keep=0.25) == []
    assert "limits.low_keep_slack" in judge(parity, "int8", Limits(low_keep_slack=1.5), keep=0.25)[0]
    assert len(judge(Parity(1e-5, 0.99998, 1, 1, 9), "fp32", Limits(), keep=0.25)) == 1


def test_random_weights_are_held_to_a_cosine_alone() -> None:
    assert judge(Parity(0.5, 0.995, 0.996, 0.6, 9), "int8", Limits(), trained=False) == []
    (fault,) = judge(Parity(0.5, 0.98, 0.996, 0.6, 9), "int8", Limits(), trained=False)
    assert "limits.untrained_cosine" in fault


def test_a_model_without_images_of_its_own_gets_the_demos_enlarged() -> None:
    reference = make_references(load("vit_ti"), (None,), 2)[None]
    assert reference.images.shape == (2, 3, 224, 224)
    assert reference.labels is None
    own = make_references(load("vit_demo"), (None,), 2)[None]
    assert own.images.shape == (2, 3, 64, 64)
    assert own.labels is not None


def test_each_keep_ratio_has_answers_of_its_own() -> None:
    references = make_references(load("blvit_demo"), (0.25, 1.0), 3)
    assert set(references) == {0.25, 1.0}
    assert compare(references[0.25].logits, references[1.0].logits).max_abs > 0.1
