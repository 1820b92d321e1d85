"""Parity figures against numbers worked out by hand, and the verdict on them."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from bigvit_edge.artifact import Array, Method
from bigvit_edge.export.calibration import visit_layers
from bigvit_edge.export.convert import capture
from bigvit_edge.export.parity import CONVOLVED, bound_centred, compare, explain_reference, judge, name_standard
from bigvit_edge.export.sensitivity import Rounder
from bigvit_edge.measures import Parity
from bigvit_edge.models.vit import ViT
from bigvit_edge.target import FULL, Limits


def test_compare_by_hand() -> None:
    expected = np.array([[1.0, 0.0], [0.0, 2.0]], np.float32)
    found = np.array([[1.0, 0.0], [3.0, 1.0]], np.float32)
    parity = compare(found, expected)
    assert parity.max_abs == 3.0
    assert parity.cosine_min == pytest.approx(1 / np.sqrt(10))
    assert parity.cosine_mean == pytest.approx((1 + 1 / np.sqrt(10)) / 2)
    assert parity.top1_agreement == 0.5
    assert parity.images == 2
    # about PyTorch's mean (0.5, 1): (0.5, -1), (-0.5, 1) where the file has (0.5, -1), (2.5, 0)
    assert parity.centred_cosine == pytest.approx(0 / 1, abs=1e-12)
    assert parity.spread == pytest.approx(np.sqrt(2.5 / 5))
    assert parity.span == 1.0


def test_compare_in_parts_is_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = np.random.default_rng(0).standard_normal((50, 7), np.float32)
    found = expected + 0.3 * np.random.default_rng(1).standard_normal((50, 7), np.float32)
    whole = compare(found, expected)
    a, b = found - expected.mean(0), expected - expected.mean(0)
    assert whole.centred_cosine == pytest.approx(float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)), abs=1e-6)
    monkeypatch.setattr("bigvit_edge.export.parity.ROWS", 8)
    for name, value in vars(compare(found, expected)).items():
        assert value == pytest.approx(getattr(whole, name), rel=1e-12), name


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_file_that_answers_nonsense_agrees_with_nothing(bad: float) -> None:
    expected = np.ones((3, 2), np.float32)
    found = expected.copy()
    found[1, 0] = bad
    parity = compare(found, expected)
    assert parity.top1_agreement == 0
    assert len(judge(parity, "fp32", Limits())) == 2  # the same logits for all images say nothing but their size
    expected[0, 0] = 3.0
    assert len(judge(compare(found, expected), "fp32", Limits())) == 4


def test_all_zero_logits_are_no_match() -> None:
    assert compare(np.zeros((1, 2), np.float32), np.ones((1, 2), np.float32)).cosine_min == 0


@pytest.mark.parametrize(
    ("parity", "precision", "words"),
    [
        (Parity(2e-3, 1.0, 1.0, 1.0, 9), "fp32", ["fp32_max_abs"]),
        (Parity(2e-3, 1.0, 1.0, 1.0, 9, span=30.0), "fp32", []),
        (Parity(2e-5, 1.0, 1.0, 1.0, 9, span=0.01), "fp32", ["fp32_max_abs"]),
        (Parity(2e-3, 1.0, 1.0, 1.0, 9), "int8", []),
        (Parity(0.5, 0.95, 0.998, 1.0, 9), "int8", ["int8_cosine)"]),
        (Parity(0.5, 0.4, 0.9995, 1.0, 9), "int8", ["cosine_min)"]),
        (Parity(0.5, 0.95, 0.9995, 0.98, 1000, centred_cosine=1.0, spread=1.0), "int8", ["top1_agreement"]),
        (Parity(0.5, 0.95, 0.9995, 0.985, 1000, centred_cosine=1.0, spread=1.0), "int8", []),
        (Parity(0.5, 0.95, 0.9995, 31 / 32, 32, centred_cosine=1.0, spread=1.0), "int8", []),
        (Parity(0.5, 0.95, 0.9995, 30 / 32, 32, centred_cosine=1.0, spread=1.0), "int8", ["top1_agreement"]),
        (Parity(0.5, 0.95, 0.9995, 1.0, 9, centred_cosine=0.9, spread=1.0), "int8", ["int8_centred"]),
        (Parity(0.0, 1.0, 1.0, 1.0, 9), "fp32", []),
        (Parity(0.5, 0.95, 0.985, 0.96, 9), "int4", []),
        (Parity(0.5, 0.95, 0.9995, 0.89, 1000, centred_cosine=1.0, spread=1.0), "int4", ["int4_agreement"]),
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
    parity = Parity(0.5, 0.2, 0.997, 0.96, 1000, centred_cosine=0.99, spread=1.0)
    assert len(judge(parity, "int8", Limits(), keep=0.5)) == 3
    assert judge(parity, "int8", Limits(), keep=0.25) == []
    assert "limits.low_keep_slack" in judge(parity, "int8", Limits(low_keep_slack=1.5), keep=0.25)[0]
    assert len(judge(Parity(1e-5, 0.99998, 1, 1, 9), "fp32", Limits(), keep=0.25)) == 1


def test_random_weights_are_held_to_a_cosine_alone() -> None:
    assert judge(Parity(0.5, 0.995, 0.996, 0.6, 9), "int8", Limits(), trained=False) == []
    (fault,) = judge(Parity(0.5, 0.98, 0.996, 0.6, 9), "int8", Limits(), trained=False)
    assert "limits.untrained_cosine" in fault


# ---- files with wrong features, on models with random weights ------------------------------------------------------

SIZE = 16


class Alike(nn.Module):
    """Answers to every image nearly the same, as many deep models with random weights do."""

    def __init__(self, inner: nn.Module, classes: int) -> None:
        super().__init__()
        self.inner = inner
        self.common = nn.Parameter(torch.randn(classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return 0.006 * self.inner(images) + self.common


def make_convolutional() -> nn.Sequential:
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.Hardswish(), nn.Conv2d(16, 32, 3, stride=2),
        nn.GELU(), nn.Flatten(), nn.Linear(32 * 9, 32), nn.LayerNorm(32), nn.Linear(32, 10),
    )  # fmt: skip
    nn.init.normal_(model[1].bias)
    return model


def make_model(kind: str) -> nn.Module:
    torch.manual_seed(0)
    if kind == "convolutional":
        return make_convolutional().eval()
    vit = ViT(image_size=SIZE, patch=4, dim=32, depth=2, head_dim=16, num_classes=10)
    for module in vit.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.15)
            nn.init.normal_(module.bias, std=0.3)
    return (Alike(vit, 10) if kind == "alike" else vit).eval()


def answer(model: nn.Module, images: torch.Tensor) -> Array:
    with torch.no_grad():
        return model(images).numpy()


def answer_rounded(model: nn.Module, images: torch.Tensor, precision: str) -> Array:
    """As a right file would, its Linears rounded."""
    graph = replace(capture(model, SIZE), group=16)
    rounder = Rounder(graph)

    def visit(layer: str, node: object, args: tuple[torch.Tensor, ...], value: torch.Tensor) -> torch.Tensor:
        if precision == "fp16":
            return value.half().float()
        linear = layer not in rounder.convolutions
        return rounder.round(layer, args, precision) if linear and precision != "fp32" else value

    return visit_layers(graph.exported, images.numpy(), visit)


SMALL = ("a lost bias", "red for blue")  # of the faults below


def make_wrong(model: nn.Module, images: torch.Tensor) -> dict[str, Array]:
    """Answers of files that went wrong each in its way."""
    expected, inner = answer(model, images), model.inner if isinstance(model, Alike) else model
    head = inner.head if isinstance(inner, ViT) else inner[-1]
    order = torch.randperm(head.weight.shape[1])
    with head.register_forward_pre_hook(lambda _, x: (x[0][..., order],)):
        shuffled = answer(model, images)
    middle = deepcopy(model)
    parts = middle.inner if isinstance(middle, Alike) else middle
    (parts.layers[1].mlp.fc1 if isinstance(parts, ViT) else parts[1]).bias.data.zero_()
    common = expected.mean(0)
    return {
        "channels shuffled": shuffled,
        "features of another image": np.roll(expected, 1, axis=0),
        "one answer for all": common + 1e-3 * (expected - common)[::-1],
        "a lost bias": answer(middle, images),
        "red for blue": answer(model, images.flip(1)),
        "rows for columns": answer(model, images.transpose(2, 3)),
    }


@pytest.mark.parametrize("kind", ["vit", "convolutional", "alike"])
def test_wrong_features_are_told_from_rounding_on_random_weights(kind: str) -> None:
    model, images = make_model(kind), torch.randn(32, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    expected, wrong = answer(model, images), make_wrong(model, images)
    if kind == "alike":
        assert compare(wrong["features of another image"], expected).cosine_mean > 0.99998  # whole logits see nothing
    for precision in ("fp32", "fp16", "int8", "int4"):
        right = compare(answer_rounded(model, images, precision), expected)
        assert judge(right, precision, Limits(), trained=False) == [], (precision, right)
        if kind == "alike" and precision == "int4":
            assert "int4 hides" in (explain_reference(right, precision, Limits()) or "")
            continue
        rough = precision == "int4" or (kind, precision) == (
            "alike",
            "int8",
        )  # its rounding is as large as the small ones
        for name, logits in wrong.items():
            faults = judge(compare(logits, expected), precision, Limits(), trained=False)
            if not (rough and name in SMALL):
                assert any("centred cosine" in fault for fault in faults), (precision, name)


def test_what_a_reference_cannot_show_is_said() -> None:
    rows = np.random.default_rng(0).standard_normal((8, 10)).astype(np.float32)
    same = np.repeat(rows[:1], 8, axis=0)
    zero = np.zeros_like(rows)
    almost = same + 1e-3 * rows
    said = {
        name: explain_reference(compare(logits, logits), "int8", Limits())
        for name, logits in {"rows": rows, "same": same, "zero": zero, "almost": almost, "one": rows[:1]}.items()
    }
    assert said.pop("rows") is None
    for name, words in {
        "same": "the same for all 8",
        "zero": "all zero",
        "almost": "int8 hides",
        "one": "one image",
    }.items():
        assert words in (said[name] or ""), name
    assert explain_reference(compare(almost, almost), "fp32", Limits()) is None
    # and what can still be judged is
    assert judge(compare(same, same), "int8", Limits()) == []
    assert judge(compare(zero, zero), "int8", Limits()) == []
    assert "largest difference" in judge(compare(zero + 0.1, zero), "int8", Limits())[0]
    assert "mean cosine" in judge(compare(-same, same), "int8", Limits())[0]


def test_the_centred_limit_falls_as_rounding_hides_what_varies() -> None:
    clear, dim, dark = (Parity(0, 1, 1, 1, 9, centred_cosine=1.0, spread=s) for s in (0.7, 0.014, 0.001))
    assert bound_centred(clear, "int8", Limits())[0] == pytest.approx(0.98, abs=2e-4)
    assert bound_centred(dim, "int8", Limits())[0] == pytest.approx(0.98 / np.sqrt(2))
    assert bound_centred(dark, "int8", Limits())[0] is None
    assert bound_centred(dark, "fp32", Limits())[0] == pytest.approx(0.9999, abs=1e-5)
    low = Limits(int4_centred=0.1)
    assert bound_centred(clear, "int4", low) == (pytest.approx(0.1, abs=2e-3), None)  # as low as the user sets it


@pytest.mark.parametrize("spread", [1.0, 0.04, 0.0275, 0.02])  # in int4, limits of 0.746, 0.28, 0.1989, 0.147
def test_a_file_with_features_of_other_images_is_refused_or_said_to_be_unseen(spread: float) -> None:
    parity = Parity(0.5, 0.99, 0.99, 1.0, 9, centred_cosine=0.0, spread=spread, span=1.0)
    for keep in (None, 0.25):
        refused = any("centred" in fault for fault in judge(parity, "int4", Limits(), keep=keep))
        assert refused == (explain_reference(parity, "int4", Limits(), keep) is None)
        assert refused == (spread > 0.03)
    (fault,) = judge(replace(parity, spread=1.0), "int4", Limits(), keep=0.25)
    assert "limit 0.2 (limits.int4_centred, limits.low_keep_slack)" in fault


@pytest.mark.parametrize(
    ("precision", "conversions", "standard"),
    [
        ("int8", 0, "int8"),
        ("int8", None, "int8"),  # of a manifest that did not count them
        ("int8", 2, CONVOLVED),
        ("mixed", 4, CONVOLVED),
        ("int8-static", 2, CONVOLVED),
        ("int4", 2, "int4"),
        ("fp32", 0, "fp32"),
        (FULL, 0, CONVOLVED),
    ],
)
def test_convolutions_in_int8_have_limits_of_their_own(precision: str, conversions: int | None, standard: str) -> None:
    assert name_standard(precision, Method("m", None, 1, (), {}, conversions=conversions)) == standard
