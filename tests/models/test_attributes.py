"""What a user's module says of itself."""

from enum import Enum
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bigvit_edge.errors import UserError
from bigvit_edge.models.attributes import check_keep, read_about, read_labels, read_preprocessing, read_size

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def make(**attributes: Any) -> nn.Module:
    model = nn.Identity()
    for name, value in attributes.items():
        setattr(model, name, value)
    return model


@pytest.mark.parametrize(
    "size", [32, np.int64(32), (32, 32), [32, 32], torch.tensor(32), np.array([32, 32]), torch.Size([32, 32]), 32.0]
)
def test_a_size_however_it_is_said(size: Any) -> None:
    assert read_size(make(image_size=size), "mine", None) == (32, ())
    assert read_size(make(image_size=size), "mine", 64) == (64, ())


@pytest.mark.parametrize("size", [(32, 64), 0, -1, "32", True, 32.5, (3, 32, 32)])
def test_what_is_no_size(size: Any) -> None:
    with pytest.raises(UserError, match=r"`image_size` of mine is .*or two equal ones: images are square"):
        read_size(make(image_size=size), "mine", None)


@pytest.mark.parametrize(
    "cast",
    [list, np.array, torch.tensor, lambda v: torch.tensor(v).view(1, 3, 1, 1), lambda v: [np.float64(x) for x in v]],
)
def test_a_mean_however_it_is_said(cast: Any) -> None:
    how, notes = read_preprocessing(make(mean=cast(MEAN), std=cast(STD)), "mine", 32)
    assert (how.mean, how.std, notes) == (MEAN, STD, ())
    assert {type(v) for v in (*how.mean, *how.std)} == {float}


@pytest.mark.parametrize(
    "mean", [0.5, [0.5, 0.5], [0.5, 0.5, float("nan")], "abc", [True, True, True], torch.zeros(3, 3)]
)
def test_what_is_no_mean(mean: Any) -> None:
    with pytest.raises(UserError, match=r"`mean` of mine is .*; expected three numbers"):
        read_preprocessing(make(mean=mean, std=STD), "mine", 32)


def test_a_buffer_called_mean_may_be_the_modules_own_business() -> None:
    model = make(std=STD)
    model.register_buffer("mean", torch.zeros(3))
    with pytest.raises(UserError, match=r"`mean` of mine is a tensor of the module's own.*mean = \(0, 0, 0\)"):
        read_preprocessing(model, "mine", 32)


def test_timms_own_transform_where_the_module_says_nothing() -> None:
    config = {"input_size": (3, 96, 96), "mean": MEAN, "std": STD, "crop_pct": 1.0, "interpolation": "bicubic"}
    model = make(pretrained_cfg=config)
    assert read_size(model, "mine", None) == (96, ())
    how, (note,) = read_preprocessing(model, "mine", 96)
    assert (how.mean, how.std, how.resize) == (MEAN, STD, "bicubic, antialiased")
    assert "pretrained_cfg" in note


@pytest.mark.parametrize(
    "labels", [["a", "b"], ("a", "b"), np.array(["a", "b"]), {1: "b", 0: "a"}, {"0": "a", "1": "b"}]
)
def test_labels_however_they_are_said(labels: Any) -> None:
    assert read_labels(make(labels=labels), "mine", 2) == ("a", "b")
    assert read_labels(make(), "mine", 2) is None


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a", "b", "c"], r"has 3 \(a, b, c, …\); expected 2 strings"),
        ([1, 2], r"is \[1, 2\]; expected a list of strings"),
        ({0: "a", 2: "b"}, r"expected a list of strings"),
        ("ab", r"expected a list of strings"),
    ],
)
def test_what_are_no_labels(labels: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_labels(make(labels=labels), "mine", 2)


class Raising(nn.Identity):
    @property
    def mean(self) -> float:
        raise ValueError("not yet")

    @property
    def keep(self) -> float:
        return self.nothing  # type: ignore[no-any-return]


def test_a_property_that_raises_is_named() -> None:
    with pytest.raises(UserError, match=r"`mean` of mine raised ValueError: not yet at .*test_attributes.py:\d+"):
        read_preprocessing(Raising(), "mine", 32)
    with pytest.raises(UserError, match="`keep` of mine raised AttributeError"):
        check_keep(Raising(), "mine")


class Interpolation(Enum):
    """As torchvision's InterpolationMode."""

    BICUBIC = "bicubic"


def test_an_interpolation_may_be_torchvisions() -> None:
    how, _ = read_preprocessing(make(interpolation=Interpolation.BICUBIC), "mine", 32)
    assert how.resize == "bicubic, antialiased"


@pytest.mark.parametrize(
    ("share", "message"), [(87.5, "crop_pct 87.5.*such as 0.875"), (1e-6, "resize_to .*correct it")]
)
def test_a_crop_that_cannot_be_is_not_blamed_on_the_mean(share: float, message: str) -> None:
    with pytest.raises(UserError, match=message) as met:
        read_preprocessing(make(crop_pct=share), "mine", 32)
    assert "0.485" not in str(met.value)


def test_a_keep_that_is_no_share_is_told() -> None:
    assert "is 2.5, no share" in check_keep(make(keep=2.5), "mine")[0]
    assert not check_keep(make(keep=0.25), "mine")


def test_what_is_known_of_a_model() -> None:
    model = make(author="Ada", license="MIT", version=2, description="")
    texts, notes = read_about(model, "mine")
    assert texts == {"author": "Ada", "license": "MIT"}
    assert [note.split(" of mine")[0] for note in notes] == ["the attribute `description`", "the attribute `version`"]
    assert read_about(make(), "mine") == ({}, ())
