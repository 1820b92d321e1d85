"""Jobs and their keys: the same for the same, another for whatever the outcome depends on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bigvit_edge.sweep.jobs import Identity, identify_model, list_jobs, list_notes
from bigvit_edge.sweep.settings import Model
from tests.sweep.made import make_sweep, write_factory

PINNED = [
    "m_bve_fp32-c3112ed4b69d", "m_bve_int8-ce79cf8f189c", "m_bve_fp32_local-75410306ccd8",
    "m_bve_int8_local-5665ba9cdc7b", "m_bve_fp32_null-c4caee738f04", "m_bve_int8_null-1be31db5d30a",
]  # fmt: skip
KNOWN = Identity("m", "file", "abc", keeps=True)


def list_names(identity: Identity = KNOWN, **fields: Any) -> list[str]:
    exports, benches = list_jobs(make_sweep(**fields), [identity])
    return [job.name for job in (*exports, *benches)]


def test_a_job_for_each_pair_and_a_bench_of_it_on_each_device() -> None:
    sweep = make_sweep(formats=("bve", "onnx"), threads=(1, 2))
    exports, benches = list_jobs(sweep, [KNOWN])
    pairs = [(export.format, export.precision) for export in exports]
    assert pairs == [("bve", "fp32"), ("onnx", "fp32"), ("bve", "int8"), ("onnx", "int8")]
    told = {(bench.export.name, bench.device, bench.threads) for bench in benches}
    assert told == {(e.name, d, t) for e in exports for d in sweep.devices for t in (1, 2)}
    assert len({job.name for job in (*exports, *benches)}) == 4 + 16


def test_keys_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another way to make them would do all jobs of everybody's sweeps again."""
    monkeypatch.setattr("bigvit_edge.sweep.jobs.list_versions", lambda packages: {"bigvit-edge": "1"})
    assert list_names() == PINNED
    moved = (Model("m", weights="elsewhere.pth"),)
    assert list_names(models=moved)[0] == list_names(models=(Model("m", weights="w.pth"),))[0] == PINNED[0]


@pytest.mark.parametrize(
    "fields",
    [{"keeps": (1.0,)}, {"target": "android"}, {"settings": ("limits.images=9",)}, {"models": (Model("m", heads=2),)}],
)
def test_what_an_export_depends_on_makes_another_key_of_all(fields: dict[str, Any]) -> None:
    assert not set(list_names(**fields)) & set(list_names())


def test_other_weights_make_another_key_of_all() -> None:
    assert not set(list_names(replace(KNOWN, digest="abd"))) & set(list_names())


@pytest.mark.parametrize("fields", [{"rounds": 4}, {"fps": 30.0}, {"clusters": ("big",)}, {"cool": 40.0}])
def test_what_a_bench_depends_on_makes_another_key_of_benches_alone(fields: dict[str, Any]) -> None:
    assert list_names(**fields)[:2] == list_names()[:2]
    assert not set(list_names(**fields)[2:]) & set(list_names()[2:])


def test_pictures_count_by_what_they_hold(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8), "red").save(tmp_path / name / "1.png")
    images = str(tmp_path)
    before = list_names(images=images)
    assert before == list_names(images=images)
    Image.new("RGB", (8, 8), "blue").save(tmp_path / "b" / "1.png")
    assert not set(before) & set(list_names(images=images))


def test_keeps_are_for_models_that_have_some() -> None:
    sweep, dense = make_sweep(), replace(KNOWN, keeps=False)
    exports, _ = list_jobs(sweep, [dense])
    assert [export.keeps for export in exports] == [(), ()]
    assert list_notes(sweep, [dense]) == ["m has no keep ratio: keeps are not for it"]


def test_names_hold_nothing_that_a_path_would_mind() -> None:
    names = list_names(Identity("../a b/ü:" + "x" * 300, "file", "abc", keeps=False))
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-") and len(name) < 80 for name in names)


def test_a_users_function_is_known_by_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    write_factory(tmp_path)
    identity = identify_model(Model("mine:build"))
    assert (identity.name, identity.weights, identity.keeps) == ("mine:build", "factory", False)
    (tmp_path / "mine.py").write_text((tmp_path / "mine.py").read_text() + "# another\n")
    assert identify_model(Model("mine:build")).digest != identity.digest
