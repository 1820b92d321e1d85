"""The LiteRT backend on tiny models, fp32 and int8: PyTorch's numbers, what was quantised, delegated, left over."""

import gc
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from torch import nn

from bigvit_edge.artifact import Array, Artifact, Method, list_versions
from bigvit_edge.export.backends import litert
from bigvit_edge.export.backends.litert import contents, delegation, quantization
from bigvit_edge.export.graph import Graph, count_node_macs
from bigvit_edge.export.rewrite import rewrite_all
from bigvit_edge.models.blvit import BLViT
from bigvit_edge.models.vit import ViT
from bigvit_edge.target import Target

TARGET = Target("test", "", ("litert",))
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


def lower(graph: Graph) -> Artifact:
    return litert.lower([graph], TARGET, {})


def only_method(file: Artifact) -> Method:
    (method,) = file.methods
    return method


def bytes_of(file: Artifact) -> bytes:
    assert isinstance(file.data, bytes)
    return file.data


def list_ops(file: Artifact) -> Sequence[contents.Op]:
    return contents.list_ops(contents.read_model(bytes_of(file)))


def in_int8(graph: Graph, names: frozenset[str]) -> Graph:
    return Graph(graph.exported, "int8", dict.fromkeys(names, "int8"))


def answers(model: nn.Module, file: Artifact, folder: Path, count: int = 8) -> tuple[Array, Array]:
    """What the file and what PyTorch say to the same images [count, classes]."""
    path = folder / "model.tflite"
    path.write_bytes(bytes_of(file))
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
    files = {g.precision: lower(g) for g in (graph, in_int8(graph, linears(model)))}
    return Case(model=model, graph=graph, files=files)


def test_fp32_equals_pytorch(case: Case, tmp_path: Path) -> None:
    got, expected = answers(case.model, case.files["fp32"], tmp_path)
    assert np.abs(got - expected).max() < 1e-5
    assert expected.std() > 0.01  # not all the same


def test_int8_is_near_pytorch_but_not_equal(case: Case, tmp_path: Path) -> None:
    got, expected = answers(case.model, case.files["int8"], tmp_path)
    assert cosine(got, expected) > 0.999
    assert np.abs(got - expected).max() > 1e-5


def int8_weights(file: Artifact) -> list[tuple[Array, Array]]:
    """Every int8 weight of a file, with its scales: ([O, I], [O])."""
    model = contents.read_model(bytes_of(file))
    found = []
    for tensor in model.subgraphs[0].tensors:
        if contents.TYPE_NAMES[tensor.type] == "INT8":
            values = np.frombuffer(model.buffers[tensor.buffer].data, np.int8).reshape(tensor.shape)
            found.append((values.astype(np.float32), np.array(tensor.quantization.scale, np.float32)))
    return found


def test_exactly_the_named_linears_are_int8(case: Case) -> None:
    modules = dict(case.model.named_modules())
    want = Counter(tuple(modules[name].weight.shape) for name in linears(case.model))
    assert Counter(w.shape for w, _ in int8_weights(case.files["int8"])) == want
    assert not int8_weights(case.files["fp32"])


def test_one_linear_among_equal_shapes(case: Case) -> None:
    name = next(n for n in linears(case.model) if n in ("layers.1.attn.v", "layers.1.p.attn.v"))
    ((values, scales),) = int8_weights(lower(in_int8(case.graph, frozenset({name}))))
    weight = case.graph.exported.state_dict[f"{name}.weight"].detach().numpy()
    assert np.allclose(scales, np.abs(weight).max(1) / 127, rtol=1e-3)
    assert np.abs(values * scales[:, None] - weight).max() <= scales.max() * 0.51


def test_linears_are_told_apart_by_their_weights(case: Case) -> None:
    model = contents.read_model(bytes_of(case.files["fp32"]))
    found = quantization.find_linears(model, 0, case.graph.exported)
    assert linears(case.model) <= {linear.layer for linear in found.values()}
    for output, layer in ((output, linear.layer) for output, linear in found.items()):
        if output.startswith("_"):  # what the converter left of the names agrees
            assert output.split(";")[0] == "_" + layer.replace(".", "/")


