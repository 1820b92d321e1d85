"""The LiteRT backend on tiny models: numbers against PyTorch, what was quantised and delegated, which ops remain."""

import gc
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bigvit_edge.artifact import Array, Artifact, list_versions
from bigvit_edge.errors import UserError
from bigvit_edge.export.backends import litert
from bigvit_edge.export.graph import Graph, count_node_macs
from bigvit_edge.export.rewrite import rewrite_all
from bigvit_edge.models.blvit import BLViT
from bigvit_edge.models.vit import ViT
from bigvit_edge.target import Target

TARGET = cast(Target, SimpleNamespace())  # not read by this backend
SHAPE = dict(image_size=32, patch=8, dim=32, depth=2, head_dim=16, num_classes=10)
# The builtins a tiny blvit may consist of; all are known to tflite-runtime 2.14 in these versions.
KNOWN = {
    *("ADD", "BATCH_MATMUL", "CONCATENATION", "DIV", "FULLY_CONNECTED", "GATHER", "GELU", "MEAN", "MUL"),
    *("RESHAPE", "RSQRT", "SLICE", "SOFTMAX", "SUB", "TOPK_V2", "TRANSPOSE"),
}


def randomize(model: nn.Module) -> nn.Module:
    """Weights as after training: no ones, no zeros, no 1e-4 that would hide a wrong op."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = (
                1.0 if "router" in name else 0.5 / max(1, parameter.shape[-1]) ** 0.5 if parameter.dim() > 1 else 0.2
            )
            centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.copy_(centre + scale * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def capture(model: nn.Module, size: int = 32) -> Graph:
    return Graph(torch.export.export(model, (torch.zeros(1, 3, size, size),), strict=False))


def linears(model: nn.Module) -> frozenset[str]:
    """All but the router's; and those that a model uses only where it skips tokens."""
    unused = "from_e" if getattr(model, "keep", None) == 1 else "router"
    linears = (name for name, m in model.named_modules() if isinstance(m, nn.Linear))
    return frozenset(name for name in linears if "router" not in name and unused not in name)


