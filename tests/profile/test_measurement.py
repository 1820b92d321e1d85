"""Profiles of a small model in each runtime, against what PyTorch counts and chooses."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bigvit_edge.artifact import write_data
from bigvit_edge.devices.binaries import find_bve_run
from bigvit_edge.devices.local import Local
from bigvit_edge.errors import UserError
from bigvit_edge.export.backends import litert, onnx
from bigvit_edge.export.convert import capture
from bigvit_edge.export.emitter import emit_program
from bigvit_edge.export.graph import Graph
from bigvit_edge.export.program import to_bytes
from bigvit_edge.export.rewrite import rewrite_all
from bigvit_edge.models.blvit import BLViT, selected_tokens
from bigvit_edge.profile import litert as profile_litert
from bigvit_edge.profile import measurement
from bigvit_edge.profile import onnx as profile_onnx
from bigvit_edge.profile.command import run_profile, write_json
from bigvit_edge.profile.records import KINDS, check_profile
from bigvit_edge.profile.timeline import write_timeline
from bigvit_edge.target import Target
from tests.profile.test_timeline import check_format

TARGET = Target("test", "", ("bve", "onnx", "litert"))
SHAPE = dict(
    image_size=32, patch=8, dim=64, depth=2, head_dim=32, num_classes=5, little_dim=32, little_head_dim=16, keep=0.5
)
SUFFIXES = {"bve": ".bve", "onnx": ".onnx", "litert": ".tflite"}


@pytest.fixture(scope="module")
def model() -> BLViT:
    torch.manual_seed(0)
    model = BLViT(**SHAPE)  # type: ignore[arg-type]
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.2)
    return model.eval()


@pytest.fixture(scope="module")
def paths(model: BLViT, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, graph = tmp_path_factory.mktemp("profiled"), capture(model, 32, 0.5)
    paths = {name: folder / f"tiny{suffix}" for name, suffix in SUFFIXES.items()}
    paths["bve"].write_bytes(to_bytes(emit_program([graph], 4, {"labels": "null"})))
    for name, backend in (("onnx", onnx), ("litert", litert)):
        lowered = backend.lower(
            [Graph(rewrite_all(capture(model, 32, 0.5).exported), keep=0.5)], TARGET, {"precision": "fp32"}
        )
        write_data(lowered.data, paths[name])
    return paths


def draw() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((1, 3, 32, 32), dtype=np.float32)


def count_macs(model: BLViT) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    return counter.get_total_flops() // 2


def test_our_runtimes_profile_shows_what_pytorch_chooses(model: BLViT, paths: dict[str, Path]) -> None:
    profile = run_profile(paths["bve"], runs=4)
    with torch.no_grad():
        masks = selected_tokens(model.encode(torch.from_numpy(draw()))[2], 9)[:, 0]
    assert profile.routing is not None
    assert profile.routing.side == 4
    assert [list(each.patches) for each in profile.routing.selections] == [
        [token - 1 for token in np.flatnonzero(mask.numpy()) if token] for mask in masks
    ]
    assert len(profile.latency_ms) == 4
    assert profile.leftovers is None
    assert profile.roof is not None
    assert profile.traced is not None
    assert {track.lane for track in profile.traced.tracks} == {"big", "LITTLE"}
    assert json.loads(write_json(profile))["routing"]["side"] == 4


@pytest.mark.parametrize("name", SUFFIXES)
def test_every_runtime_tells_its_ops_in_the_same_form(name: str, paths: dict[str, Path]) -> None:
    profile = run_profile(paths[name], runs=2)
    traced = profile.traced
    assert traced is not None
    check_profile(traced)
    assert {op.kind for op in traced.ops} <= set(KINDS)
    assert {"layers.0", "layers.1", "embedding"} <= {op.layer for op in traced.ops}
    assert len(traced.runs) == 20
    seen = {(event.run, event.op) for event in traced.events}
    assert seen == {(run, op) for run in range(20) for op in range(len(traced.ops))}
    check_format(write_timeline(profile, traced))


@pytest.mark.parametrize("name", ["onnx", "litert"])
def test_products_are_counted_as_pytorch_counts_them(name: str, model: BLViT, paths: dict[str, Path]) -> None:
    if name == "onnx":
        traced = profile_onnx.trace_file(paths[name], draw(), 1, 2, 1)
    else:
        traced = profile_litert.trace_file(paths[name], draw(), 1, 2, 1, "serving_default")
    assert sum(op.macs or 0 for op in traced.ops) == count_macs(model)


def test_litert_says_what_xnnpack_took(paths: dict[str, Path]) -> None:
    traced = profile_litert.trace_file(paths["litert"], draw(), 1, 2, 1, "serving_default")
    assert {op.word for op in traced.ops if op.unit == "LiteRT"} == {"TOPK_V2", "GATHER", "RESHAPE"}
    assert all(event.placed == (traced.ops[event.op].unit == "XNNPACK") for event in traced.events)
    inside = [op for op in traced.ops if op.word.startswith("Fully Connected") and op.layer == "layers.1"]
    assert len(inside) >= 8


class Folder(Local):
    """This machine, to which files are copied all the same."""

    in_place = False

    def __init__(self, home: Path) -> None:
        super().__init__("local")
        self.name, self.home = "ssh:board", str(home)


def test_a_program_of_ours_is_profiled_on_any_device(
    paths: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measurement, "open_device", lambda name: Folder(tmp_path / "there"))
    monkeypatch.setenv("BVE_RUN", str(find_bve_run(Local("local"))))
    profile = run_profile(paths["bve"], "ssh:board", runs=2)
    assert profile.device == "ssh:board"
    assert profile.traced is not None
    assert len(profile.traced.runs) == 20
    assert profile.routing is not None
    assert not list(tmp_path.rglob("there/*"))
    with pytest.raises(UserError, match=r"a .onnx is profiled on this machine alone; expected a .bve"):
        run_profile(paths["onnx"], "ssh:board", runs=2)


def test_what_cannot_be_understood_is_not_taken(
    paths: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "bve-run"
    other.write_text('#!/bin/sh\ncase $1 in profile) echo "{}";; hold) echo held; cat;; *) exec bve-run "$@";; esac\n')
    other.chmod(0o755)
    monkeypatch.setattr(measurement, "install_bve_run", lambda *_: str(other))
    monkeypatch.setenv("PATH", f"{find_bve_run(Local('local')).parent}:{os.environ['PATH']}")
    with pytest.raises(UserError, match=r"what bve-run on local says cannot be understood"):
        run_profile(paths["bve"], runs=2)


def test_pages_and_timelines_are_written_whole_or_not_at_all(paths: dict[str, Path], tmp_path: Path) -> None:
    html, trace = tmp_path / "report.html", tmp_path / "trace.json"
    run_profile(paths["bve"], runs=2, html=html, trace=trace)
    assert html.read_text().endswith("</html>\n")
    check_format(trace.read_text())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "trace.json"]
    before = html.read_text()
    with pytest.raises(UserError, match=r"report.html is there already; expected a new file"):
        run_profile(paths["bve"], runs=2, html=html)
    assert html.read_text() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "toaster"}, r"device 'toaster'; expected local, null, adb"),
        ({"device": "null"}, r"--device null, which runs nothing"),
        ({"threads": 1000}, r"1000 threads; expected 1 to \d+"),
        ({"threads": 0}, r"--threads 0; expected 1 or more"),
        ({"runs": 1}, r"--runs 1; expected 2 to"),
        ({"keep": 0.3}, r"no entry 'keep_0_3'"),
        ({"picture": Path("cat.png")}, r"which does not say how it takes pictures"),
        ({"html": Path("/nowhere/x.html")}, r"/nowhere/x.html, in a folder that is not there"),
        ({"html": Path("same"), "trace": Path("./same")}, r"the same file; expected two files"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, object], message: str, paths: dict[str, Path]) -> None:
    with pytest.raises(UserError, match=message):
        run_profile(paths["bve"], **{"runs": 2, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["model.mlpackage", "notes.txt", "nothing.bve"])
def test_other_files_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=name):
        run_profile(tmp_path / name, runs=2)


def test_damaged_files_are_refused(paths: dict[str, Path], tmp_path: Path) -> None:
    for name, path in paths.items():
        damaged = tmp_path / f"damaged{SUFFIXES[name]}"
        damaged.write_bytes(path.read_bytes()[:200])
        with pytest.raises(UserError, match="damaged"):
            run_profile(damaged, runs=2)
