import logging
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("executorch")

from executorch.runtime import Runtime

from bigvit_edge.artifact import Artifact, Method, write_data
from bigvit_edge.errors import UserError
from bigvit_edge.export.backends import executorch
from bigvit_edge.export.backends.executorch.partition import measure_depths
from bigvit_edge.export.graph import Graph
from bigvit_edge.export.quantization import insert_quantization
from bigvit_edge.export.rewrite import rewrite_all
from bigvit_edge.models.blvit import BLViT
from bigvit_edge.models.vit import ViT
from bigvit_edge.runtime.executorch import framework
from bigvit_edge.target import Target

TARGET = Target("test", "", ("executorch",))
LAYERS = 2


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def capture(model: nn.Module, images: Tensor, int8: Sequence[str] = (), keep: float | None = None) -> Graph:
    exported = rewrite_all(torch.export.export(model.eval(), (images,)))
    return Graph(exported, "int8" if int8 else "fp32", dict.fromkeys(int8, "int8"), keep=keep)


def lower(model: nn.Module, images: Tensor, int8: Sequence[str] = ()) -> Artifact:
    return executorch.lower([capture(model, images, int8)], TARGET, {})


def only(artifact: Artifact) -> Method:
    (method,) = artifact.methods
    return method


def run(artifact: Artifact, images: Tensor, folder: Path, method: str | None = None) -> Tensor:
    path = folder / "model.pte"
    write_data(artifact.data, path)
    return torch.from_numpy(executorch.load(path, method=method)(images.numpy()))


def linears(model: nn.Module) -> list[str]:
    """All but the router's; and those that a model uses only where it skips tokens."""
    unused = "from_e" if getattr(model, "keep", None) == 1 else "router"
    linears = (name for name, m in model.named_modules() if isinstance(m, nn.Linear))
    return [name for name in linears if "router" not in name and unused not in name]


def build(name: str) -> ViT | BLViT:
    torch.manual_seed(0)
    sizes = dict(image_size=48, patch=16, dim=32, depth=LAYERS, head_dim=16, num_classes=7)
    if name == "vit":
        return ViT(**sizes).eval()
    return BLViT(**sizes, little_dim=16, little_head_dim=8, keep=float(name.removeprefix("blvit "))).eval()


IMAGES = draw(1, 3, 48, 48)


@pytest.fixture(scope="module", params=["vit", "blvit 0.5", "blvit 1.0"])
def model(request: pytest.FixtureRequest) -> ViT | BLViT:
    return build(request.param)


@pytest.fixture(scope="module")
def fp32(model: nn.Module) -> Artifact:
    return lower(model, IMAGES)


@pytest.fixture(scope="module")
def int8(model: nn.Module) -> Artifact:
    return lower(model, IMAGES, linears(model))


@torch.no_grad()
def test_fp32_computes_what_pytorch_computes(model: nn.Module, fp32: Artifact, tmp_path: Path) -> None:
    assert torch.allclose(run(fp32, IMAGES, tmp_path), model(IMAGES), atol=1e-6)


@torch.no_grad()
def test_int8_computes_what_the_quantised_graph_computes(model: nn.Module, int8: Artifact, tmp_path: Path) -> None:
    answer, expected = run(int8, IMAGES, tmp_path), model(IMAGES)
    emulated = insert_quantization(capture(model, IMAGES, linears(model))).module()(IMAGES)
    assert torch.allclose(answer, emulated, atol=1e-5)
    assert float(torch.nn.functional.cosine_similarity(answer, expected)) > 0.999
    assert not torch.allclose(answer, expected, atol=1e-5)  # it is int8


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_only_the_router_stays_outside(model: nn.Module, fp32: Artifact, int8: Artifact, precision: str) -> None:
    artifact = {"fp32": fp32, "int8": int8}[precision]
    assert artifact.precision == precision
    method = only(artifact)
    outside = Counter((leftover.op, leftover.layer, leftover.reason) for leftover in method.leftovers)
    layers = {f"layers.{i}" for i in range(LAYERS)}
    if isinstance(model, ViT):
        assert (method.delegates, outside) == (1, Counter())
        assert method.fragments == dict.fromkeys([*layers, "embedding", "norm", "head"], 1)
    else:
        gather = "XNNPACK has no gather with computed indices"
        a_layer = {  # x, z and the score are permuted
            ("aten.topk.default", "XNNPACK has no top-k"): 1,
            ("aten.index_select.default", gather): 3,
        }
        assert outside == {(op, layer, why): n for (op, why), n in a_layer.items() for layer in layers}
        assert method.delegates == LAYERS + 1
        once = dict.fromkeys(["embedding", "little", "norm", "up", "head"], 1)
        assert method.fragments == {**dict.fromkeys(layers, 2), **once}
    assert {leftover.mac_share for leftover in method.leftovers} <= {0.0}


