"""LiteRT files that our core runs: the demo models as Session runs them, and what the files hold."""

import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from torch import nn

from bigvit_edge import runtime
from bigvit_edge.artifact import Artifact
from bigvit_edge.errors import UserError
from bigvit_edge.export.backends import bve, litert
from bigvit_edge.export.backends.litert import contents, delegation, native
from bigvit_edge.export.convert import Subject, quantize
from bigvit_edge.export.native import lower_native
from bigvit_edge.export.program import WeightType, from_bytes
from bigvit_edge.export.references import draw_calibration
from bigvit_edge.runtime import Session
from bigvit_edge.runtime.litert import LIBRARY, load_delegate
from bigvit_edge.runtime.litert import load as load_ours
from bigvit_edge.runtime.tflite import CUSTOM_OP, holds_program
from tests.export.backends.test_bve import HOST, KEEPS, load_demo
from tests.export.backends.test_executorch_native import part_around
from tests.models import around
from tests.native import ROOT

TARGET = replace(HOST, backend="native")
METADATA = {"model": "demo", "labels": '["nul", "één"]'}


def lower_as(name: str, precision: str, packing: str, backend: str) -> tuple[Artifact, bytes]:
    """The .tflite, and the .bve of the same graphs."""
    model, graphs = load_demo(name)
    target = replace(TARGET, packing=packing, backend=backend)
    subject = Subject(model.module, model.image_size, KEEPS[name], draw_calibration(model)[:32], True, {})
    quantized = quantize(graphs, precision, target, subject, lambda *_: None)
    program = bve.lower(quantized, target, METADATA).data
    assert isinstance(program, bytes)
    return litert.lower(quantized, target, METADATA), program


@cache
def lower(name: str, precision: str = "int8", packing: str = "dot") -> tuple[Artifact, bytes]:
    return lower_as(name, precision, packing, "native")


def bytes_of(artifact: Artifact) -> bytes:
    assert isinstance(artifact.data, bytes)
    return artifact.data


def write(name: str, folder: Path, *settings: str) -> tuple[Path, Path]:
    artifact, program = lower(name, *settings)
    (folder / "model.tflite").write_bytes(bytes_of(artifact))
    (folder / "model.bve").write_bytes(program)
    return folder / "model.tflite", folder / "model.bve"


def draw(name: str) -> np.ndarray:
    size = load_demo(name)[0].image_size
    return np.random.default_rng(0).standard_normal((1, 3, size, size), dtype=np.float32)


SETTINGS = [("fp32", "dot"), ("fp16", "dot"), ("int8", "dot"), ("int8", "i8mm")]


@pytest.mark.parametrize("name", KEEPS)
@pytest.mark.parametrize("settings", SETTINGS, ids="-".join)
def test_each_signature_says_what_session_says(name: str, settings: tuple[str, str], tmp_path: Path) -> None:
    tflite, program = write(name, tmp_path, *settings)
    artifact, _ = lower(name, *settings)
    assert artifact.precision == settings[0]
    keeps = sorted(KEEPS[name], key=lambda keep: -(keep or 0))
    names = [f"keep_{keep:g}".replace(".", "_") for keep in keeps] if len(keeps) > 1 else [litert.SINGLE]
    assert [(method.name, method.keep) for method in artifact.methods] == list(zip(names, keeps, strict=True))
    for method in artifact.methods:
        logits = litert.load(tflite, method=method.name)(draw(name))
        assert np.array_equal(logits, Session(program, keep=method.keep).run(draw(name)))
    assert np.array_equal(litert.load(tflite)(draw(name)), litert.load(tflite, method=names[0])(draw(name)))