def test_a_layer_that_is_not_there_is_an_error(case: Case) -> None:
    some = sorted(linears(case.model))[0]
    with pytest.raises(RuntimeError, match=r"left out \[\('layers\.9\.nothing', 'int8'\)\] .* please report"):
        lower(in_int8(case.graph, frozenset({some, "layers.9.nothing"})))


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_only_top_k_and_gather_are_left_over(case: Case, precision: str) -> None:
    method = only_method(case.files[precision])
    routed = isinstance(case.model, BLViT)
    assert method.delegates == (3 if routed else 1)
    left = Counter((left.op, left.layer) for left in method.leftovers)
    each = {"TOPK_V2": 1, "RESHAPE": 1, "GATHER": 3}
    assert left == ({(op, f"layers.{i}"): n for op, n in each.items() for i in range(2)} if routed else {})
    assert all(left.mac_share == 0 for left in method.leftovers)
    reasons = {left.op: left.reason for left in method.leftovers}
    if routed:
        assert "has no TOPK_V2" in reasons["TOPK_V2"]
        assert "has no GATHER" in reasons["GATHER"]
        assert reasons["RESHAPE"].endswith("not of int32")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_fragments_are_the_pieces_around_each_routing(case: Case, precision: str) -> None:
    method = only_method(case.files[precision])
    each = 2 if isinstance(case.model, BLViT) else 1  # before its router and after
    assert {name: method.fragments[name] for name in ("embedding", "layers.0", "layers.1")} == {
        "embedding": 1,
        "layers.0": each,
        "layers.1": each,
    }
    assert max(method.fragments.values()) <= method.delegates


def test_without_a_delegate_everything_is_left_over(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = delegation.Interpreter
    resolver = "experimental_op_resolver_type"
    none = sys.modules[plain.__module__].OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    monkeypatch.setattr(delegation, "Interpreter", lambda **options: plain(**options, **{resolver: none}))
    method = delegation.describe_method(bytes_of(case.files["fp32"]), "serving_default", None)
    assert (method.delegates, method.fragments) == (0, {})
    assert sum(one.mac_share for one in method.leftovers) == pytest.approx(1)
    first = next(one for one in method.leftovers if one.op == "FULLY_CONNECTED")
    assert first.layer == "embedding.patches"
    assert "takes FULLY_CONNECTED, not with these options" in first.reason


def test_macs_are_those_of_the_model(case: Case) -> None:
    expected = sum(count_node_macs(node) for node in case.graph.exported.graph.nodes)
    assert sum(op.macs for op in list_ops(case.files["fp32"])) == expected


def test_op_list_is_short(case: Case) -> None:
    ops = Counter(op.name for op in list_ops(case.files["fp32"]))
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


def versions(file: Artifact) -> dict[str, int]:
    return {contents.name_op(code): code.version for code in contents.read_model(bytes_of(file)).operatorCodes}


def test_old_runtimes_may_take_fp32_but_not_int8(case: Case) -> None:
    assert versions(case.files["fp32"])["FULLY_CONNECTED"] <= 10
    assert versions(case.files["int8"])["FULLY_CONNECTED"] == 12


def test_same_graph_same_bytes_and_untouched(case: Case) -> None:
    before = str(case.graph.exported.graph), str(case.graph.exported.call_spec)
    litert._float_files.clear()
    for precision, graph in (("fp32", case.graph), ("int8", in_int8(case.graph, linears(case.model)))):
        assert lower(graph).data == case.files[precision].data
    assert (str(case.graph.exported.graph), str(case.graph.exported.call_spec)) == before


def test_artifact_says_what_made_it(case: Case) -> None:
    for precision, file in case.files.items():
        assert (file.format, file.precision) == ("litert", precision)
        assert file.tools == list_versions(litert.PACKAGES)
        assert next(iter(file.tools)) == "bigvit-edge"
    assert len(bytes_of(case.files["int8"])) < 0.7 * len(bytes_of(case.files["fp32"]))


def test_the_terminal_stays_clean(case: Case, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    litert._float_files.clear()
    file = lower(in_int8(case.graph, linears(case.model)))
    (tmp_path / "m.tflite").write_bytes(bytes_of(file))
    litert.load(tmp_path / "m.tflite", threads=2)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_input_and_output_have_the_manifest_s_names(case: Case, precision: str, tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(bytes_of(case.files[precision]))
    interpreter = Interpreter(model_path=str(tmp_path / "m.tflite"))
    assert interpreter.get_signature_list() == {"serving_default": {"inputs": ["image"], "outputs": ["logits"]}}
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)).numpy()
    answer = interpreter.get_signature_runner("serving_default")(image=image)
    assert np.array_equal(answer["logits"], litert.load(tmp_path / "m.tflite")(image))


def test_the_float_file_goes_with_its_graph() -> None:
    litert._float_files.clear()
    gc.collect()
    graph = capture(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)).eval(), 8)
    lower(graph)
    assert len(litert._float_files) == 1
    del graph
    gc.collect()
    assert len(litert._float_files) == 0
