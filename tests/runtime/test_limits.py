"""What the machine can do, and what its kernel counts."""

import mmap
import resource
from pathlib import Path

import pytest

from bigvit_edge.errors import UserError
from bigvit_edge.runtime.limits import Counters, count_between, measure_roof
from tests.native import skip


def work() -> int:
    return sum(i * i for i in range(300_000))


def test_the_kernels_clock_of_this_thread_agrees_with_getrusage() -> None:
    counters = Counters()
    before, used = counters.read(), resource.getrusage(resource.RUSAGE_THREAD)
    work()
    after, then = counters.read(), resource.getrusage(resource.RUSAGE_THREAD)
    clock, faults = count_between(before, after)[:2]
    assert (clock.event, faults.event) == ("task clock (ns)", "page faults")
    if clock.count is None:
        skip(clock.missing, "run it where the kernel counts for this user (perf_event_paranoid)")
    assert clock.count == pytest.approx((then.ru_utime + then.ru_stime - used.ru_utime - used.ru_stime) * 1e9, rel=0.5)
    assert clock.running == 1


def test_touched_pages_are_counted() -> None:
    counters, count = Counters(), 64
    with mmap.mmap(-1, count * mmap.PAGESIZE) as pages:
        before = counters.read()
        for page in range(count):
            pages[page * mmap.PAGESIZE] = 1
        faults = count_between(before, counters.read())[1]
    if faults.count is None:
        skip(faults.missing, "run it where the kernel counts for this user (perf_event_paranoid)")
    assert 1 <= faults.count < 4 * count  # one, where the kernel gives them all at once


def test_each_hardware_event_is_counted_or_says_why_not() -> None:
    counters = Counters()
    before = counters.read()
    work()
    counts = count_between(before, counters.read())
    assert {"cycles", "instructions", "cache misses", "branch misses"} <= {count.event for count in counts}
    for count in counts:
        assert (count.count is None) == bool(count.missing)
        if count.event == "instructions" and count.count is not None:
            assert count.count > 300_000


def test_an_event_is_opened_for_each_kind_of_cores(tmp_path: Path) -> None:
    for name, number in (("armv8_cortex_a55", 9), ("armv8_cortex_a76", 10), ("arm_dsu_0", 11), ("software", 1)):
        folder = tmp_path / "sys/bus/event_source/devices" / name
        folder.mkdir(parents=True)
        (folder / "type").write_text(f"{number}\n")
        if name.startswith("armv8"):
            (folder / "cpus").write_text("0-3\n")
    told = Counters(str(tmp_path)).read()
    assert [each["pmu"] for each in told if each["event"] == "cycles"] == ["armv8_cortex_a55", "armv8_cortex_a76"]


def test_a_count_is_scaled_to_the_time_that_the_event_shared() -> None:
    old = {"event": "cycles", "pmu": "", "count": 0, "enabled_ns": 0, "running_ns": 0}
    new = {"event": "cycles", "pmu": "", "count": 1000, "enabled_ns": 400, "running_ns": 100}
    (half,) = count_between([old], [new])
    assert (half.count, half.running) == (4000, 0.25)
    (never,) = count_between([old], [{**new, "running_ns": 0}])
    assert never.count is None
    assert "never on" in never.missing


def test_the_roof_is_measured_on_the_cores_there_are() -> None:
    roof = measure_roof(1)
    assert roof.threads == 1
    assert roof.gmac_per_s["f32"] > 0
    assert roof.cache_gb_per_s > 0
    assert roof.memory_gb_per_s > 0
    assert roof.memory_bytes > roof.cache_bytes
    with pytest.raises(UserError, match=r"1000 threads; expected 1 to \d+, the cores"):
        measure_roof(1000)