@pytest.mark.parametrize("name", KEEPS)
def test_the_whole_model_is_one_op_of_ours(name: str) -> None:
    """The share of the multiply-accumulates that it takes is 100 %: the file has nothing else."""
    artifact, program = lower(name)
    model, lowered = contents.read_model(bytes_of(artifact)), from_bytes(program)
    assert len(model.subgraphs) == len(lowered.entries) == len(KEEPS[name])
    for graph, entry, method in zip(model.subgraphs, lowered.entries, artifact.methods, strict=True):
        (op,) = graph.operators
        assert model.operatorCodes[op.opcodeIndex].customCode == b"libbve_litert"
        assert op.customOptions.tobytes() == program
        assert [op.inputs[0], *op.outputs] == [*graph.inputs, *graph.outputs]
        assert contents.read_floats(model, graph.tensors[op.inputs[1]]) == np.float32(entry.keep or 0)
        assert entry.macs > 1e7
        assert (method.delegates, method.leftovers, set(method.fragments.values())) == (1, (), {1})
    parameters = load_demo(name)[0].module.named_parameters()
    matrices = [p for path, p in parameters if p.ndim > 1 and path.endswith("weight") and ".router." not in path]
    packed = [weight for weight in lowered.weights if weight.type >= WeightType.F32]
    assert sum(weight.rows * weight.columns for weight in packed) == sum(p.numel() for p in matrices)


def test_the_runtime_takes_no_other_op(tmp_path: Path) -> None:
    tflite, _ = write("blvit_demo", tmp_path)
    interpreter = Interpreter(str(tflite), experimental_delegates=[load_delegate()])
    interpreter.allocate_tensors()
    assert [op["op_name"] for op in interpreter._get_ops_details()] == ["libbve_litert", "DELEGATE"]
    signature = {"inputs": ["image"], "outputs": ["logits"]}
    assert interpreter.get_signature_list() == dict.fromkeys(("keep_1", "keep_0_5", "keep_0_25"), signature)


@pytest.mark.parametrize("name", KEEPS)
def test_the_program_is_there_once_and_can_be_mapped(name: str) -> None:
    artifact, program = lower(name)
    data = bytes_of(artifact)
    assert data.count(program[:4096]) == 1
    assert data.index(program) % 64 == 0
    assert len(data) < len(program) + 2000
    model = contents.read_model(data)
    strings = {entry.name.decode(): bytes(model.buffers[entry.buffer].data).decode() for entry in model.metadata}
    assert strings == {f"bigvit_edge.{key}": text for key, text in METADATA.items()}


def test_two_exports_are_equal() -> None:
    assert lower_as("blvit_demo", "int8", "dot", "native") == lower("blvit_demo")


def test_packing_and_backend_are_the_targets() -> None:
    kinds = {packing: from_bytes(lower("vit_demo", "int8", packing)[1]).weights for packing in ("dot", "i8mm")}
    assert WeightType.QC8X8 in {weight.type for weight in kinds["i8mm"]}
    assert WeightType.QC8X8 not in {weight.type for weight in kinds["dot"]}
    assert lower("vit_demo")[0].layers == {"embedding.patches": "int8"}
    assert not holds_program(bytes_of(lower_as("vit_demo", "fp32", "dot", "xnnpack")[0]))


