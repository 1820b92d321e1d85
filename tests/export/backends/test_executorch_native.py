"""Our core as ExecuTorch's delegate: what of a model is inside, what the file holds, and what it says."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("executorch")

from executorch.exir._serialize._program import deserialize_pte_binary

from bigvit_edge.artifact import Artifact
from bigvit_edge.errors import UserError
from bigvit_edge.export.backends import bve, executorch
from bigvit_edge.export.backends.executorch import native
from bigvit_edge.export.convert import Subject, capture, quantize, rewrite
from bigvit_edge.export.graph import Graph, count_node_macs, matrix_products
from bigvit_edge.export.native import lower_native
from bigvit_edge.export.references import draw_calibration
from bigvit_edge.models.load import Loaded, load
from bigvit_edge.runtime import Session
from bigvit_edge.runtime import executorch as door
from bigvit_edge.runtime.executorch import BACKEND
from bigvit_edge.target import load_target, override
from tests.models import around
from tests.models.around import Around

TARGET = load_target("android-native")
KEEPS: Mapping[str, tuple[float | None, ...]] = {"blvit_demo": (0.5, 0.25, 1.0), "vit_demo": (None,)}
MOST_BESIDE = 16 * 1024  # bytes of a file that are not the program


@cache
def load_demo(name: str) -> tuple[Loaded, tuple[Graph, ...]]:
    model = load(name)
    return model, tuple(rewrite(capture(model.module, model.image_size, keep)) for keep in KEEPS[name])


def quantize_demo(name: str, precision: str) -> list[Graph]:
    model, graphs = load_demo(name)
    subject = Subject(model.module, model.image_size, KEEPS[name], draw_calibration(model)[:32], True, {})
    return quantize(graphs, precision, TARGET, subject, lambda *_: None)


@cache
def lower(name: str, precision: str, packing: str = "dot") -> tuple[Artifact, Artifact]:
    """The same model as .pte and as .bve."""
    target = replace(TARGET, packing=packing)
    keeps = ",".join(f"{keep:g}" for keep in KEEPS[name] if keep)
    graphs, words = quantize_demo(name, precision), {"model": name, "labels": '["null", "één"]', "keep": keeps}
    return executorch.lower(graphs, target, words), bve.lower(graphs, target, words)


def bytes_of(artifact: Artifact) -> bytes:
    assert isinstance(artifact.data, bytes)
    return artifact.data


def write(artifact: Artifact, path: Path) -> Path:
    path.write_bytes(bytes_of(artifact))
    return path


def draw(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("name", KEEPS)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_each_method_says_bit_by_bit_what_the_core_says(name: str, precision: str, tmp_path: Path) -> None:
    pte, alone = lower(name, precision)
    path, program = write(pte, tmp_path / "m.pte"), write(alone, tmp_path / "m.bve")
    assert pte.precision == precision
    for method in pte.methods:
        session = Session(program, keep=method.keep)
        run = executorch.load(path, method=method.name)
        for seed in range(3):
            image = draw(session.shape, seed)
            assert np.array_equal(run(image), session.run(image)), method
    first, given = pte.methods[0], Session(program, keep=pte.methods[0].keep)
    assert first.keep == KEEPS[name][0]  # the order given is the file's
    assert np.array_equal(executorch.load(path)(draw(given.shape)), given.run(draw(given.shape)))


@pytest.mark.parametrize("packing", ["dot", "i8mm"])
def test_either_packing_runs_and_the_other_is_told_of(
    packing: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write(lower("blvit_demo", "int8", packing)[0], tmp_path / "m.pte")
    expected = Session(write(lower("blvit_demo", "int8")[1], tmp_path / "m.bve"), keep=0.5)
    capfd.readouterr()
    session = door.load(path, method="keep_0_5")
    of_file = Session(write(lower("blvit_demo", "int8", packing)[1], tmp_path / "n.bve"), keep=0.5)
    repacked = of_file.inspect()["repacked_bytes"]
    told = f"libbve_executorch: {repacked} bytes of weights packed anew for this CPU" in capfd.readouterr().err
    assert told == (repacked > 0)
    assert np.array_equal(session.run(draw(expected.shape)), expected.run(draw(expected.shape)))
    assert lower("blvit_demo", "int8", "i8mm")[0].data != lower("blvit_demo", "int8", "dot")[0].data


@pytest.mark.parametrize("name", KEEPS)
def test_all_multiply_accumulates_are_inside_one_delegate(name: str) -> None:
    graphs = dict(zip(("a", "b", "c"), quantize_demo(name, "int8"), strict=False))
    edge = native.lower_programs(graphs, b"BVE1", {})
    for key, graph in graphs.items():
        program = edge.exported_program(key)
        assert [node.op for node in program.graph.nodes].count("get_attr") == 1
        assert sum(map(count_node_macs, program.graph.nodes)) == 0
        (delegate,) = (getattr(program.graph_module, n.target) for n in program.graph.find_nodes(op="get_attr"))
        inside = sum(map(count_node_macs, delegate.original_module.graph.nodes))
        assert inside == sum(macs for _, macs in matrix_products(graph.exported)) > 1e6


@pytest.mark.parametrize("name", KEEPS)
def test_nothing_is_left_over_and_each_layer_is_in_one_piece(name: str) -> None:
    pte, alone = lower(name, "int8")
    assert [(method.delegates, method.leftovers) for method in pte.methods] == [(1, ())] * len(KEEPS[name])
    of = {method.keep: dict(method.fragments) for method in alone.methods}
    for method in pte.methods:
        assert set(method.fragments.values()) == {1}
        assert {layer for layer in method.fragments if layer.startswith("layers.")} == {
            layer for layer in of[method.keep] if layer.startswith("layers.")
        }
    assert pte.layers == alone.layers == {"embedding.patches": "int8"}


@pytest.mark.parametrize("name", KEEPS)
def test_the_file_is_the_program_once_and_little_else(name: str) -> None:
    pte, alone = (bytes_of(artifact) for artifact in lower(name, "int8"))
    assert pte.count(alone) == 1
    assert pte.index(alone) % native.ALIGNMENT == 0
    assert len(pte) - len(alone) < MOST_BESIDE
    program = deserialize_pte_binary(pte).program
    methods = {plan.name: plan for plan in program.execution_plan if not plan.name.startswith("metadata_")}
    assert len(methods) == len(KEEPS[name])
    for plan in methods.values():
        (delegate,) = plan.delegates
        assert delegate.id == "libbve_executorch"
        assert [spec.key for spec in delegate.compile_specs] == ["keep"]
        assert plan.operators == []


def test_a_file_says_what_it_is(tmp_path: Path) -> None:
    path = write(lower("blvit_demo", "int8")[0], tmp_path / "m.pte")
    program = door.open_program(path, 1)
    words = {"metadata_labels": '["null", "één"]', "metadata_methods": "keep_0_5,keep_0_25,keep_1"}
    assert {name: program.load_method(name)(())[0] for name in words} == words


def test_equal_graphs_give_equal_bytes_and_stay_as_they_were() -> None:
    graphs = quantize_demo("vit_demo", "fp32")
    tensors = [[*graph.exported.state_dict, *graph.exported.constants] for graph in graphs]
    nodes = [str(graph.exported.graph) for graph in graphs]
    first, second = (executorch.lower(graphs, TARGET, {}) for _ in range(2))
    assert first.data == second.data
    assert [[*graph.exported.state_dict, *graph.exported.constants] for graph in graphs] == tensors != [[]]
    assert [str(graph.exported.graph) for graph in graphs] == nodes
    assert not any(native.BYTES in node.meta for graph in graphs for node in graph.exported.graph.nodes)


@pytest.mark.parametrize("precision", ["int4", "int8-static", "mixed"])
def test_what_the_core_lacks_is_refused_before_any_work(precision: str) -> None:
    target = override(load_target("android"), ["backend=native", "formats=executorch", f"precisions={precision}"])
    with pytest.raises(
        UserError, match=rf"executorch in {precision}, backend=native; expected one of fp32, fp16, int8"
    ):
        target.list_cells()


# ---- a model around one of ours --------------------------------------------------------------------------------------


def part_around(precision: str) -> tuple[Around, list[Graph]]:
    model = around.build()
    graphs = [around.part_model(model, keep=keep) for keep in (1.0, 0.5)]
    images = np.concatenate([draw((1, 3, around.SIZE, around.SIZE), seed) for seed in range(8)])
    subject = Subject(model, around.SIZE, (1.0, 0.5), images, True, {})
    return model, quantize(graphs, precision, TARGET, subject, lambda *_: None)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_of_a_model_around_ours_the_core_runs_that_and_xnnpack_the_rest(precision: str, tmp_path: Path) -> None:
    model, graphs = part_around(precision)
    artifact = executorch.lower(graphs, TARGET, {})
    data = bytes_of(artifact)
    plans = [plan for plan in deserialize_pte_binary(data).program.execution_plan if plan.name.startswith("keep_")]
    for plan, method in zip(plans, artifact.methods, strict=True):
        assert [delegate.id for delegate in plan.delegates] == ["XnnpackBackend", BACKEND, "XnnpackBackend"]
        assert plan.operators == []
        assert (method.delegates, method.leftovers) == (3, ())
        assert method.fragments | {"smooth": 1, "net": 1, "hidden": 1, "out": 1} == method.fragments
    assert data.count(lower_native(graphs, TARGET, {}).data) == 1
    if precision == "int8":
        assert artifact.layers == {"net.embedding.patches": "int8"}

    path = write(artifact, tmp_path / "m.pte")
    for method in artifact.methods:
        assert method.keep
        model.keep = method.keep
        image = draw((1, 3, around.SIZE, around.SIZE))
        with torch.no_grad():
            expected = model(torch.from_numpy(image)).numpy()
        found = executorch.load(path, method=method.name)(image)
        np.testing.assert_allclose(found, expected, atol=1e-5 if precision == "fp32" else 0.02)
        assert np.array_equal(door.load(path, keep=method.keep).run(image), found)


def test_the_core_gets_what_the_model_hands_ours(tmp_path: Path) -> None:
    """Bit by bit: with nothing behind it, the file says what Session says of the image that was made for it."""
    front = nn.Sequential(nn.AvgPool2d(2), around.build().net)
    graph = around.part_model(front, "1")
    path = write(executorch.lower([graph], TARGET, {}), tmp_path / "m.pte")
    (tmp_path / "m.bve").write_bytes(lower_native([graph], TARGET, {}).data)
    image = draw((1, 3, around.SIZE, around.SIZE))
    image = np.round(image * 4) / 4  # so that the order of the sums of four does not matter
    pooled = image.reshape(1, 3, 16, 2, 16, 2).mean((3, 5), dtype=np.float32)
    assert np.array_equal(executorch.load(path)(image), Session(tmp_path / "m.bve").run(pooled))
