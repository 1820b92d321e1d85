"""What a Preprocessing may say, and on which scale a mean was taken."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from bigvit_edge.preprocessing import Preprocessing, infer_scale

RIGHT: dict[str, Any] = dict(size=8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    "wrong",
    [
        dict(size=0),
        dict(size=10**9),
        dict(mean=(0.5, float("nan"), 0.5)),
        dict(mean=(123.0, 117.0, 104.0)),  # of 0..255, and the scale is 1 / 255
        dict(mean=(-0.5, 0.5, 0.5)),
        dict(std=(0.5, 0.0, 0.5)),
        dict(std=(0.5, float("inf"), 0.5)),
        dict(scale=0.0),
        dict(scale=float("nan")),
        dict(color="YCbCr"),
        dict(crop="five crops"),
        dict(resize="bilinear"),  # not antialiased
        dict(layout="NHWC"),
        dict(resize_to=9),  # the largest centre square has nothing to cut
        dict(crop="center", resize_to=0),
        dict(gamma=2.2),
    ],
)
def test_what_cannot_be_obeyed_is_refused(wrong: dict[str, Any]) -> None:
    TypeAdapter(Preprocessing).validate_python(RIGHT)
    with pytest.raises(ValidationError):
        TypeAdapter(Preprocessing).validate_python({**RIGHT, **wrong})


def test_what_shipped_manifests_say_is_still_read() -> None:
    said = dict(color="RGB", crop="largest centre square", resize="bilinear, antialiased", layout="NCHW", scale=1 / 255)
    assert TypeAdapter(Preprocessing).validate_python({**RIGHT, **said}) == Preprocessing(**RIGHT)


@pytest.mark.parametrize(
    ("mean", "std", "scale"),
    [
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 1 / 255),
        ((0, 0, 0), (1, 1, 1), 1 / 255),
        ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), 1),
        ((103.939, 116.779, 123.68), (1, 1, 1), 1),  # Caffe's
        ((0, 0, 0), (255, 255, 255), 1),
        ((123.675, 116.28, 103.53), (0.229, 0.224, 0.225), None),
        ((0.5, 0.5, 0.5), (2, 2, 2), None),
        ((1.5, 1.5, 1.5), (1.5, 1.5, 1.5), None),
        ((30000, 30000, 30000), (9000, 9000, 9000), None),
        ((-1, -1, -1), (1, 1, 1), None),
        ((0.485, 0.456, 0.406), (58.395, 57.12, 57.375), None),  # a mean of 0..1, a std of 0..255
    ],
)
def test_the_scale_of_a_mean(mean: Any, std: Any, scale: float | None) -> None:
    if scale is None:
        with pytest.raises(ValueError, match=r"neither of pictures in 0\.\.1 nor of pictures in 0\.\.255"):
            infer_scale(mean, std)
    else:
        assert infer_scale(mean, std) == scale
        Preprocessing(8, mean, std, scale=scale)
