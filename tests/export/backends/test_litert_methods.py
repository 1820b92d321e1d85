"""Several keep ratios in one .tflite, what is kept inside it, and opening it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from torch import nn

from bigvit_edge.artifact import Array, Artifact
from bigvit_edge.errors import UserError
from bigvit_edge.export.backends import litert
from bigvit_edge.export.backends.litert import contents
from bigvit_edge.export.graph import Graph
from bigvit_edge.export.rewrite import rewrite_all
from bigvit_edge.models.blvit import BLViT
from tests.export.backends.test_litert import SHAPE, TARGET, bytes_of, capture, lower, randomize
from tests.export.backends.test_litert_precision import measure_ranges, plan

KEEPS = (0.25, 0.5, 1.0)
NAMES = ("keep_0_25", "keep_0_5", "keep_1")
IMAGES = torch.randn(4, 1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
METADATA = {"model": "tiny", "keep": "[0.25, 0.5, 1]", "labels": json.dumps(["nul", "één"], ensure_ascii=False)}


def build(keep: float) -> nn.Module:
    """Equal weights at each ratio, more of them than ops, as a real model has."""
    return randomize(BLViT(**SHAPE | {"dim": 96}, little_dim=32, little_head_dim=16, keep=keep))


def say(model: nn.Module) -> Array:
    with torch.no_grad():
        return torch.cat([model(image) for image in IMAGES]).numpy()


def run_all(path: Path, method: str | None) -> Array:
    run = litert.load(path, method=method)
    return np.concatenate([run(image.numpy()) for image in IMAGES])


@pytest.fixture(scope="module")
def models() -> list[nn.Module]:
    return [build(keep) for keep in KEEPS]


@pytest.fixture(scope="module")
def graphs(models: list[nn.Module]) -> list[Graph]:
    captured = zip(KEEPS, (rewrite_all(capture(model).exported) for model in models), strict=True)
    return [Graph(program, keep=keep) for keep, program in captured]


def plan_all(graphs: list[Graph], precision: str) -> list[Graph]:
    """In that precision, with the ranges of the first graph that has the layer: one for all."""
    plans = [plan(graph, precision) for graph in graphs]
    ranges = {name: given for part in reversed(plans) for name, given in part.ranges.items()}
    return [
        Graph(
            p.exported, precision, p.layers, {name: ranges[name] for name in p.ranges}, group=p.group, keep=graph.keep
        )
        for p, graph in zip(plans, graphs, strict=True)
    ]


@pytest.fixture(scope="module", params=["fp32", "fp16", "int8", "int8-static", "int4", "mixed"])
def file(request: pytest.FixtureRequest, graphs: list[Graph], tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return litert.lower(plan_all(graphs, request.param), TARGET, METADATA)


LEAST = {"fp32": 0.999999, "fp16": 0.99999, "int8": 0.98, "int8-static": 0.98, "int4": 0.9, "mixed": 0.95}


def test_each_signature_answers_as_its_model(file: Artifact, models: list[nn.Module], tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(bytes_of(file))
    assert [(method.name, method.keep) for method in file.methods] == list(zip(NAMES, KEEPS, strict=True))
    for model, name in zip(models, NAMES, strict=True):
        got, expected = run_all(tmp_path / "m.tflite", name), say(model)
        cosine = (got * expected).sum(1) / np.linalg.norm(got, axis=1) / np.linalg.norm(expected, axis=1)
        assert cosine.min() > LEAST[file.precision]
    assert np.array_equal(run_all(tmp_path / "m.tflite", None), run_all(tmp_path / "m.tflite", NAMES[0]))
    answers = [run_all(tmp_path / "m.tflite", name) for name in NAMES]
    assert np.abs(answers[0] - answers[1]).max() > 1e-3 < np.abs(answers[1] - answers[2]).max()


def test_a_signature_is_the_same_within_the_whole_file(file: Artifact, tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(bytes_of(file))
    interpreter = Interpreter(model_path=str(tmp_path / "m.tflite"))
    assert interpreter.get_signature_list() == {name: {"inputs": ["image"], "outputs": ["logits"]} for name in NAMES}
    for name in NAMES:
        answer = interpreter.get_signature_runner(name)(image=IMAGES[0].numpy())["logits"]
        assert np.array_equal(answer, run_all(tmp_path / "m.tflite", name)[:1])


def test_each_signature_is_delegated(file: Artifact) -> None:
    for method in file.methods:
        assert method.delegates == 3
        assert {left.op for left in method.leftovers} == {"TOPK_V2", "RESHAPE", "GATHER"}
        assert method.fragments["layers.1"] == 2


def count_bytes(file: Artifact) -> int:
    return sum(len(b.data) for b in contents.read_model(bytes_of(file)).buffers if b.data is not None)


def test_weights_are_stored_once(file: Artifact, graphs: list[Graph]) -> None:
    alone = lower(plan_all(graphs, file.precision)[1])
    assert count_bytes(file) <= 1.01 * count_bytes(alone) + 2000  # shapes of reshapes; the strings
    structure = len(bytes_of(alone)) - count_bytes(alone)
    more = len(bytes_of(file)) - len(bytes_of(alone)) - (count_bytes(file) - count_bytes(alone))
    assert more < 0.9 * structure * (len(KEEPS) - 1)  # and of ops and scales less than all


def test_ranges_may_differ_between_signatures(graphs: list[Graph], models: list[nn.Module], tmp_path: Path) -> None:
    name = "layers.0.p.mlp.fc1"
    ranges = [measure_ranges(graph, IMAGES[:, 0])[name] for graph in graphs]
    assert ranges[0] != ranges[1]
    plans = [
        Graph(graph.exported, "int8-static", {name: "int8-static"}, {name: given}, keep=graph.keep)
        for graph, given in zip(graphs, ranges, strict=True)
    ]
    (tmp_path / "m.tflite").write_bytes(bytes_of(litert.lower(plans, TARGET, {})))
    for model, method in zip(models, NAMES, strict=True):
        assert 1e-5 < np.abs(run_all(tmp_path / "m.tflite", method) - say(model)).max() < 0.1


def test_strings_are_inside(file: Artifact) -> None:
    model = contents.read_model(bytes_of(file))
    found = {entry.name.decode(): bytes(model.buffers[entry.buffer].data).decode() for entry in model.metadata}
    assert {key.removeprefix("bigvit_edge."): text for key, text in found.items() if key.startswith("big")} == METADATA
    assert "min_runtime_version" in found


def test_an_unknown_signature_is_refused(file: Artifact, tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(bytes_of(file))
    with pytest.raises(
        UserError, match=r"no signature 'keep_0_3'; expected one of keep_0_25, keep_0_5, keep_1; did you"
    ):
        litert.load(tmp_path / "m.tflite", method="keep_0_3")


def test_buffers_lie_on_multiples_of_16(file: Artifact) -> None:
    model = contents.schema.Model.GetRootAs(bytes_of(file), 0)
    starts = [
        buffer._tab.Vector(buffer._tab.Offset(4))
        for buffer in (model.Buffers(i) for i in range(model.BuffersLength()))
        if buffer.DataLength() >= 16
    ]
    assert len(starts) > 20
    assert {start % 16 for start in starts} == {0}


# ---- one signature ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def single(graphs: list[Graph]) -> Artifact:
    return lower(graphs[1])


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "junk": lambda data: b"no model" * 100,
    "half": lambda data: data[: len(data) // 2],
    "cut short": lambda data: data[:-8],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_refused(
    damage: Callable[[bytes], bytes], single: Artifact, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.tflite").write_bytes(damage(bytes_of(single)))
    words = r"m\.tflite: LiteRT cannot load it \([^\n]+\); expected a \.tflite file"
    with pytest.raises(UserError, match=words) as e:
        litert.load(tmp_path / "m.tflite")
    assert e.value.do == "export the model again"
    assert capfd.readouterr() == ("", "")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"m\.tflite: LiteRT cannot load it"):
        litert.load(tmp_path / "m.tflite")


def test_many_threads(single: Artifact, tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(bytes_of(single))
    image = np.ones((1, 3, 32, 32), np.float32)
    answers = [litert.load(tmp_path / "m.tflite", threads)(image) for threads in (1, 512)]
    assert np.allclose(*answers, atol=1e-6)


def test_one_signature_has_the_usual_name(single: Artifact, tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(bytes_of(single))
    assert [(method.name, method.keep) for method in single.methods] == [("serving_default", 0.5)]
    assert np.array_equal(run_all(tmp_path / "m.tflite", "serving_default"), run_all(tmp_path / "m.tflite", None))
    with pytest.raises(UserError, match="no signature 'keep_0_5'; expected one of serving_default"):
        litert.load(tmp_path / "m.tflite", method="keep_0_5")
