from dataclasses import replace

import pytest

from bigvit_edge.bench.verdicts import judge
from bigvit_edge.results import Frames, Turn, describe_times
from tests.bench.made import make_frames, make_machine, make_row, make_turn

MACHINE = make_machine()


def steady(count: int = 20) -> list[Turn]:
    return [make_turn((1.0, 1.02, 0.98), n) for n in range(count)]


def test_a_steady_row_is_valid() -> None:
    row = judge(make_row(steady()), MACHINE, (0, 0))
    assert (row.verdicts, row.reasons) == (("valid",), ())
    assert row.latency_ms
    assert (row.latency_ms.p50, row.latency_ms.images) == (1.0, 60)
    assert row.cpu_ms == pytest.approx(1.0)


def test_a_turn_whose_cpu_time_is_not_told_leaves_the_row_without() -> None:
    turns = [*steady(), replace(make_turn(number=20), cpu_ms=None)]
    assert judge(make_row(turns), MACHINE).cpu_ms is None


def test_a_row_that_did_not_run_has_failed() -> None:
    assert judge(make_row([], error="no runtime"), MACHINE).reasons == ("no runtime",)
    assert judge(make_row([]), MACHINE).verdicts == ("failed",)


def test_slower_and_slower_at_a_falling_clock_is_throttled() -> None:
    turns = [make_turn((1 + n / 40,) * 3, n, clock_mhz=(2000 - 20 * n, 2000 - 20 * n)) for n in range(20)]
    (reason,) = judge(make_row(turns), MACHINE).reasons
    assert reason == "1.36 times the time at the end, at 0.85 of the clock"  # medians of the first and last five


def test_slower_at_the_same_clock_is_not_throttled() -> None:
    turns = [make_turn((1 + n / 80,) * 3, n) for n in range(20)]
    assert judge(make_row(turns), MACHINE).verdicts == ("noisy",)


def test_drift_counts_alone_where_no_clock_is_known() -> None:
    turns = [make_turn((1 + n / 40,) * 3, n, clock_mhz=(None, None)) for n in range(20)]
    assert judge(make_row(turns), MACHINE).verdicts == ("throttled",)


@pytest.mark.parametrize(
    ("bits", "says"),
    [(0b1, "under-voltage"), (0b110, "the clock capped, throttled"), (0b1000, "the soft temperature limit")],
)
def test_a_pi_says_that_it_is_throttled(bits: int, says: str) -> None:
    row = judge(make_row(steady()), MACHINE, (0, bits))
    assert (row.verdicts, row.reasons) == (("throttled",), (f"the firmware says: {says}",))


def test_what_a_pi_did_since_it_was_started_is_not_now() -> None:
    assert judge(make_row(steady()), MACHINE, (0x50000, 0x50000)).verdicts == ("valid",)


def test_a_quota_that_stopped_it_shows() -> None:
    turns = [*steady(19), make_turn(number=19, throttled_periods=3)]
    row = judge(make_row(turns), make_machine(quota_cores=0.5), ())
    assert row.reasons == ("the cgroup's quota of 0.5 cores stopped it in 3 periods",)
    assert row.verdicts == ("quota",)


def test_other_cores_than_asked_for_show() -> None:
    cut = judge(make_row(steady(), cores_allowed=(0, 1)), MACHINE)
    assert cut.reasons == ("cores 0, 1, 2, 3 were asked for, the system left 0, 1",)
    away = judge(make_row([replace(turn, cores={"5": 3}) for turn in steady()]), MACHINE)
    assert away.verdicts == ("not pinned",)
    assert judge(make_row(steady(), cores_asked=None, cores_allowed=(7,)), MACHINE).verdicts == ("valid",)


@pytest.mark.parametrize(
    ("turns", "says"),
    [
        ([make_turn((1.0, 1.0, 1.5), n) for n in range(20)], "p90 is 1.50 times p50"),
        ([make_turn((1 + 0.2 * (n % 2),) * 3, n) for n in range(20)], "the middle half of its turns differs by"),
    ],
)
def test_a_wide_row_is_noisy(turns: list[Turn], says: str) -> None:
    row = judge(make_row(turns), MACHINE)
    assert row.verdicts == ("noisy",)
    assert says in row.reasons[0]