def answers(model: nn.Module, data: bytes, folder: Path, count: int = 8) -> tuple[Array, Array]:
    """What the file and what PyTorch say to the same images [count, classes]."""
    path = folder / "model.tflite"
    path.write_bytes(data)
    run = litert.load(path)
    images = torch.randn(count, 1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = torch.cat([model(image) for image in images]).numpy()
    return np.concatenate([run(image.numpy()) for image in images]), expected


def cosine(a: Array, b: Array) -> float:
    return float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


class Case(SimpleNamespace):
    model: nn.Module
    graph: Graph
    files: dict[str, Artifact]


def build(keep: float | None) -> nn.Module:
    return randomize(BLViT(**SHAPE, little_dim=16, little_head_dim=8, keep=keep) if keep else ViT(**SHAPE))


@pytest.fixture(scope="module", params=[0.5, 1.0, None], ids=["blvit 0.5", "blvit 1.0", "vit"])
def case(request: pytest.FixtureRequest) -> Case:
    model = build(request.param)
    graph = Graph(rewrite_all(capture(model).exported))
    files = {g.precision: litert.lower(g, TARGET) for g in (graph, Graph(graph.exported, linears(model)))}
    return Case(model=model, graph=graph, files=files)


def test_fp32_equals_pytorch(case: Case, tmp_path: Path) -> None:
    got, expected = answers(case.model, case.files["fp32"].data, tmp_path)
    assert np.abs(got - expected).max() < 1e-5
    assert expected.std() > 0.01  # not all the same


def test_int8_is_near_pytorch_but_not_equal(case: Case, tmp_path: Path) -> None:
    got, expected = answers(case.model, case.files["int8"].data, tmp_path)
    assert cosine(got, expected) > 0.999
    assert np.abs(got - expected).max() > 1e-5


def int8_weights(data: bytes) -> list[tuple[Array, Array]]:
    """Every int8 weight of a file, with its scales: ([O, I], [O])."""
    model = litert.flatbuffer_utils.read_model_from_bytearray(bytearray(data))
    found = []
    for tensor in model.subgraphs[0].tensors:
        if tensor.type == litert.schema.TensorType.INT8:
            values = np.frombuffer(model.buffers[tensor.buffer].data, np.int8).reshape(tensor.shape)
            found.append((values.astype(np.float32), np.array(tensor.quantization.scale, np.float32)))
    return found


def test_exactly_the_named_linears_are_int8(case: Case) -> None:
    modules = dict(case.model.named_modules())
    want = Counter(tuple(modules[name].weight.shape) for name in linears(case.model))
    assert Counter(w.shape for w, _ in int8_weights(case.files["int8"].data)) == want
    assert not int8_weights(case.files["fp32"].data)


def test_one_linear_among_equal_shapes(case: Case) -> None:
    name = next(n for n in linears(case.model) if n in ("layers.1.attn.v", "layers.1.p.attn.v"))
    ((values, scales),) = int8_weights(litert.lower(Graph(case.graph.exported, frozenset({name})), TARGET).data)
    weight = case.model.get_submodule(name).weight.detach().numpy()
    assert np.allclose(scales, np.abs(weight).max(1) / 127, rtol=1e-3)
    assert np.abs(values * scales[:, None] - weight).max() <= scales.max() * 0.51


def test_linears_are_told_apart_by_their_weights(case: Case) -> None:
    names = litert._find_linears(case.files["fp32"].data, case.graph.exported)
    assert linears(case.model) <= set(names.values())
    for output, layer in names.items():
        if output.startswith("_"):  # what the converter left of the names agrees
            assert output.split(";")[0] == "_" + layer.replace(".", "/")


def test_a_layer_that_is_not_there_is_an_error(case: Case) -> None:
    some = sorted(linears(case.model))[0]
    with pytest.raises(RuntimeError, match=r"left out \['layers\.9\.nothing'\] .* please report"):
        litert.lower(Graph(case.graph.exported, frozenset({some, "layers.9.nothing"})), TARGET)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_only_top_k_and_gather_are_left_over(case: Case, precision: str) -> None:
    file = case.files[precision]
    routed = isinstance(case.model, BLViT)
    assert file.delegates == (3 if routed else 1)
    left = Counter((left.op, left.layer) for left in file.leftovers)
    each = {"TOPK_V2": 1, "RESHAPE": 1, "GATHER": 3}
    assert left == ({(op, f"layers.{i}"): n for op, n in each.items() for i in range(2)} if routed else {})
    assert all(left.mac_share == 0 for left in file.leftovers)


def test_without_a_delegate_everything_is_left_over(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = litert.Interpreter
    resolver = "experimental_op_resolver_type"
    none = sys.modules[plain.__module__].OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    monkeypatch.setattr(litert, "Interpreter", lambda **options: plain(**options, **{resolver: none}))
    left, delegates = litert._find_leftovers(case.files["fp32"].data)
    assert delegates == 0
    assert sum(one.mac_share for one in left) == pytest.approx(1)
    assert ("FULLY_CONNECTED", "embedding.patches") in {(one.op, one.layer) for one in left}


def test_macs_are_those_of_the_model(case: Case) -> None:
    expected = sum(count_node_macs(node) for node in case.graph.exported.graph.nodes)
    assert sum(op.macs for op in litert._list_ops(case.files["fp32"].data)) == expected


def test_op_list_is_short(case: Case) -> None:
    ops = Counter(op.name for op in litert._list_ops(case.files["fp32"].data))
    routers = 2 if isinstance(case.model, BLViT) else 0
    norms, mlps, attentions = (11, 4, 4) if routers else (5, 2, 2)
    assert set(ops) <= KNOWN
    assert ops["RSQRT"] == norms
    assert ops["MEAN"] == 2 * norms
    assert ops["GELU"] == mlps
    assert ops["BATCH_MATMUL"] == 2 * attentions
    assert ops["SOFTMAX"] == attentions + routers
    assert ops["TRANSPOSE"] == 4 * attentions + 1  # q, k, v, result; the patches
    assert (
        ops["RESHAPE"] == 4 * attentions + 3 * routers + 3
    )  # the same; scores, order, gate; two for patches, one for CLS


def versions(data: bytes) -> dict[str, int]:
    model = litert.flatbuffer_utils.read_model_from_bytearray(bytearray(data))
    return {litert._name_op(code): code.version for code in model.operatorCodes}


def test_old_runtimes_may_take_fp32_but_not_int8(case: Case) -> None:
    assert versions(case.files["fp32"].data)["FULLY_CONNECTED"] <= 10
    assert versions(case.files["int8"].data)["FULLY_CONNECTED"] == 12


def test_same_graph_same_bytes_and_untouched(case: Case) -> None:
    before = str(case.graph.exported.graph), str(case.graph.exported.call_spec)
    litert._float_files.clear()
    for precision, names in (("fp32", frozenset[str]()), ("int8", linears(case.model))):
        assert litert.lower(Graph(case.graph.exported, names), TARGET).data == case.files[precision].data
    assert (str(case.graph.exported.graph), str(case.graph.exported.call_spec)) == before


def test_artifact_says_what_made_it(case: Case) -> None:
    for precision, file in case.files.items():
        assert (file.format, file.precision) == ("litert", precision)
        assert file.tools == list_versions(litert.PACKAGES)
        assert next(iter(file.tools)) == "bigvit-edge"
    assert len(case.files["int8"].data) < 0.7 * len(case.files["fp32"].data)


def test_the_terminal_stays_clean(case: Case, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    litert._float_files.clear()
    file = litert.lower(Graph(case.graph.exported, linears(case.model)), TARGET)
    (tmp_path / "m.tflite").write_bytes(file.data)
    litert.load(tmp_path / "m.tflite", threads=2)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_input_and_output_have_the_manifest_s_names(case: Case, precision: str, tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(case.files[precision].data)
    interpreter = litert.Interpreter(model_path=str(tmp_path / "m.tflite"))
    assert interpreter.get_signature_list() == {"serving_default": {"inputs": ["image"], "outputs": ["logits"]}}
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)).numpy()
    answer = interpreter.get_signature_runner("serving_default")(image=image)
    assert np.array_equal(answer["logits"], litert.load(tmp_path / "m.tflite")(image))


def test_the_float_file_goes_with_its_graph() -> None:
    litert._float_files.clear()
    gc.collect()
    graph = capture(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)).eval(), 8)
    litert.lower(graph, TARGET)
    assert len(litert._float_files) == 1
    del graph
    gc.collect()
    assert len(litert._float_files) == 0


