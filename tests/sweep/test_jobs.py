"""Jobs and their keys: the same for the same, another for whatever the outcome depends on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bigvit_edge.devices.binaries import identify_bve_run
from bigvit_edge.sweep import jobs
from bigvit_edge.sweep.jobs import Identity, identify_model, list_jobs, list_notes
from bigvit_edge.sweep.settings import Model
from tests.sweep.made import make_sweep, write_factory

PINNED = [
    "m_bve_fp32-8a3ef769089f", "m_bve_int8-c89a52a1b2d0", "m_bve_fp32_local-dae390af2424",
    "m_bve_int8_local-d79d1006b4b5", "m_bve_fp32_null-8a12c241db8f", "m_bve_int8_null-9e433c010788",
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
    monkeypatch.setattr(jobs, "list_versions", lambda packages: {"bigvit-edge": "1"})
    monkeypatch.setattr(jobs, "hash_file", lambda path: "of a library")
    monkeypatch.setattr(jobs, "identify_bve_run", lambda device: "of a program")
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


@pytest.mark.parametrize(
    ("changed", "model", "formats"),
    [
        ("onnxruntime", "m", {"onnx"}), ("ai_edge_litert", "m", {"litert"}), ("timm", "m", set()),
        ("torch", "m", {"bve", "onnx", "litert", "executorch"}), ("executorch", "m", {"executorch"}),
        ("timm", "timm:m", {"bve", "onnx"}),
    ],
)  # fmt: skip
def test_another_version_of_a_package_is_another_job_of_what_uses_it(
    changed: str, model: str, formats: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = ("bve", "onnx", "litert", "executorch") if model == "m" else ("bve", "onnx")
    before, after = [], []
    for number, names in enumerate((before, after)):
        monkeypatch.setattr(jobs, "list_versions", lambda names, n=number: {k: n * (k == changed) for k in names})
        names += list_names(formats=told, models=(Model(model),))
    kept = {name.split("_")[1] for name in set(before) & set(after)}
    assert kept == set(told) - formats


def test_a_rebuilt_library_is_another_export_of_what_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library, names = tmp_path / "libbve.so", []
    monkeypatch.setenv("BVE_LIBRARY", str(library))
    for text in ("one", "other"):
        library.write_text(text)
        names.append(set(list_names(formats=("bve", "onnx"))))
    assert {name.split("_")[1] for name in names[0] & names[1]} == {"onnx"}


def test_a_rebuilt_bve_run_is_another_bench_and_no_other_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, names = tmp_path / "bve-run", []
    monkeypatch.setattr("bigvit_edge.devices.binaries._find_installed", lambda: program)
    for text in ("one", "other"):
        program.write_text(text)
        names.append(set(list_names(devices=("local", "ssh:pi@board", "null"))))
    kept = [name.rpartition("-")[0] for name in sorted(names[0] & names[1])]
    assert kept == ["m_bve_fp32", "m_bve_fp32_null", "m_bve_int8", "m_bve_int8_null"]


def test_a_named_bve_run_counts_for_other_machines_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = (identify_bve_run(device) for device in ("local", "ssh:pi@board"))
    (tmp_path / "bve-run").write_text("mine")
    monkeypatch.setenv("BVE_RUN", str(tmp_path / "bve-run"))
    assert identify_bve_run("local") == here
    assert identify_bve_run("ssh:pi@board") != there


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
