"""A .pte whose whole graph is a Core ML delegate, evaluated as it was saved."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("executorch")
pytest.importorskip("coremltools")

from executorch.exir._serialize._program import deserialize_pte_binary

from bigvit_edge.artifact import Artifact, write_data
from bigvit_edge.errors import UserError
from bigvit_edge.export.backends import executorch
from bigvit_edge.export.backends.executorch import coreml
from bigvit_edge.export.graph import Graph, Ranges
from bigvit_edge.export.quantization import insert_quantization
from bigvit_edge.export.rewrite import rewrite_all
from bigvit_edge.models.blvit import BLViT
from bigvit_edge.runtime import mil
from bigvit_edge.target import Target

IOS18 = Target("test", "", ("executorch",), backend="coreml", deployment="iOS18")
IOS17 = Target("test", "", ("executorch",), backend="coreml", deployment="iOS17")
IMAGES = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
WIDE = Ranges((-4.0, 4.0), (-4.0, 4.0))


def build(keep: float) -> BLViT:
    torch.manual_seed(0)
    sizes = dict(image_size=32, patch=16, dim=64, little_dim=32, depth=1, head_dim=16, little_head_dim=8, num_classes=7)
    return BLViT(**sizes, keep=keep).eval()


def capture(model: nn.Module, precision: str, layers: dict[str, str], keep: float | None = None) -> Graph:
    exported = rewrite_all(torch.export.export(model, (IMAGES,)))
    return Graph(exported, precision, layers, dict.fromkeys(layers, WIDE), keep=keep)


def run(artifact: Artifact, folder: Path, method: str | None = None) -> Tensor:
    write_data(artifact.data, folder / "model.pte")
    return torch.from_numpy(executorch.load(folder / "model.pte", method=method)(IMAGES.numpy()))


@torch.no_grad()
@pytest.mark.parametrize(("precision", "atol"), [("fp32", 1e-6), ("fp16", 2e-3)])
def test_float(precision: str, atol: float, tmp_path: Path) -> None:
    model = build(0.5)
    artifact = executorch.lower([capture(model, precision, {})], IOS17, {})
    answer, expected = run(artifact, tmp_path), model(IMAGES)
    assert torch.allclose(answer, expected, atol=atol)
    assert torch.allclose(answer, expected, atol=1e-6) == (precision == "fp32")
    (method,) = artifact.methods
    assert (method.name, method.delegates, method.leftovers) == ("forward", 1, ())
    assert method.fragments == dict.fromkeys(["embedding", "little", "layers.0", "norm", "up", "head"], 1)


@pytest.fixture(scope="module")
def mixed() -> Graph:
    model = build(0.5)
    names = [name for name, m in model.named_modules() if isinstance(m, nn.Linear) and "router" not in name]
    return capture(model, "mixed", {name: ("int8", "int8-static", "int4")[i % 3] for i, name in enumerate(names)})


@torch.no_grad()
def test_each_linear_gets_its_precision(mixed: Graph, tmp_path: Path) -> None:
    artifact = executorch.lower([mixed], IOS18, {})
    assert artifact.methods[0].delegates == 1
    answer = run(artifact, tmp_path)
    emulated = insert_quantization(mixed, rows=False).module()(IMAGES)
    exact = mixed.exported.module()(IMAGES)
    assert float((answer - emulated).abs().max()) < 0.3 * float((emulated - exact).abs().max())
    ops = mil.list_ops(mil.unpack_blob(find_blob(tmp_path / "model.pte")), "model.pte")
    kinds = [op.type for op in ops]
    how = list(mixed.layers.values())
    assert kinds.count("constexpr_blockwise_shift_scale") == len(how)
    assert 0 < kinds.count("quantize") <= 2 * how.count("int8-static")


def find_blob(path: Path) -> bytes:
    (data,) = deserialize_pte_binary(path.read_bytes()).program.backend_delegate_data
    return bytes(data.data)


def test_same_graph_same_bytes(mixed: Graph) -> None:
    assert executorch.lower([mixed], IOS18, {}).data == executorch.lower([mixed], IOS18, {}).data


@torch.no_grad()
def test_methods_share_one_package(tmp_path: Path) -> None:
    graphs = [capture(build(keep), "fp16", {}, keep) for keep in (1.0, 0.25)]
    artifact = executorch.lower(graphs, IOS18, {"model": "tiny"})
    weight = build(1.0).layers[0].p.mlp.fc1.weight.half().numpy().tobytes()
    assert isinstance(artifact.data, bytes)
    assert artifact.data.count(weight) == 1
    assert [method.name for method in artifact.methods] == ["keep_1", "keep_0_25"]
    answers = [run(artifact, tmp_path, method) for method in ("keep_1", "keep_0_25")]
    for answer, keep in zip(answers, (1.0, 0.25), strict=True):
        assert torch.allclose(answer, build(keep)(IMAGES), atol=2e-3)
    assert torch.equal(run(artifact, tmp_path), answers[0])
    assert not torch.equal(answers[0], answers[1])
    with pytest.raises(UserError, match="no method 'keep_0_5'"):
        run(artifact, tmp_path, "keep_0_5")
    assert executorch.lower(graphs, IOS18, {"model": "tiny"}).data == artifact.data


def test_what_the_deployment_is_too_old_for(mixed: Graph) -> None:
    with pytest.raises(UserError, match="int4 in a Core ML delegate with deployment=iOS17; expected iOS18; --set dep"):
        executorch.lower([mixed], IOS17, {})
    graphs = [Graph(mixed.exported, "fp16", keep=keep) for keep in (1.0, 0.5)]
    with pytest.raises(UserError, match="several keep ratios in one Core ML delegate with deployment=iOS17"):
        executorch.lower(graphs, IOS17, {})


def test_a_file_that_is_more_than_one_delegate_is_refused(tmp_path: Path) -> None:
    """Core ML does not take diagonals, and what surrounds them cannot be computed without it."""

    class Diagonal(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.diagonal(x.exp(), 0, 2, 3).exp()

    artifact = executorch.lower([Graph(torch.export.export(Diagonal(), (IMAGES,)))], IOS17, {})
    (leftover,) = artifact.methods[0].leftovers
    assert "diagonal" in leftover.op
    assert leftover.reason == "coremltools has no conversion for it"
    write_data(artifact.data, tmp_path / "model.pte")
    with pytest.raises(UserError, match=r"forward is made of aten::diagonal.*Core ML runs on Apple's systems alone"):
        executorch.load(tmp_path / "model.pte")


def test_a_packed_blob_can_be_read() -> None:
    files = {"metadata.json": b"{}", "model.mlpackage/a/b.bin": b"\0" * 70, "model.mlpackage/Manifest.json": b"[]"}
    blob = coreml.pack_blob(files, "root")
    assert mil.unpack_blob(blob) == {"a/b.bin": b"\0" * 70, "Manifest.json": b"[]"}
    index, _ = json.JSONDecoder().raw_decode(blob[::-1].decode("latin-1"))
    assert index["nodes"][-1]["name"] == "root"
