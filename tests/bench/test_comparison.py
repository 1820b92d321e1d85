from dataclasses import replace

import numpy as np
import pytest

from bigvit_edge.bench.comparison import bound_ratio, compare
from bigvit_edge.bench.verdicts import judge
from bigvit_edge.results import Result, Row, Turn
from tests.bench.made import make_machine, make_result, make_row, make_turn


def draw(seed: int, scale: float = 1, turns: int = 30, images: int = 20) -> list[Turn]:
    """Turns that differ among themselves by 1 %, and their images by 1 % more."""
    random = np.random.default_rng(seed)
    means = scale * (1 + 0.01 * random.standard_normal(turns))
    return [make_turn(mean * (1 + 0.01 * random.standard_normal(images)), n) for n, mean in enumerate(means)]


def result(turns: list[Turn], **fields: object) -> Result:
    return make_result(judge(make_row(turns, **fields), make_machine()))


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    hits = 0
    for seed in range(100):
        low, high = bound_ratio(draw(seed), draw(1000 + seed, 1.03)).interval
        hits += low <= 1.03 <= high
    assert hits >= 88  # of 95 expected; images drawn one by one would hold it half as often


def test_the_ratio_is_that_of_the_medians() -> None:
    before, after = draw(1), draw(2, 1.5)
    medians = [np.median([ms for turn in side for ms in turn.times_ms]) for side in (before, after)]
    assert bound_ratio(before, after).value == pytest.approx(medians[1] / medians[0])


def test_a_difference_is_found_and_none_is_not() -> None:
    (same,), _ = compare(result(draw(1)), result(draw(2)))
    (near,), _ = compare(result(draw(1)), result(draw(2, 1.02)))
    (slower,), _ = compare(result(draw(1)), result(draw(2, 1.05)))
    assert [pair.ratio.differs for pair in (same, near, slower)] == [False, True, True]
    assert [pair.differs for pair in (same, near, slower)] == [False, False, True]  # benches move by so much alone
    assert slower.obstacles == near.obstacles == same.obstacles == ()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"device": "ssh:other"}, "other devices: local and ssh:other"),
        ({"complete": False}, "after is a part of a bench"),
        ({"machine": replace(make_machine(), cpu="another")}, "other machines: a CPU and another"),
    ],
)
def test_other_conditions_are_not_comparable(change: dict[str, object], says: str) -> None:
    (pair,), _ = compare(result(draw(1)), replace(result(draw(2)), **change))
    assert says in pair.obstacles


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"precision": "fp32"}, "other precisions: int8 and fp32"),
        ({"launch": "adb shell"}, "other ways to start: local and adb shell"),
        ({"cores_allowed": (0,)}, "other cores: (0, 1, 2, 3) and (0,)"),
        ({"warm": False}, "after is noisy: its times had not settled when warming up ended"),
    ],
)
def test_other_rows_are_not_comparable(row: dict[str, object], says: str) -> None:
    (pair,), _ = compare(result(draw(1)), result(draw(2), **row))
    assert says in pair.obstacles


def test_another_clock_is_not_comparable() -> None:
    slow = [replace(turn, clock_mhz=(1500.0, 1500.0)) for turn in draw(2)]
    (pair,), _ = compare(result(draw(1)), result(slow))
    assert pair.obstacles == ("other clocks: 2000 and 1500 MHz",)


def test_rows_without_a_partner_are_told() -> None:
    def row(name: str) -> Row:
        return make_row(file=name)

    one, two, three = row("one.bve"), row("two.bve"), replace(row("three.bve"), turns=(), error="no runtime")
    pairs, alone = compare(make_result(one, two), make_result(two, three))
    assert [pair.after.file for pair in pairs] == ["two.bve"]
    assert [line.split(" keep")[0] for line in alone] == ["before: one.bve", "after: three.bve"]
    assert alone[1].endswith("(no runtime)")
    (renamed,), _ = compare(make_result(one), make_result(two))
    assert renamed.after.file == "two.bve"


def test_few_turns_bound_no_median() -> None:
    (pair,), _ = compare(result(draw(1, turns=8)), result(draw(2, turns=8)))
    assert "before has 8 turns: fewer than 20 bound no median" in pair.obstacles
