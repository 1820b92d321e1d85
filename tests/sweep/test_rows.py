"""The table: what it says is what the result files and manifests say."""

import csv
import io
import statistics
from pathlib import Path

import pytest

from bigvit_edge.measures import Accuracy, bound_share
from bigvit_edge.results import Answers, Energy, Frames, Load, Memory, describe_times, write_result
from bigvit_edge.sweep.folder import Folder
from bigvit_edge.sweep.rows import find_accuracy, list_points, write_csv
from tests.bench.made import make_result, make_row, make_turn
from tests.sweep.made import make_bench, make_export, make_point


def test_a_row_is_what_its_result_file_says(tmp_path: Path) -> None:
    folder, bench = Folder(tmp_path / "sweep"), make_bench(device="local", name="m-1")
    turns = [make_turn([1.0 + 0.01 * i, 1.2, 1.1], number=i) for i in range(10)]
    times = [ms for turn in turns for ms in turn.times_ms]
    frame = describe_times([3.0]), describe_times([1.5])
    row = make_row(
        turns, latency_ms=describe_times(times), cpu_ms=1.5, verdicts=("valid",), load=Load(5.0, 3.0, 0.0, 2.0, 1.5),
        memory=Memory(12_000, 8_000), energy=Energy(3.5, 2.5, 1.0, 0.2, 2.0, 10, "a rail", "its own"),
        answers=Answers(0.75, 200, "some"),
        frame=Frames("a frame", "somebody", (0,), (3.0,), (1.5,), *frame, 2.0, 1.5),
    )  # fmt: skip
    write_result(make_result(row), folder.find_result(bench))
    (point,) = list_points(folder, [bench], {})
    (read,) = csv.DictReader(io.StringIO(write_csv([point])))
    assert float(read["p50_ms"]) == statistics.median(times)
    assert float(read["p50_low_ms"]) <= float(read["p50_ms"]) <= float(read["p50_high_ms"])
    assert (float(read["p90_ms"]), float(read["p99_ms"])) == (row.latency_ms.p90, row.latency_ms.p99)  # type: ignore[union-attr]
    assert (read["cpu_ms"], read["energy_mj"], read["peak_memory_bytes"]) == ("1.5", "3.5", "12000")
    assert (read["cold_load_ms"], read["warm_load_ms"], read["first_ms"]) == ("5.0", "2.0", "1.5")
    assert (read["model"], read["format"], read["precision"], read["keep"]) == ("m", "bve", "int8", "0.5")
    assert (read["device"], read["cores"], read["threads"], read["file_bytes"]) == ("local", "big", "1", "1000")
    assert (read["accuracy"], read["accuracy_of"]) == ("0.75", "200 images on the device")
    assert (float(read["accuracy_low"]), float(read["accuracy_high"])) == bound_share(0.75, 200)
    assert (read["frame_ms"], read["frame_prepare_ms"], read["frame_ratio"]) == ("3.0", "1.5", "1.5")
    assert read["machine"].startswith("a board (a CPU)")
    assert (read["agreement"], read["verdict"], read["file"]) == ("", "valid", "results/m-1.json")


def test_the_exports_accuracy_counts_before_the_devices() -> None:
    row = make_row(answers=Answers(0.75, 200, "some"))
    method = type("Method", (), {"accuracy": Accuracy(0.9, 0.91, 1000, (0.88, 0.92))})()
    assert find_accuracy(method, row) == (0.9, (0.88, 0.92), "1000 images of the export")
    assert find_accuracy(None, make_row()) is None


def test_a_job_that_failed_or_is_to_come_has_its_row(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "sweep")
    exports = [make_export(f"e-{i}") for i in range(3)]
    benches = [make_bench(f"b-{i}", export=export) for i, export in enumerate(exports)]
    folder.write_failure(benches[0], "no room")
    folder.write_failure(exports[1], "past its limits")
    points = list_points(folder, benches, {})
    told = [(point.verdict, point.reason) for point in points]
    assert told == [("failed", "no room"), ("failed", "its export failed: past its limits"), ("not run yet", "")]
    assert all(point.p50_ms is None for point in points)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "=cmd|' /C calc'!A0"])
def test_no_text_is_a_formula_for_a_spreadsheet(text: str) -> None:
    (read,) = csv.DictReader(io.StringIO(write_csv([make_point(model=text, reason='two\nlines, "quoted"')])))
    assert read["model"] == f"'{text}"
    assert read["reason"] == 'two lines, "quoted"'
