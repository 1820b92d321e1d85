"""Our own format: the demo models as PyTorch knows them, and what a file holds."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from bigvit_edge.artifact import Artifact
from bigvit_edge.errors import UserError
from bigvit_edge.export import native
from bigvit_edge.export.backends import bve
from bigvit_edge.export.convert import Subject, capture, load_backend, quantize, rewrite
from bigvit_edge.export.graph import Graph
from bigvit_edge.export.program import Program, WeightType, from_bytes
from bigvit_edge.export.references import Reference, draw_calibration, make_references, measure
from bigvit_edge.models.load import Loaded, load, read_keep
from bigvit_edge.target import Target, load_target

IMAGES = 200  # of the 1000 held-out ones
HOST = load_target("host")
KEEPS: Mapping[str, tuple[float | None, ...]] = {"blvit_demo": (0.5, 0.25, 1.0), "vit_demo": (None,)}


@cache
def load_demo(name: str) -> tuple[Loaded, list[Graph]]:
    model = load(name)
    return model, [rewrite(capture(model.module, model.image_size, keep)) for keep in KEEPS[name]]


@cache
def draw_references(name: str) -> dict[float | None, Reference]:
    return make_references(load_demo(name)[0], KEEPS[name], IMAGES)


def lower(name: str, precision: str, target: Target = HOST) -> Artifact:
    model, graphs = load_demo(name)
    subject = Subject(model.module, model.image_size, KEEPS[name], draw_calibration(model)[:32], True, {})
    quantized = quantize(graphs, precision, target, subject, lambda *_: None)
    return bve.lower(quantized, target, {"model": name, "precision": precision})


def read(artifact: Artifact) -> Program:
    assert isinstance(artifact.data, bytes)
    return from_bytes(artifact.data)


def write(artifact: Artifact, folder: Path) -> Path:
    assert isinstance(artifact.data, bytes)
    path = folder / "model.bve"
    path.write_bytes(artifact.data)
    return path


# smallest mean cosine, and share of equal top-1, at keep 0.25 and at the others
LEAST = {"fp32": (1 - 1e-7, 1.0), "fp16": (0.9999, 0.995), "int8": (0.9995, 0.99), "low": (0.99, 0.96)}


@pytest.mark.parametrize("name", KEEPS)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_demo_models_say_what_pytorch_says(name: str, precision: str, tmp_path: Path) -> None:
    artifact = lower(name, precision)
    assert artifact.precision == precision
    assert [method.keep for method in artifact.methods] == sorted(KEEPS[name], key=lambda keep: -(keep or 0))
    path = write(artifact, tmp_path)
    for method in artifact.methods:
        assert (method.delegates, method.leftovers) == (1, ())
        parity, accuracy, _ = measure(bve.load(path, method=method.name), draw_references(name)[method.keep])
        cosine, agreement = LEAST["low" if precision == "int8" and method.keep == 0.25 else precision]
        assert parity.cosine_mean >= cosine, (method.keep, parity)
        assert parity.top1_agreement >= agreement, (method.keep, parity)
        assert accuracy is not None
        assert abs(accuracy.top1 - accuracy.pytorch_top1) <= 0.015
        assert parity.max_abs < 1e-4 if precision == "fp32" else parity.max_abs > 1e-4


def test_either_packing_gives_the_same_answers(tmp_path: Path) -> None:
    answers = []
    for packing, kind in (("dot", WeightType.QC8X4), ("i8mm", WeightType.QC8X8)):
        artifact = lower("blvit_demo", "int8", replace(HOST, packing=packing))
        assert {weight.type for weight in read(artifact).weights if weight.type >= WeightType.QC8X4} == {kind}
        path = write(artifact, tmp_path)
        image = draw_references("blvit_demo")[0.5].images[:1]
        answers.append(bve.load(path, method="keep_0_5")(image))
    assert np.array_equal(*answers)


def test_what_is_kept_in_float_is_in_float() -> None:
    keep_float = ("router", "little", "down", "patches", "head")
    artifact = lower("blvit_demo", "int8", replace(HOST, quant=replace(HOST.quant, keep_float=keep_float)))
    packed = {weight.name: weight.type for weight in read(artifact).weights if weight.type >= WeightType.F32}
    others = {f"layers.{i}.down" for i in range(5)} | {"little", "head", "embedding.patches"}
    assert {name for name, kind in packed.items() if kind == WeightType.F32} == others
    assert artifact.layers == {}
    assert lower("blvit_demo", "int8").layers == {"embedding.patches": "int8"}
    assert lower("blvit_demo", "fp16").layers == {}


def test_lowering_leaves_the_model_as_it_was() -> None:
    model, _ = load_demo("blvit_demo")
    keep, before = read_keep(model.module), {name: t.clone() for name, t in model.module.state_dict().items()}
    lower("blvit_demo", "int8")
    assert read_keep(model.module) == keep
    assert all(torch.equal(t, before[name]) for name, t in model.module.state_dict().items())


def test_two_exports_are_equal() -> None:
    first = lower("vit_demo", "int8")
    native._latest.clear()
    assert lower("vit_demo", "int8").data == first.data


def test_a_file_names_what_it_is_and_has(tmp_path: Path) -> None:
    artifact = lower("blvit_demo", "fp32")
    assert read(artifact).metadata == {"model": "blvit_demo", "precision": "fp32"}
    assert artifact.methods[0].fragments == {
        "embedding": 1, "little": 1, **{f"layers.{i}": 1 for i in range(5)}, "up": 1, "head": 1,
    }  # fmt: skip
    path = write(artifact, tmp_path)
    with pytest.raises(UserError, match=r"no entry 'keep_0_3'; expected one of keep_1, keep_0_5, keep_0_25"):
        bve.load(path, method="keep_0_3")
    assert load_backend("bve").load(path)(draw_references("blvit_demo")[1.0].images[:1]).shape == (1, 10)