def test_wrong_input_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tflite, _ = write("blvit_demo", tmp_path)
    with pytest.raises(UserError, match="no signature 'keep_0_3'; expected one of keep_1, keep_0_5, keep_0_25"):
        litert.load(tflite, method="keep_0_3")
    with pytest.raises(UserError, match=r"model\.tflite: 4000 threads; expected 1 to"):
        litert.load(tflite, 4000)
    with pytest.raises(UserError, match=r"an image of float32 \[1, 3, 8, 8\]"):
        litert.load(tflite)(np.zeros((1, 3, 8, 8), np.float32))
    other = bytearray(tflite.read_bytes())
    other[other.index(b"BVE1") + 4] += 8
    tflite.write_bytes(other)
    with pytest.raises(UserError, match=r"model\.tflite: version at offset 4 is 9, this library reads 1: update"):
        litert.load(tflite)
    tflite.write_bytes(other[: len(other) // 2])
    with pytest.raises(UserError, match=r"model\.tflite: LiteRT cannot load it"):
        litert.load(tflite)
    program = lower("vit_demo")[1]
    monkeypatch.setattr(native, "MOST_BYTES", 1000)
    with pytest.raises(UserError, match=r"a program of \d+ bytes for litert; expected at most 1000"):
        native.write_file(program, from_bytes(program).entries, {})


def test_without_the_library_the_backend_says_so_at_once(tmp_path: Path) -> None:
    (tmp_path / runtime.LIBRARY).write_bytes(runtime.find_library().read_bytes())
    (tmp_path / LIBRARY).write_bytes(b"no library")
    run = subprocess.run(
        [sys.executable, "-c", "import bigvit_edge.export.backends.litert.native"],
        env=os.environ | {runtime.OVERRIDE: str(tmp_path / runtime.LIBRARY), "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    last = run.stderr.splitlines()[-1]
    assert f"expected a {LIBRARY} for this machine; build it: pip install ., or add --set backend=xnnpack" in last


# ---- a model around one of ours --------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_of_a_model_around_ours_the_core_runs_that_and_xnnpack_the_rest(precision: str, tmp_path: Path) -> None:
    model, graphs = part_around(precision)
    artifact = litert.lower(graphs[::-1], TARGET, METADATA)
    data, lowered = bytes_of(artifact), lower_native(graphs[::-1], TARGET, METADATA)
    assert [(method.name, method.keep) for method in artifact.methods] == [("keep_1", 1.0), ("keep_0_5", 0.5)]
    for method in artifact.methods:
        assert (method.delegates, method.leftovers) == (3, ())
        assert method.fragments == {"net": 1, "hidden": 1, "out": 1}
    assert data.count(lowered.data) == 1
    assert data.index(lowered.data) % 64 == 0
    model_in_file = contents.read_model(data)
    for graph, entry in zip(model_in_file.subgraphs, lowered.entries, strict=True):
        (op,) = (o for o in graph.operators if model_in_file.operatorCodes[o.opcodeIndex].customCode == CUSTOM_OP)
        assert contents.read_floats(model_in_file, graph.tensors[op.inputs[1]]) == np.float32(entry.keep)
        assert len(graph.operators) > 5

    path = tmp_path / "m.tflite"
    path.write_bytes(data)
    for method in artifact.methods:
        assert method.keep
        model.keep = method.keep
        image = np.random.default_rng(0).standard_normal((1, 3, around.SIZE, around.SIZE), dtype=np.float32)
        with torch.no_grad():
            expected = model(torch.from_numpy(image)).numpy()
        found = litert.load(path, method=method.name)(image)
        np.testing.assert_allclose(found, expected, atol=1e-5 if precision == "fp32" else 0.02)
        assert np.array_equal(load_ours(path, keep=method.keep).run(image), found)


def test_half_of_a_model_that_has_no_weights_but_ours() -> None:
    front = nn.Sequential(nn.AvgPool2d(2), around.build().net)
    front[0].unread = nn.Linear(4, 4)  # nobody calls it
    graph = replace(around.part_model(front, "1"), precision="fp16")
    artifact = litert.lower([graph], TARGET, {})
    assert (artifact.methods[0].delegates, artifact.methods[0].leftovers) == (2, ())


def test_what_xnnpack_leaves_around_ours_is_told() -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.out = around.build().net, nn.Linear(5, 4)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.out(self.net(images).flip(1))  # type: ignore[no-any-return]

    (method,) = litert.lower([around.part_model(Turned(), size=16)], TARGET, {}).methods
    assert [leftover.op for leftover in method.leftovers] == ["REVERSE_V2"]
    assert "XNNPACK's delegate has no REVERSE_V2" in method.leftovers[0].reason


def test_shares_of_what_is_left_are_of_all_multiply_accumulates() -> None:
    op = contents.Op("CONV_3D", (0,), (1,), "_front;", frozenset({"FLOAT32"}), 10, None)
    (leftover,) = delegation._list_leftovers([op, replace(op, macs=20)], {1}, 70)
    assert leftover.mac_share == 0.1