class Mixed(nn.Module):
    """What the shortcuts must leave alone: overlapping and padded convolutions, a norm over two axes, a bmm that
    stays in three dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.padded = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 2, stride=2, padding=1)
        self.norm, self.head = nn.LayerNorm((8, 81)), nn.Linear(81, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = self.norm(self.padded(self.wide(images)).flatten(2))  # [1, 8, 81]
        heads = x.view(1, 4, 2, 81).view(4, 2, 81)  # three dimensions that come from four
        score = torch.bmm(heads, heads.transpose(1, 2)) * 0.1  # [4, 2, 2]
        mixed = torch.bmm(score.softmax(1), heads)  # [4, 2, 81]
        both = (mixed + heads.mean(0)).sum(1) + mixed.view(1, 4, 2, 81).sum(2)[
            0
        ]  # [4, 81], of three and four dimensions
        return cast(Tensor, self.head(both).mean(0, keepdim=True))


class Rows(nn.Module):
    """Two Linears of one shape, each followed by a constant that the converter multiplies into the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(96, 10), nn.Linear(96, 10)
        self.scale = nn.Parameter(torch.ones(10))

    def forward(self, images: Tensor) -> Tensor:
        x = images[:, :, 0]  # [1, 3, 32]
        return cast(Tensor, self.scale * self.first(x.flatten(1)) - 3 * self.second(x.flatten(1)))


@pytest.mark.parametrize("build", [Mixed, Rows])
def test_other_models_come_through(build: Callable[[], nn.Module], tmp_path: Path) -> None:
    model = randomize(build())
    got, expected = answers(model, litert.lower(capture(model), TARGET).data, tmp_path)
    assert np.abs(got - expected).max() < 1e-5 * max(1, np.abs(expected).max())


def test_nothing_is_computed_twice() -> None:
    ops = Counter(op.name for op in litert._list_ops(litert.lower(capture(randomize(Mixed())), TARGET).data))
    assert (ops["BATCH_MATMUL"], ops["CONV_2D"]) == (2, 2)


def test_linears_are_found_under_folded_constants() -> None:
    model: Any = randomize(Rows())
    ((values, scales),) = int8_weights(litert.lower(Graph(capture(model).exported, frozenset({"second"})), TARGET).data)
    weight = -3 * model.second.weight.detach().numpy()
    assert min(np.abs(s * values * scales[:, None] - weight).max() for s in (1, -1, 3, -3)) <= 3 * scales.max()


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "junk": lambda data: b"no model" * 100,
    "half": lambda data: data[: len(data) // 2],
    "cut short": lambda data: data[:-8],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_refused(
    damage: Callable[[bytes], bytes], case: Case, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.tflite").write_bytes(damage(case.files["fp32"].data))
    words = r"m\.tflite: LiteRT cannot load it \([^\n]+\); expected a \.tflite file"
    with pytest.raises(UserError, match=words) as e:
        litert.load(tmp_path / "m.tflite")
    assert e.value.do == "export the model again"
    assert capfd.readouterr() == ("", "")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"m\.tflite: LiteRT cannot load it"):
        litert.load(tmp_path / "m.tflite")


def test_many_threads(case: Case, tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(case.files["fp32"].data)
    image = np.ones((1, 3, 32, 32), np.float32)
    answers = [litert.load(tmp_path / "m.tflite", threads)(image) for threads in (1, 512)]
    assert np.allclose(*answers, atol=1e-6)
