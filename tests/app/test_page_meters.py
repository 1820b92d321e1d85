"""Power from a phone's meters, by hand."""

from pathlib import Path
from typing import Any

from tests.app.page import run_module

SPAN_MS = 10_000


def read(*monitors: tuple[str, bool, int, int]) -> dict[str, Any]:
    return {"monitors": [dict(zip(("name", "rail", "uj", "ms"), each, strict=True)) for each in monitors]}


def test_each_rail_is_divided_by_its_own_clock(tmp_path: Path) -> None:
    first = read(("CPU", False, 0, 0), ("S4M", True, 1_000_000, 500), ("S2M", True, 0, 0))
    cases = [
        (first, read(("CPU", False, 9**9, 10**4), ("S4M", True, 9_000_000, 8_500), ("S2M", True, 20_000_000, 10_000))),
        (first, read(("S4M", True, 2_000_000, 5_000), ("S2M", True, 9, 10_000))),  # one stood still for too long
        (first, read(("S4M", True, 999_999, 10_500), ("S2M", True, 9, 10_000))),  # went back
        (first, read(("S1M", True, 9, 10_000))),  # was not told before
        (first, read(("CPU", False, 9, 10_000))),
    ]
    told = run_module(tmp_path, "meters.js", f"(m, [a, b]) => m.subtract(a, b, {SPAN_MS})", cases)
    # 8 J in 8 s and 20 J in 10 s
    assert told[0]["value"] == {"power_w": 3, "seconds": 8, "names": ["S4M", "S2M"]}
    assert [each["error"].split(" did")[0] for each in told[1:4]] == ["the phone's power meters"] * 3
    assert "of no rail" in told[4]["error"]
