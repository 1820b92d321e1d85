"""What is written on the command line is read as meant, or refused."""

import pytest

from bigvit_edge.errors import UserError
from bigvit_edge.words import parse_keeps, parse_share


def test_keeps_stay_in_the_order_given() -> None:
    assert parse_keeps("0.25,1.0,.5") == (0.25, 1.0, 0.5)
    assert parse_keeps(None) == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("half", "'half' in --keep half; expected a number"),
        ("0.5,", "'' in --keep 0.5,; expected a number"),
        ("nan", "'nan'"),
        ("0", "keep 0; expected a share of the tokens, above 0 and at most 1"),
        ("0.5,1.2", "keep 1.2"),
        ("0.5,0.50", "each ratio once"),
    ],
)
def test_keeps_that_cannot_be(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_keeps(text)


@pytest.mark.parametrize(("text", "share"), [("5%", 0.05), ("0.05", 0.05), ("0", 0.0), ("100%", 1.0)])
def test_shares(text: str, share: float) -> None:
    assert parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["5", "-1%", "101%", "few", "%"])
def test_shares_that_cannot_be(text: str) -> None:
    with pytest.raises(UserError):
        parse_share(text)
