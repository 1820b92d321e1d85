import hashlib
import json
import statistics
from dataclasses import replace
from pathlib import Path

import pytest

from bigvit_edge.errors import UserError
from bigvit_edge.results import Frames, describe_times, find_schema, read_result, write_result
from tests.bench.made import make_frames, make_result, make_row


def test_a_result_comes_back_as_it_was_written(tmp_path: Path) -> None:
    result = make_result(make_row(), make_row(file="other.bve", error="it does not run"))
    write_result(result, tmp_path / "results/one.json")
    found = read_result(tmp_path / "results/one.json")
    assert replace(found, sha256=None) == result
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["one.json"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda data: data.update(version=2), "has version 2; expected version 1"),
        (lambda data: data.pop("version"), "has no version"),
        (lambda data: data["rows"][0]["turns"][0]["times_ms"].__setitem__(0, 0.1), "was edited after the measurement"),
        (lambda data: data.update(device=7), "cannot be understood (device"),
        (lambda data: data.pop("machine"), "cannot be understood (machine"),
    ],
)
def test_other_files_are_refused(change: object, says: str, tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    write_result(make_result(make_row()), path)
    data = json.loads(path.read_text())
    change(data)  # type: ignore[operator]
    path.write_text(json.dumps(data))
    with pytest.raises(UserError) as e:
        read_result(path)
    assert says in str(e.value)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"version": 1, "a": NaN}', "[" * 100_000])
def test_what_is_no_result_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(text)
    with pytest.raises(UserError):
        read_result(tmp_path / "one.json")
    with pytest.raises(UserError):
        read_result(tmp_path)
    with pytest.raises(UserError, match="no file"):
        read_result(tmp_path / "none.json")


def test_a_result_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    write_result(make_result(make_row()), path)
    before = path.read_bytes()
    bad = make_result(replace(make_row(), cpu_ms=float("nan")))
    with pytest.raises(ValueError, match="JSON"):
        write_result(bad, path)
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["one.json"]


def test_a_result_of_before_frames_is_read_by_its_own_hash(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    write_result(make_result(make_row()), path)
    data = json.loads(path.read_text())
    del data["rows"][0]["frame"], data["sha256"]
    data["sha256"] = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(data))
    assert read_result(path).rows[0].frame is None


@pytest.mark.parametrize(
    "frame", ["not available: it is foreign", make_frames((1 / 3, 2.5), (0.25, 0.1), (0,)), make_frames((), (), ())]
)
def test_frames_come_back_as_they_were_written(frame: Frames | str, tmp_path: Path) -> None:
    write_result(make_result(make_row(frame=frame)), tmp_path / "one.json")
    assert read_result(tmp_path / "one.json").rows[0].frame == frame


def test_percentiles_are_by_rank() -> None:
    times = [float(n) for n in range(1, 101)]
    found = describe_times(times[::-1])
    assert (found.p50, found.p90, found.p99, found.min, found.max) == (50.5, 90, 99, 1, 100)
    assert found.mean == pytest.approx(statistics.fmean(times))
    assert describe_times([3.0]).p99 == 3
    with pytest.raises(ValueError, match="no times"):
        describe_times([])


def test_the_schema_names_every_field_of_a_file(tmp_path: Path) -> None:
    write_result(make_result(make_row()), tmp_path / "one.json")
    data, schema = json.loads((tmp_path / "one.json").read_text()), find_schema()
    assert data.keys() == schema["properties"].keys()
    assert data["rows"][0].keys() == schema["$defs"]["Row"]["properties"].keys()
