"""The Core ML backend on tiny models: the saved package against PyTorch, what was quantised, which ops are refused."""

import hashlib
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

from bigvit_edge.artifact import Array, Artifact, write_data
from bigvit_edge.errors import UserError
from bigvit_edge.export.backends import coreml
from bigvit_edge.export.backends.coreml.weights import _find_palette
from bigvit_edge.export.graph import Graph, Ranges
from bigvit_edge.export.rewrite import rewrite_all
from bigvit_edge.models.blvit import BLViT, set_dispatch
from bigvit_edge.models.vit import ViT
from bigvit_edge.runtime import mil
from bigvit_edge.target import Target

SHAPE = dict(image_size=32, patch=8, dim=32, head_dim=16, num_classes=10)
METADATA = {"model": "tiny", "labels": '["a", "ü"]'}
MODEL = "Data/com.apple.CoreML/model.mlmodel"


def aim(deployment: str = "iOS18") -> Target:
    return Target("test", "", ("coreml",), deployment=deployment)


def build(keep: float | None, depth: int = 1) -> nn.Module:
    """Weights as after training: no ones, no zeros, no 1e-4 that would hide a wrong op. The router's scores lie far
    enough apart that rounding leaves the order of the tokens, and near enough that fp16 can tell them apart."""
    model = (
        BLViT(**SHAPE, depth=depth, little_dim=16, little_head_dim=8, keep=keep) if keep else ViT(**SHAPE, depth=depth)
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 1.0 if "router.score" in name else 0.5 / max(1, parameter.shape[-1]) ** 0.5
            centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.copy_(centre + scale * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def capture(model: nn.Module) -> torch.export.ExportedProgram:
    return rewrite_all(torch.export.export(model, (torch.zeros(1, 3, 32, 32),), strict=False))


def linears(model: nn.Module) -> list[str]:
    unused = "from_e" if getattr(model, "keep", None) == 1 else "router"
    names = (name for name, m in model.named_modules() if isinstance(m, nn.Linear))
    return [name for name in names if "router" not in name and unused not in name]


def draw(count: int = 6) -> torch.Tensor:
    return torch.randn(count, 1, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def observe(model: nn.Module) -> dict[str, Ranges]:
    """What each Linear's input and output span on the images of draw()."""
    seen: dict[str, list[torch.Tensor]] = {}
    hooks = [
        model.get_submodule(name).register_forward_hook(
            lambda module, given, output, name=name: seen.setdefault(name, []).extend([given[0], output])
        )
        for name in linears(model)
    ]
    with torch.no_grad():
        for image in draw():
            model(image)
    for hook in hooks:
        hook.remove()
    span = lambda values: (min(float(v.min()) for v in values), max(float(v.max()) for v in values))  # noqa: E731
    return {name: Ranges(span(values[::2]), span(values[1::2])) for name, values in seen.items()}


def answer(model: nn.Module, artifact: Artifact, folder: Path, method: str | None = None) -> tuple[Array, Array]:
    """What the saved package and what PyTorch say to the same images [count, classes]."""
    path = folder / "model.mlpackage"
    write_data(artifact.data, path)
    run = coreml.load(path, method=method)
    with torch.no_grad():
        expected = torch.cat([model(image) for image in draw()]).numpy()
    return np.concatenate([run(image.numpy()) for image in draw()]), expected


def cosine(a: Array, b: Array) -> float:
    return float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


@pytest.fixture(scope="module")
def case() -> Any:
    model = build(0.5)
    return SimpleNamespace(model=model, exported=capture(model), ranges=observe(model))


def make_graph(case: Any, precision: str) -> Graph:
    """All Linears but the router's in that precision; `mixed` takes one in three each way, and leaves some in float."""
    names = linears(case.model)
    if precision == "mixed":
        layers = {name: ("int8", "int4", "int8-static")[at % 3] for at, name in enumerate(names) if at % 4}
    else:
        layers = dict.fromkeys(names, precision) if precision.startswith("int") else {}
    ranges = {name: case.ranges[name] for name, how in layers.items() if how == "int8-static"}
    return Graph(case.exported, precision, layers, ranges, group=16)


CELLS = [
    ("fp32", "iOS16", 0.99999),
    ("fp16", "iOS16", 0.99999),
    ("fp16", "iOS18", 0.99999),
    ("int8", "iOS16", 0.9998),
    ("int8", "iOS18", 0.9998),
    ("int8-static", "iOS18", 0.98),
    ("int4", "iOS16", 0.97),
    ("int4", "iOS18", 0.98),
    ("mixed", "iOS18", 0.98),
]


@pytest.mark.parametrize(("precision", "deployment", "least"), CELLS)
def test_each_precision_is_near_pytorch(
    case: Any, precision: str, deployment: str, least: float, tmp_path: Path
) -> None:
    artifact = coreml.lower([make_graph(case, precision)], aim(deployment), METADATA)
    got, expected = answer(case.model, artifact, tmp_path)
    assert cosine(got, expected) > least
    assert (np.abs(got - expected).max() < 1e-5) == (precision == "fp32")
    assert expected.std() > 0.01  # not all the same


def test_a_dense_model_is_one_piece(tmp_path: Path) -> None:
    model = build(None)
    artifact = coreml.lower([Graph(capture(model), "fp16")], aim(), {})
    got, expected = answer(model, artifact, tmp_path)
    assert cosine(got, expected) > 0.99999
    assert (artifact.methods[0].delegates, artifact.methods[0].leftovers) == (1, ())
    assert artifact.evaluated


def read_spec(artifact: Artifact, folder: Path) -> Any:
    """The package as coremltools reads it."""
    path = folder / "spec.mlpackage"
    write_data(artifact.data, path)
    return coreml.ct.utils.load_spec(str(path))


def list_packed(artifact: Artifact) -> dict[str, int]:
    """Every weight that an op unpacks: its shape as text -> how many there are."""
    ops = mil.list_ops(cast(dict[str, bytes], artifact.data), "test")
    packed = (op for op in ops if op.type.startswith("constexpr_"))
    return Counter(str(next(iter(op.outputs.values())).shape) for op in packed)


@pytest.mark.parametrize("precision", ["int8", "int4", "mixed"])
def test_exactly_the_named_linears_are_quantised(case: Any, precision: str) -> None:
    graph = make_graph(case, precision)
    artifact = coreml.lower([graph], aim(), {})
    want = Counter(str(tuple(case.model.get_submodule(name).weight.shape)) for name in graph.layers)
    assert list_packed(artifact) == want
    assert not list_packed(coreml.lower([Graph(case.exported, "fp16")], aim(), {}))


def test_the_int8_weight_is_that_of_the_one_linear_named(case: Any) -> None:
    name = "layers.0.p.attn.v"  # three others have its shape
    artifact = coreml.lower([Graph(case.exported, "int8", {name: "int8"})], aim("iOS17"), {})
    (op,) = (op for op in mil.list_ops(artifact.data, "test") if op.type.startswith("constexpr_"))  # type: ignore[arg-type]
    weight = case.exported.state_dict[f"{name}.weight"].detach()
    (values,), (scale,) = op.inputs["quantized_data"], op.inputs["scale"]
    assert torch.allclose(scale, weight.abs().amax(1) / 127, rtol=2e-3)
    assert (values * scale[:, None] - weight).abs().max() <= scale.max() * 0.6


def test_a_layer_that_is_not_there_is_an_error(case: Any) -> None:
    graph = Graph(case.exported, "int8", {linears(case.model)[0]: "int8", "layers.9.nothing": "int8"})
    with pytest.raises(RuntimeError, match=r"left out \[\('layers\.9\.nothing', 'int8'\)\] .* please report"):
        coreml.lower([graph], aim(), {})


def test_a_palette_is_the_best_of_sixteen_values() -> None:
    weight = np.concatenate([np.full(100, value) + np.linspace(-0.01, 0.01, 100) for value in range(16)])
    palette, places = _find_palette(weight.astype(np.float16), {})
    assert np.allclose(np.sort(palette), range(16), atol=1e-3)
    assert np.abs(palette[places] - weight).max() < 0.02


KEEPS = (0.25, 1.0)


@pytest.fixture(scope="module")
def several(case: Any) -> Any:
    graphs = []
    for keep in KEEPS:
        case.model.keep = keep
        names = linears(case.model)
        graphs.append(Graph(capture(case.model), "int4", dict.fromkeys(names, "int4"), group=16, keep=keep))
    case.model.keep = 0.5
    return SimpleNamespace(graphs=graphs, artifact=coreml.lower(graphs, aim(), METADATA))


@pytest.mark.parametrize("keep", KEEPS)
def test_several_keep_ratios_in_one_package(case: Any, several: Any, keep: float, tmp_path: Path) -> None:
    case.model.keep = keep
    name = f"keep_{keep:g}".replace(".", "_")
    got, expected = answer(case.model, several.artifact, tmp_path, name)
    case.model.keep = 0.5
    assert cosine(got, expected) > 0.95
    others = [cosine(answer(case.model, several.artifact, tmp_path, m.name)[0], got) for m in several.artifact.methods]
    assert sum(other > 0.999999 for other in others) == 1  # each answers as itself alone


def test_the_weights_of_several_are_there_once(several: Any) -> None:
    weights = "Data/com.apple.CoreML/weights/weight.bin"
    alone = max(len(coreml.lower([graph], aim(), METADATA).data[weights]) for graph in several.graphs)  # type: ignore[index]
    assert len(several.artifact.data[weights]) < 1.01 * alone
    assert [(m.name, m.keep) for m in several.artifact.methods] == [("keep_0_25", 0.25), ("keep_1", 1.0)]


def test_several_and_static_need_a_newer_system(several: Any, case: Any) -> None:
    with pytest.raises(
        UserError, match=r"several keep ratios .* deployment=iOS17; expected iOS18; --set deployment=iOS18"
    ):
        coreml.lower(several.graphs, aim("iOS17"), {})
    with pytest.raises(UserError, match=r"int8-static with deployment=iOS16; expected iOS17"):
        coreml.lower([make_graph(case, "int8-static")], aim("iOS16"), {})
    with pytest.raises(UserError, match="deployment=iOS16"):
        coreml.lower([make_graph(case, "mixed")], aim("iOS16"), {})


def test_what_the_package_says_of_itself(case: Any, several: Any, tmp_path: Path) -> None:
    spec = read_spec(coreml.lower([Graph(case.exported, "fp16")], aim("iOS17"), METADATA), tmp_path)
    assert spec.specificationVersion == 8  # iOS17
    assert METADATA.items() <= dict(spec.description.metadata.userDefined).items()
    ((image,), (logits,)) = spec.description.input, spec.description.output
    assert (image.name, list(image.type.multiArrayType.shape)) == ("image", [1, 3, 32, 32])
    assert (logits.name, list(logits.type.multiArrayType.shape)) == ("logits", [1, 10])
    float32 = coreml.ct.proto.FeatureTypes_pb2.ArrayFeatureType.FLOAT32
    assert {image.type.multiArrayType.dataType, logits.type.multiArrayType.dataType} == {float32}
    joined = read_spec(several.artifact, tmp_path / "joined")
    assert [f.name for f in joined.description.functions] == ["keep_0_25", "keep_1"]
    assert METADATA.items() <= dict(joined.description.metadata.userDefined).items()


def test_an_unknown_method_names_the_known(several: Any, tmp_path: Path) -> None:
    write_data(several.artifact.data, tmp_path / "x.mlpackage")
    with pytest.raises(UserError, match=r"no method 'keep_0_3'; expected one of keep_0_25, keep_1; did you"):
        coreml.load(tmp_path / "x.mlpackage", method="keep_0_3")


SCRIPT = """
from tests.export.backends.test_coreml import build, capture, hash_package
print(hash_package(capture(build(0.5))))
"""


def hash_package(exported: torch.export.ExportedProgram) -> str:
    data = coreml.lower([Graph(exported, "int4", {"head": "int4"}, group=16)], aim(), METADATA).data
    return hashlib.sha256(repr(data).encode()).hexdigest()


def test_equal_inputs_give_equal_bytes(case: Any) -> None:
    """In a process that hashes differently, since sets and dicts of names are everywhere in the converter."""
    environment = {"PYTHONHASHSEED": "1", "PYTHONPATH": "."}
    other = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, check=True, text=True)
    assert hash_package(case.exported) == other.stdout.strip()


def test_what_the_neural_engine_refuses_is_named_by_layer() -> None:
    exported = capture(build(0.5, depth=2))
    (method,) = coreml.lower([Graph(exported, "fp16", keep=0.5)], aim(), {}).methods
    left = Counter((x.op, x.layer) for x in method.leftovers)
    for layer in ("layers.0", "layers.1"):
        assert (left["topk", layer], left["gather", layer]) == (1, 3)
    assert {x.layer for x in method.leftovers} == {"layers.0", "layers.1"}
    assert all("github.com" in x.reason and x.mac_share == 0 for x in method.leftovers)
    assert method.delegates == 3  # before, between and after the two routers
    assert method.fragments["layers.0"] == 2
    assert method.fragments["head"] == 1


def test_onehot_dispatch_leaves_nothing_to_refuse(tmp_path: Path) -> None:
    model = build(0.5)
    set_dispatch(model, "onehot")
    artifact = coreml.lower([Graph(capture(model), "fp16", keep=0.5)], aim(), {})
    (method,) = artifact.methods
    assert method.leftovers == ()
    assert method.delegates == 1
    assert set(method.fragments.values()) == {1}
    got, expected = answer(model, artifact, tmp_path)
    assert cosine(got, expected) > 0.99999


@pytest.mark.parametrize("form", ["none", "tanh"])
def test_both_forms_of_gelu(form: str, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10), nn.GELU(form)).eval()  # type: ignore[arg-type]
    artifact = coreml.lower([Graph(capture(model))], aim(), {})
    got, expected = answer(model, artifact, tmp_path)
    assert np.abs(got - expected).max() < 1e-6
    assert "gelu" in {op.type for op in mil.list_ops(cast(dict[str, bytes], artifact.data), "test")}


def test_float32_is_not_for_the_neural_engine(case: Any) -> None:
    (method,) = coreml.lower([Graph(case.exported, "fp32", keep=0.5)], aim(), {}).methods
    (leftover,) = method.leftovers
    assert leftover.mac_share == 1
    assert "float16" in leftover.reason