def test_int8_is_smaller(fp32: Artifact, int8: Artifact) -> None:
    assert len(int8.data) < 0.75 * len(fp32.data)


def test_activations_are_quantised_row_by_row(tmp_path: Path) -> None:
    """One scale for all rows would round the small ones to nothing."""
    model = nn.Sequential(nn.Linear(16, 8, bias=False)).eval()
    rows = draw(1, 4, 16) * torch.tensor([1e-3, 1.0, 1e3, 1e5]).view(1, 4, 1)
    answer = run(lower(model, rows, ["0"]), rows, tmp_path)
    with torch.no_grad():
        error = (answer - model(rows)).norm(dim=-1) / model(rows).norm(dim=-1)  # [1, 4]
    assert float(error.max()) < 0.03
    assert float(error.min()) > 0


class HalfDouble(nn.Module):
    """XNNPACK knows no float64: Linear b is left to ExecuTorch, and is half of the arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).double()).float()  # type: ignore[no-any-return]


def test_a_leftover_is_named_with_its_layer_and_share() -> None:
    artifact = lower(HalfDouble(), torch.zeros(1, 3, 4))
    (found,) = [leftover for leftover in only(artifact).leftovers if leftover.mac_share]
    assert (found.op, found.layer, found.mac_share) == ("aten.linear.default", "b", 0.5)
    assert found.reason == "XNNPACK: invalid dtype"
    assert only(artifact).fragments == {"a": 1}


def test_same_graph_same_bytes_and_the_graph_stays_as_it_was(model: nn.Module, int8: Artifact) -> None:
    graph = capture(model, IMAGES, linears(model))
    before, weights = str(graph.exported.graph), set(graph.exported.state_dict)
    assert executorch.lower([graph], TARGET, {}).data == int8.data
    assert (str(graph.exported.graph), set(graph.exported.state_dict)) == (before, weights)


# ---- several keep ratios ---------------------------------------------------------------------------------------------

KEEPS = (1.0, 0.5, 0.25)
METADATA = {"model": "tiny", "labels": '["ä", "b"]'}


@pytest.fixture(scope="module")
def graphs() -> list[Graph]:
    return [capture(build(f"blvit {keep}"), IMAGES, keep=keep) for keep in KEEPS]


@pytest.fixture(scope="module")
def several(graphs: list[Graph]) -> Artifact:
    return executorch.lower(graphs, TARGET, METADATA)


@torch.no_grad()
def test_each_keep_ratio_is_a_method(several: Artifact, tmp_path: Path) -> None:
    assert [(m.name, m.keep, m.delegates) for m in several.methods] == [
        ("keep_1", 1.0, LAYERS + 1),
        ("keep_0_5", 0.5, LAYERS + 1),
        ("keep_0_25", 0.25, LAYERS + 1),
    ]
    expected = [build(f"blvit {keep}")(IMAGES) for keep in KEEPS]
    for method, logits in zip(several.methods, expected, strict=True):
        assert torch.allclose(run(several, IMAGES, tmp_path, method.name), logits, atol=1e-6)
    assert torch.equal(run(several, IMAGES, tmp_path), run(several, IMAGES, tmp_path, "keep_1"))  # the first given
    assert not torch.allclose(expected[0], expected[2], atol=1e-6)


def test_methods_share_their_weights(several: Artifact, graphs: list[Graph]) -> None:
    weights = set()  # of all parameters, each once, though folding makes new ones
    for graph in graphs:
        weights |= {tensor.detach().numpy().tobytes() for tensor in graph.exported.state_dict.values()}
    kept = [weight for weight in weights if len(weight) >= 512]
    assert len(kept) > 20
    assert {several.data.count(weight) for weight in kept} == {1}


def test_what_is_known_of_the_file_is_in_it(several: Artifact, tmp_path: Path) -> None:
    write_data(several.data, tmp_path / "model.pte")
    program = Runtime.get().load_program(tmp_path / "model.pte")
    for key, value in METADATA.items():
        assert program.load_method(f"metadata_{key}").execute(()) == [value]


def test_an_unknown_method_is_refused(several: Artifact, fp32: Artifact, tmp_path: Path) -> None:
    write_data(several.data, tmp_path / "model.pte")
    with pytest.raises(UserError, match=r"no method 'keep_0_3'; expected one of .*keep_0_5") as e:
        executorch.load(tmp_path / "model.pte", method="keep_0_3")
    assert "did you mean keep_0_" in e.value.do
    with pytest.raises(UserError, match="no method 'metadata_model'"):
        executorch.load(tmp_path / "model.pte", method="metadata_model")
    write_data(fp32.data, tmp_path / "model.pte")
    with pytest.raises(UserError, match=r"no method 'keep_1'; expected one of forward$"):
        executorch.load(tmp_path / "model.pte", method="keep_1")


# ---- loading ---------------------------------------------------------------------------------------------------------


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model, rows = nn.Linear(4, 4).eval(), draw(1, 3, 4)
    graph = Graph(torch.export.export(model, (rows,)))
    handlers, level = logging.root.handlers[:], logging.root.manager.disable
    capfd.readouterr()
    write_data(executorch.lower([graph], TARGET, {}).data, tmp_path / "model.pte")
    executorch.load(tmp_path / "model.pte", threads=2)(rows.numpy())
    assert capfd.readouterr() == ("", "")
    assert (logging.root.handlers, logging.root.manager.disable) == (handlers, level)


@pytest.mark.parametrize("threads", [512, 2, 1])
def test_threads(threads: int, fp32: Artifact, tmp_path: Path) -> None:
    write_data(fp32.data, tmp_path / "model.pte")
    executorch.load(tmp_path / "model.pte", threads)
    assert framework._threadpool_get_thread_count() == threads


DAMAGES = [lambda data: b"", lambda data: b"x" * 500, lambda data: data[: len(data) // 2]]


@pytest.mark.parametrize("damage", DAMAGES, ids=["empty", "junk", "half"])
def test_a_damaged_file_is_refused(
    damage: Callable[[bytes], bytes], fp32: Artifact, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert isinstance(fp32.data, bytes)
    (tmp_path / "model.pte").write_bytes(damage(fp32.data))
    words = r"model\.pte: ExecuTorch cannot run it \([^\n]+\); expected a \.pte file"
    with pytest.raises(UserError, match=words) as e:
        executorch.load(tmp_path / "model.pte")
    assert e.value.do == "export the model again"
    assert capfd.readouterr() == ("", "")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.pte: ExecuTorch cannot run it"):
        executorch.load(tmp_path / "model.pte")


def test_takes_any_layout_of_array(fp32: Artifact, model: nn.Module, tmp_path: Path) -> None:
    write_data(fp32.data, tmp_path / "model.pte")
    run = executorch.load(tmp_path / "model.pte")
    columns = np.asfortranarray(IMAGES.numpy())
    assert np.array_equal(run(columns), run(IMAGES.numpy()))
    assert run(columns).dtype == np.float32


def test_a_group_has_one_depth() -> None:
    """x -> a -> out -> b, and c beside them in b's group: all of the group wait for b's input."""
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    a = graph.call_function(torch.neg, (x,))
    c = graph.call_function(torch.abs, (x,))
    out = graph.call_function(torch.sort, (a,))
    b = graph.call_function(torch.add, (out, c))
    d = graph.call_function(torch.neg, (c,))
    assert measure_depths(graph, {a: 0, c: 1, b: 1, d: 2}) == {a: 0, c: 1, b: 1, d: 1}
