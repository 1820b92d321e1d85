"""The interval of a share, against values from the literature."""

import pytest

from bigvit_edge.measures import bound_share


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    [  # Newcombe, Statistics in Medicine 17 (1998), table I, method 3; and its limits n / (n + z^2) at 0 and n
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (32, 32, 0.8928, 1.0),
    ],
)
def test_wilsons_interval(right: int, count: int, low: float, high: float) -> None:
    assert bound_share(right / count, count) == pytest.approx((low, high), abs=6e-5)


def test_no_trial_says_nothing() -> None:
    assert bound_share(0.0, 0) == (0.0, 1.0)
