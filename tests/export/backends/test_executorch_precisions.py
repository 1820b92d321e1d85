"""What each precision becomes in XNNPACK's own graph, and that it computes what the quantised graph does in PyTorch."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("executorch")

from executorch.backends.xnnpack import xnnpack_preprocess

from bigvit_edge.artifact import Artifact, write_data
from bigvit_edge.export.backends import executorch
from bigvit_edge.export.graph import Graph
from bigvit_edge.export.half import write_as_half
from bigvit_edge.export.quantization import insert_quantization
from bigvit_edge.export.rewrite import rewrite_all
from bigvit_edge.models.blvit import BLViT
from bigvit_edge.target import Target
from tests.export.test_quantization import measure_ranges

TARGET = Target("test", "", ("executorch",))
Kinds = Counter[tuple[str, str, str]]  # types of a Linear's input, weight and output in XNNPACK

FLOAT = ("fp32", "fp32", "fp32")
KERNELS = {
    "int8": ("qdint8", "qcint8", "fp32"),
    "int8-static": ("qint8", "qcint8", "qint8"),
    "int4": ("qdint8", "qbint4", "fp32"),
}


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


IMAGES = draw(1, 3, 48, 48)


@pytest.fixture(scope="module")
def model() -> BLViT:
    torch.manual_seed(0)
    sizes = dict(image_size=48, patch=16, dim=64, little_dim=32, depth=1, head_dim=16, little_head_dim=8, num_classes=7)
    return BLViT(**sizes).eval()


@pytest.fixture
def kinds(monkeypatch: pytest.MonkeyPatch) -> Kinds:
    """Filled by what is lowered from now on."""
    found: Kinds = Counter()
    serialize = xnnpack_preprocess.serialize_xnnpack_binary

    def read(graph: object, constants: object) -> bytes:
        types = {}
        for value in graph.xvalues:  # type: ignore[attr-defined]
            tensor = getattr(value.xvalue_union, "tensor_value", value.xvalue_union)
            types[tensor.id_out] = tensor.datatype.name.removeprefix("xnn_datatype_")
        for node in (node.xnode_union for node in graph.xnodes):  # type: ignore[attr-defined]
            if type(node).__name__ == "XNNFullyConnected":
                found[types[node.input1_id], types[node.filter_id], types[node.output_id]] += 1
        return serialize(graph, constants)

    monkeypatch.setattr(xnnpack_preprocess, "serialize_xnnpack_binary", read)
    return found


def capture(model: nn.Module, precision: str, layers: dict[str, str], images: Tensor = IMAGES) -> Graph:
    exported = rewrite_all(torch.export.export(model.eval(), (images,)))
    return Graph(exported, precision, layers, measure_ranges(model, images))


def lower(graph: Graph, folder: Path) -> tuple[Artifact, Path]:
    artifact, path = executorch.lower([graph], TARGET, {}), folder / "model.pte"
    write_data(artifact.data, path)
    return artifact, path


def linears(model: nn.Module) -> list[str]:
    return [name for name, m in model.named_modules() if isinstance(m, nn.Linear) and "router" not in name]


def spread(precision: str, names: list[str]) -> dict[str, str]:
    how = list(KERNELS) if precision == "mixed" else [precision]
    return {name: how[i % len(how)] for i, name in enumerate(names)}


@torch.no_grad()
@pytest.mark.parametrize("precision", [*KERNELS, "mixed"])
def test_each_linear_gets_its_kernel(model: BLViT, precision: str, kinds: Kinds, tmp_path: Path) -> None:
    layers = spread(precision, linears(model))
    graph = capture(model, precision, layers)
    artifact, path = lower(graph, tmp_path)
    assert {KERNELS[how]: n for how, n in Counter(layers.values()).items()} == {
        kind: n for kind, n in kinds.items() if kind != FLOAT
    }
    assert artifact.methods[0].delegates == 2
    assert {leftover.op for leftover in artifact.methods[0].leftovers} == {
        "aten.topk.default",
        "aten.index_select.default",
    }
    answer = torch.from_numpy(executorch.load(path)(IMAGES.numpy()))
    assert torch.allclose(answer, insert_quantization(graph).module()(IMAGES), atol=1e-5)
    assert 0.98 < float(torch.nn.functional.cosine_similarity(answer, model(IMAGES))) < 0.9999999


@torch.no_grad()
def test_fp16_computes_in_half(model: BLViT, kinds: Kinds, tmp_path: Path) -> None:
    graph = capture(model, "fp16", {})
    artifact, path = lower(graph, tmp_path)
    assert kinds["fp16", "fp16", "fp16"] == len(linears(model)) + 2  # the router's and the patches'
    norms = [m for m in model.modules() if isinstance(m, nn.LayerNorm)]
    assert kinds[FLOAT] == 2 * len(norms)  # their means stay in float32
    assert set(kinds) == {("fp16", "fp16", "fp16"), FLOAT}
    assert artifact.methods[0].delegates == 2
    assert {leftover.op for leftover in artifact.methods[0].leftovers} == {
        "aten.topk.default",
        "aten.index_select.default",
    }
    answer = torch.from_numpy(executorch.load(path)(IMAGES.numpy()))
    expected = model(IMAGES)
    half = write_as_half(graph.exported).module()(IMAGES)
    assert float((answer - expected).abs().max()) < 2 * float((half - expected).abs().max()) + 1e-4
    assert float((answer - expected).abs().max()) > 1e-6  # it is half


@torch.no_grad()
def test_squares_do_not_overflow_in_fp16(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 8)).eval(), draw(1, 4, 32) * 1000
    _, path = lower(capture(model, "fp16", {}, x), tmp_path)
    assert torch.allclose(torch.from_numpy(executorch.load(path)(x.numpy())), model(x), atol=5e-3)


@torch.no_grad()
@pytest.mark.parametrize("precision", list(KERNELS))
def test_linears_that_follow_one_another(precision: str, kinds: Kinds, tmp_path: Path) -> None:
    """One's output is the other's input, quantised twice in static int8; and an activation that XNNPACK fuses."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32), nn.Linear(32, 5)).eval(), draw(1, 3, 32)
    graph = capture(model, precision, spread(precision, ["0", "2", "3"]), x)
    artifact, path = lower(graph, tmp_path)
    assert kinds == {KERNELS[precision]: 3}
    assert (artifact.methods[0].delegates, artifact.methods[0].leftovers) == (1, ())
    answer = torch.from_numpy(executorch.load(path)(x.numpy()))
    step = graph.ranges["3"].output
    atol = 1e-5 if precision != "int8-static" else (step[1] - step[0]) / 255 * 1.01  # a tie may round the other way
    assert torch.allclose(answer, insert_quantization(graph).module()(x), atol=atol)


@torch.no_grad()
def test_wider_groups(kinds: Kinds, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(128, 16)).eval(), draw(1, 3, 128)
    sizes = {}
    for group in (32, 128):
        exported = torch.export.export(model, (x,))
        graph = Graph(exported, "int4", {"0": "int4"}, group=group)
        artifact, path = lower(graph, tmp_path)
        sizes[group] = len(artifact.data)
        answer = torch.from_numpy(executorch.load(path)(x.numpy()))
        assert torch.allclose(answer, insert_quantization(graph).module()(x), atol=1e-5)
    assert kinds == {KERNELS["int4"]: 2}
    assert sizes[128] <= sizes[32]


def test_an_unknown_layer_is_named(model: BLViT, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no Linear in the graph for layers\.9\.fc"):
        lower(capture(model, "int8", {"layers.9.fc": "int8"}), tmp_path)
