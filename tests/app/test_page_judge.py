"""The page's numbers and verdicts: those of bigvit_edge.bench.verdicts, word for word."""

import json
import math
import random
import re
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from bigvit_edge.bench.verdicts import judge
from bigvit_edge.machine import Machine
from bigvit_edge.results import FAILED, VERDICTS, Frames, Row, describe_times
from tests.app.page import run_module
from tests.bench.made import make_frames, make_machine, make_row, make_turn

ROWS = 600
FIGURES = ("latency_ms", "cpu_ms", "first_minute_ms", "last_minute_ms", "throttled_share")
TIES = (0.125, 0.375, 2.5, 3.5, 0.5, 1.5, 1.005, 2.675, 1234.5, 1e-5, 1.5e-7, 1e22, 0.00012345, 99.95, 999.5, 1e3, 0.1)


def draw_row(rng: random.Random) -> tuple[Row, Machine, tuple[int | None, ...], float]:
    """A row of any kind: quiet or noisy, drifting, slowed, strayed, cut by a quota, cold, failed, paced."""
    count = rng.choice((0, 1, 5, 7, 8, 9, 12, 30))
    drift, fall = rng.choice((1, 1, 1, 1.08, 1.2, 0.85)), rng.choice((1, 1, 1, 0.9, 0.5))
    spread, told = rng.choice((0.01, 0.02, 0.1, 0.4)), rng.random() < 0.8
    fps = rng.choice((0, 0, 0, 0, 30, 12.5))
    away, cut = rng.random() < 0.15, rng.random() < 0.15
    minutes = rng.random() < 0.5
    turns = []
    for n in range(count):
        share = n / max(1, count - 1)
        images = rng.randint(1, 9)
        times = [max(1e-3, rng.gauss(3, spread) * drift**share) for _ in range(images)]
        mhz = rng.choice((1000.0, 2000.0)) if rng.random() < 0.02 else 2000.0 * fall**share
        turn = make_turn(
            times, n, clock_mhz=(mhz, mhz * 1.001) if told else (None, None),
            cpu_ms=None if rng.random() < 0.002 else rng.random() * 3,
            cores={"7" if away and rng.random() < 0.5 else "0": images},
            thread_ms={"0": 3.0, "1": rng.random() * 2, **({"6": rng.random() * 0.2} if rng.random() < 0.2 else {})},
            throttled_periods=rng.choice((None, 0, 2)) if cut else 0, part=int(rng.random() < 0.01),
        )  # fmt: skip
        if minutes:
            turn = replace(turn, start_ns=n * 9_000_000_000, end_ns=n * 9_000_000_000 + 1_000_000_000)
        turns.append(turn)
    asked = rng.choice((None, (0, 1), (0, 1, 2, 3)))
    row = make_row(
        turns, warm=rng.random() < 0.9, cores_asked=asked, launch="app",
        cores_allowed=rng.choice((asked or (0, 1), asked or (0, 1), (0, 5), ())),
        error="it would not start" if rng.random() < 0.03 else "", frame=draw_frames(rng, count),
    )  # fmt: skip
    machine = make_machine(quota_cores=rng.choice((None, 0.5, 2.0)))
    if rng.random() < 0.5:
        most = rng.choice((2_000_000, 2_900_000))
        machine = replace(machine, cores=tuple(replace(core, max_khz=most) for core in machine.cores))
    bits = rng.choice(((), (), (None, None), (0, 0), (0, 0x50005), (0x50000, 0x50000), (0x50000, 0xD0008)))
    return row, machine, bits, fps


def draw_frames(rng: random.Random, turns: int) -> Frames | str | None:
    """Frames after some of the turns, or what stands there without them."""
    if rng.random() < 0.5 or not turns:
        return rng.choice((None, "not available: it is foreign", make_frames((), (), ())))
    label_ms = [rng.uniform(1, 9) for _ in range(rng.randint(1, 40))]
    return make_frames(label_ms, [ms / 3 for ms in label_ms], sorted(rng.sample(range(turns), rng.randint(1, turns))))


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Row, dict[str, Any]]]:
    """Rows judged here, and the same by the page."""
    rng = random.Random(0)
    drawn = [draw_row(rng) for _ in range(ROWS)]
    cases = [{"row": asdict(row), "machine": asdict(m), "bits": bits, "fps": fps} for row, m, bits, fps in drawn]
    ask = "(m, {row, machine, bits, fps}) => m.judge(row, machine, bits, fps)"
    answers = run_module(tmp_path_factory.mktemp("judge"), "judge.js", ask, cases)
    return [(judge(*case), answer["value"]) for case, answer in zip(drawn, answers, strict=True)]


