"""The page's results: files that bigvit_edge.results reads, and compare compares."""

import hashlib
import json
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from bigvit_edge.bench.comparison import compare
from bigvit_edge.bench.verdicts import judge
from bigvit_edge.errors import UserError
from bigvit_edge.results import Result, read_result
from tests.app.page import run_module
from tests.bench.made import make_frames, make_machine, make_result, make_row, make_turn

NUMBERS = [
    0, -0.0, 1, -1, 0.1, 1e-4, 9.999e-5, 1e-5, 1.5e-7, 5e-324, 1e-300, 1.7976931348623157e308, 1e15, 1e16, 1e20, 1e21,
    1.5e21, 123456789012345680000, 2**53, 2**53 - 1, 68089956057373, 3643.91, 1 / 3, -2.5e-10, 1e100,
]  # fmt: skip
TEXTS = ["", "a", 'quote " and \\', "\n\r\t\f\b\0\x1f\x7f", "é漢字", "\U0001f600", "\ud800", "\ue000", "\u2028"]


def test_json_is_spelled_as_python_spells_it(tmp_path: Path) -> None:
    rng = random.Random(0)
    numbers = [*NUMBERS, *(rng.uniform(-1, 1) * 10 ** rng.randint(-30, 30) for _ in range(2000))]
    keys = {text: number for number, text in enumerate([*TEXTS, "10", "9", "\U0001f600a", "\uffff", "B", "b", "bb"])}
    cases: list[Any] = [numbers, TEXTS, keys, {"b": [{}, [], {"a": None}], "a": [True, False, [1, [2]]]}]
    answers = run_module(tmp_path, "result.js", "(m, value) => m.spell(value)", cases)
    for answer, case in zip(answers, cases, strict=True):
        spelled = answer["value"]
        read = json.loads(spelled)
        assert spelled == json.dumps(read, sort_keys=True)
        if case is numbers:
            read, case = list(map(float, read)), list(map(float, case))
        assert read == case  # nothing is lost


def test_hashes_are_those_of_hashlib(tmp_path: Path) -> None:
    texts = ["a" * count for count in (*range(130), 1000, 100_001)]
    answers = run_module(tmp_path, "result.js", "(m, text) => m.hashText(text)", texts)
    assert [answer["value"] for answer in answers] == [hashlib.sha256(text.encode()).hexdigest() for text in texts]


def make_app_result() -> Result:
    turns = [make_turn([1 + n / 1000, 1.1, 1e-5], n, cpu_ms=None if n else 2.0, temp_c=None) for n in range(24)]
    frames = make_frames((3.5, 1 / 3), (1e-5, 0.1), (0, 8))
    row = judge(make_row(turns, launch="app", file="modèle\n😀.bve", frame=frames), make_machine())
    return make_result(row, device="app:A phone", sha256=None)


def test_a_result_is_read_and_compared(tmp_path: Path) -> None:
    result = make_app_result()
    (answer,) = run_module(tmp_path, "result.js", "(m, result) => m.writeResult(result)", [asdict(result)])
    (path := tmp_path / "r.json").write_text(answer["value"])
    read = read_result(path)
    assert asdict(read) == {**asdict(result), "sha256": read.sha256}
    ((compared,), alone) = compare(read, read)
    assert (compared.ratio.value, compared.obstacles, alone) == (1, (), [])
    path.write_text(answer["value"].replace("1.001", "1.002"))
    with pytest.raises(UserError, match="edited"):
        read_result(path)


def test_the_page_reads_its_own_and_refuses_what_was_edited_or_cut(tmp_path: Path) -> None:
    ask = "(m, [result, old, now]) => m.readResult(m.writeResult(result).replace(old, now)).rows.length"
    result = asdict(make_app_result())
    changes = [("", ""), ("1.001", "1.002"), ('"version": 1', '"version": 2'), ("}\n", "")]
    cases = [[result, *change] for change in changes]
    read, *refused = run_module(tmp_path, "result.js", ask, cases)
    assert read == {"value": 1}
    assert all("error" in answer for answer in refused)