@pytest.mark.parametrize(
    ("turns", "says"),
    [
        ([make_turn((1 + n / 110,) * 3, n) for n in range(20)], "1.13 times the time at the end, at the same clock"),
        ([make_turn((1.0 if n < 16 else 1.24,) * 3, n) for n in range(20)], "1.24 times the time at the end"),
        (steady(7), "7 turns are too few to tell"),
    ],
)
def test_a_row_that_drifts_or_is_short_is_noisy(turns: list[Turn], says: str) -> None:
    row = judge(make_row(turns), MACHINE)
    assert row.verdicts == ("noisy",)
    assert says in row.reasons[0]


def test_a_device_that_is_held_back_all_along_is_throttled() -> None:
    core = replace(MACHINE.cores[0], max_khz=3_000_000)
    machine = replace(MACHINE, cores=(core, *MACHINE.cores[1:]))
    row = judge(make_row(steady()), machine)
    assert row.reasons == (
        "it ran at 2000 of the 3000 MHz that its cores can: a governor, heat or a power limit holds them",
    )
    assert judge(make_row(steady()), machine, fps=30).verdicts != ("throttled",)  # gaps let clocks fall


def test_a_pi_that_was_throttled_meanwhile_says_so() -> None:
    row = judge(make_row(steady()), MACHINE, (0x10000, 0x50000))
    assert row.reasons == ("the firmware says: throttled",)


def test_a_missed_pace_shows() -> None:
    turns = [replace(turn, end_ns=turn.start_ns + 150_000_000) for turn in steady()]
    row = judge(make_row(turns), MACHINE, fps=30)
    assert row.reasons == ("20 images a second, of 30 asked for",)
    assert judge(make_row(turns), MACHINE, fps=20).verdicts == ("valid",)


def test_threads_on_other_cores_show() -> None:
    turns = [replace(turn, thread_ms={"0": 9.0, "6": 1.0}) for turn in steady()]
    assert judge(make_row(turns), MACHINE).reasons == ("it ran on cores 6, asked were 0, 1, 2, 3",)


def test_a_row_that_never_settled_is_noisy() -> None:
    assert judge(make_row(steady(), warm=False), MACHINE).verdicts == ("noisy",)


def test_the_first_minute_is_told_from_the_last() -> None:
    def at(second: int, ms: float) -> Turn:
        return Turn(second * 10**9, second * 10**9 + 10**8, (ms,) * 3, 1, (2000, 2000), {"0": 3}, {})

    turns = [at(second, 1.0 if second < 60 else 1.04) for second in range(0, 180, 2)]
    row = judge(make_row(turns), MACHINE)
    assert (row.first_minute_ms, row.last_minute_ms) == (1.0, 1.04)
    assert judge(make_row(turns[:30]), MACHINE).first_minute_ms is None


def test_frames_are_compared_with_the_turns_that_they_followed() -> None:
    turns = [make_turn([1.0 + n] * 3, number=n) for n in range(10)]
    frames = make_frames([9.0, 6.0, 7.0, 8.0], [4.0, 1.0, 2.0, 3.0], (2, 4))  # where the model took 3 and 5 ms
    told = judge(make_row(turns, frame=frames), MACHINE).frame
    assert isinstance(told, Frames)
    assert told.label_ms == describe_times([6.0, 7.0, 8.0, 9.0])
    assert told.prepare_ms
    assert (told.prepare_ms.p50, told.model_ms, told.ratio) == (2.5, 4.0, 7.5 / 4)
    for without in (None, "not available: it is foreign", make_frames((), (), ())):
        assert judge(make_row(turns, frame=without), MACHINE).frame == without


def test_the_share_of_the_time_at_a_fallen_clock_is_told() -> None:
    turns = [make_turn(number=n, clock_mhz=(2000, 2000 if n < 15 else 1800)) for n in range(20)]
    assert judge(make_row(turns), MACHINE).throttled_share == pytest.approx(0.25)
    assert judge(make_row(steady()), MACHINE).throttled_share == 0
    unknown = [make_turn(number=n, clock_mhz=(None, None)) for n in range(20)]
    assert judge(make_row(unknown), MACHINE).throttled_share is None