def test_every_row_is_judged_alike(judged: list[tuple[Row, dict[str, Any]]]) -> None:
    for row, page in judged:
        told = asdict(row)
        assert tuple(page["verdicts"]) == row.verdicts
        assert tuple(page["reasons"]) == row.reasons
        for name in FIGURES:
            assert page[name] == (pytest.approx(here, rel=1e-12) if (here := told[name]) is not None else None), name
        assert page["frame"] == json.loads(json.dumps(told["frame"]))


def test_the_rows_try_every_verdict_and_many_reasons(judged: list[tuple[Row, dict[str, Any]]]) -> None:
    verdicts = Counter(verdict for row, _ in judged for verdict in row.verdicts)
    assert all(verdicts[verdict] >= 5 for verdict in VERDICTS)
    kinds = {re.sub(r"\d", "", reason) for row, _ in judged for reason in row.reasons}
    assert len(kinds) >= 20
    assert sum(row.first_minute_ms is not None for row, _ in judged) > 20
    assert any(row.verdicts == (FAILED,) and not row.error for row, _ in judged)


def test_times_are_described_alike(tmp_path: Path) -> None:
    rng = random.Random(1)
    counts = (1, 2, 3, 4, 9, 10, 11, 99, 100, 101, 5000)
    cases = [[rng.lognormvariate(0, 3) for _ in range(count)] for count in counts]
    answers = run_module(tmp_path, "judge.js", "(m, times) => m.describeTimes(times)", cases)
    assert [answer["value"] for answer in answers] == [asdict(describe_times(times)) for times in cases]


def test_as_many_turns_as_a_bench_has_at_most_are_judged(tmp_path: Path) -> None:
    """Of more than a call of JavaScript takes arguments."""
    ask = """(m, [row, machine]) => {
      const turns = Array.from({length: 100000}, () => row.turns[0]);
      return m.judge({...row, turns}, machine).latency_ms.images;
    }"""
    (answer,) = run_module(tmp_path, "judge.js", ask, [[asdict(make_row()), asdict(make_machine())]])
    assert answer == {"value": 300_000}


def test_numbers_are_spelled_alike(tmp_path: Path) -> None:
    """Halves to even, exponents of two digits; sums to the last bit."""
    rng = random.Random(2)
    numbers = [*TIES, *(-n for n in TIES), 0.0, *(rng.uniform(0, 10) for _ in range(500))]
    numbers += [rng.randint(0, 2000) / 2 ** rng.randint(0, 9) for _ in range(1000)]
    numbers += [rng.uniform(-1, 1) * 10 ** rng.randint(-12, 25) for _ in range(1000)]
    spell = "(m, x) => [m.fix(x, 0), m.fix(x, 2), m.general(x, 3), m.general(x), m.percent(x), m.thousands(x)]"
    answers = run_module(tmp_path, "numbers.js", spell, numbers)
    for x, answer in zip(numbers, answers, strict=True):
        spelled = [f"{x:.0f}", f"{x:.2f}", f"{x:.3g}", f"{x:g}", f"{x:.0%}", f"{x:,.0f}"]
        if abs(x) < 1e18:  # toFixed itself goes little further, nor does any figure of a bench
            assert answer["value"] == spelled, x
        else:
            assert answer["value"][2:4] == spelled[2:4], x
    sums = [[rng.uniform(-1, 1) * 10 ** rng.randint(-20, 20) for _ in range(50)] for _ in range(200)]
    totals = run_module(tmp_path, "numbers.js", "(m, values) => m.sumExactly(values)", sums)
    assert [float(answer["value"]) for answer in totals] == [math.fsum(values) for values in sums]
