"""The ONNX backend on tiny models: numbers against PyTorch and against quantisation written out in numpy, what was
quantised and what is shared."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from bigvit_edge.artifact import Array, Artifact
from bigvit_edge.export.backends import onnx as backend
from bigvit_edge.export.graph import Graph, Ranges
from bigvit_edge.export.quantization import choose_scale
from bigvit_edge.export.rewrite import rewrite_all
from bigvit_edge.models.blvit import BLViT
from bigvit_edge.models.vit import ViT
from bigvit_edge.target import Target

TARGET = cast(Target, SimpleNamespace())  # not read by this backend
SHAPE = dict(image_size=32, patch=8, dim=32, depth=1, head_dim=16, num_classes=10)
METADATA = {"model": "tiny", "precision": "any", "keep": "0.5", "labels": '["zero", "eins"]'}
IMAGES = torch.randn(4, 1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
PRECISIONS = ("fp32", "fp16", "int8", "int8-static", "int4", "mixed")
GROUP = 32
aten = torch.ops.aten
Emulation = Callable[[str, Array, Array, Array], Array]  # layer, x [..., in], weight [out, in], bias -> [..., out]


def randomize(model: nn.Module) -> nn.Module:
    """Weights as after training: no ones, no zeros, no 1e-4 that would hide a wrong op."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 0.5 / max(1, parameter.shape[-1]) ** 0.5 if parameter.dim() > 1 else 0.2
            centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.copy_(centre + scale * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def capture(model: nn.Module, size: int = 32) -> Graph:
    return Graph(torch.export.export(model, (torch.zeros(1, 3, size, size),), strict=False), keep=0.5)


class Walk(torch.fx.Interpreter):
    """Runs an ATen graph with some of its Linears replaced."""

    def __init__(self, graph: Graph, linear: Emulation) -> None:
        super().__init__(graph.exported.module(check_guards=False))
        self.linear = linear

    def run_node(self, n: torch.fx.Node) -> Any:
        if n.target is not aten.linear.default or n.args[1].op != "get_attr":  # type: ignore[union-attr]
            return super().run_node(n)
        args, _ = self.fetch_args_kwargs_from_env(n)
        layer = n.args[1].target.removesuffix(".weight")  # type: ignore[union-attr]
        return torch.from_numpy(self.linear(layer, *(a.detach().numpy() for a in args)).astype(np.float32))


def compute(graph: Graph, linear: Emulation) -> Array:
    with torch.no_grad():
        return torch.cat([Walk(graph, linear).run(image) for image in IMAGES]).numpy()


def find_ranges(graph: Graph) -> dict[str, Ranges]:
    seen: dict[str, list[Array]] = {}

    def watch(layer: str, x: Array, weight: Array, bias: Array) -> Array:
        y = x @ weight.T + bias
        seen.setdefault(layer, []).extend([x.ravel(), y.ravel()])
        return cast(Array, y)

    compute(graph, watch)
    return {name: Ranges(*((min(v.min() for v in vs[i::2]), max(v.max() for v in vs[i::2])) for i in (0, 1)))
            for name, vs in seen.items()}  # fmt: skip


class Case(SimpleNamespace):
    model: nn.Module
    graphs: dict[str, Graph]
    files: dict[str, Artifact]


def choose_layers(model: nn.Module, precision: str) -> dict[str, str]:
    """What each Linear but the router's is to be; inputs that fill no group of int4 are int8 there."""
    if precision in ("fp32", "fp16"):
        return {}
    linears = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear) and "router" not in n]
    kinds = ("int8", "int8-static", "int4") if precision == "mixed" else (precision,)
    wanted = {name: kinds[i % len(kinds)] for i, (name, _) in enumerate(linears)}
    return {n: "int8" if wanted[n] == "int4" and m.in_features % GROUP else wanted[n] for n, m in linears}


def build_graph(graph: Graph, precision: str, layers: dict[str, str]) -> Graph:
    return Graph(graph.exported, precision, layers, graph.ranges, GROUP, graph.keep)


@pytest.fixture(scope="module", params=[True, False], ids=["blvit", "vit"])
def case(request: pytest.FixtureRequest) -> Case:
    model = randomize(BLViT(**SHAPE, little_dim=16, little_head_dim=8, keep=0.5) if request.param else ViT(**SHAPE))
    plain = Graph(rewrite_all(capture(model).exported), keep=0.5)
    plain = Graph(plain.exported, ranges=find_ranges(plain), keep=0.5)
    graphs = {precision: build_graph(plain, precision, choose_layers(model, precision)) for precision in PRECISIONS}
    files = {precision: backend.lower([graph], TARGET, METADATA) for precision, graph in graphs.items()}
    return Case(model=model, graphs=graphs, files=files)


def answer(data: Any, folder: Path) -> Array:
    path = folder / "model.onnx"
    path.write_bytes(data)
    run = backend.load(path)
    return np.concatenate([run(image.numpy()) for image in IMAGES])


def expect(model: nn.Module) -> Array:
    with torch.no_grad():
        return torch.cat([model(image) for image in IMAGES]).numpy()


def read(file: Artifact) -> onnx.ModelProto:
    return onnx.load_from_string(cast(bytes, file.data))


def count_ops(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


# ---- numbers ---------------------------------------------------------------------------------------------------------


def test_fp32_equals_pytorch(case: Case, tmp_path: Path) -> None:
    expected = expect(case.model)
    assert np.abs(answer(case.files["fp32"].data, tmp_path) - expected).max() < 1e-5
    assert expected.std() > 0.01  # not all the same


def test_fp16_is_near_pytorch_but_not_equal(case: Case, tmp_path: Path) -> None:
    error = np.abs(answer(case.files["fp16"].data, tmp_path) - expect(case.model)).max()
    assert 1e-5 < error < 1e-2


def round_bytes(x: Array, low: float, high: float) -> Array:
    """uint8 and back, by a range that is widened to hold zero."""
    low, high = min(low, 0), max(high, 0)
    scale = np.float32((high - low) / 255)
    zero = np.rint(-low / scale)
    return cast(Array, (np.clip(np.rint(x / scale) + zero, 0, 255) - zero) * scale)


def round_rows(weight: Array) -> Array:
    scale = np.abs(weight).max(1, keepdims=True) / 127
    return cast(Array, np.rint(weight / scale) * scale)


def round_groups(x: Array) -> Array:
    """int8 and back, symmetric, by row and group: what MatMulNBits makes of its input."""
    groups = x.reshape(*x.shape[:-1], -1, GROUP)
    scale = np.abs(groups).max(-1, keepdims=True) / 127
    return cast(Array, (np.rint(groups / scale) * scale).reshape(x.shape))


def emulate(case: Case, precision: str) -> Array:
    """The whole model in PyTorch with its Linears as the file should have them."""
    graph, packed = case.graphs[precision], unpack_int4(read(case.files[precision]))

    def linear(layer: str, x: Array, weight: Array, bias: Array) -> Array:
        kind = graph.layers.get(layer, "fp32")
        if kind == "int8":
            return cast(Array, round_bytes(x, x.min(), x.max()) @ round_rows(weight).T + bias)
        if kind == "int8-static":
            given, made = graph.ranges[layer].input, graph.ranges[layer].output
            return round_bytes(round_bytes(x, *given) @ round_rows(weight).T + bias, *made)
        if kind == "int4":
            return cast(Array, round_groups(x) @ packed[layer].T + bias)
        return cast(Array, x @ weight.T + bias)

    return compute(graph, linear)


def unpack_int4(model: onnx.ModelProto) -> dict[str, Array]:
    """The weights [out, in] of MatMulNBits, by its definition: low nibble first, 8 is zero."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    weights = {}
    for node in model.graph.node:
        if node.op_type == "MatMulNBits":
            packed, scales = constants[node.input[1]], constants[node.input[2]]
            rows, groups, half = packed.shape
            weight = np.zeros((rows, groups * half * 2), np.float32)
            for (row, group, i), byte in np.ndenumerate(packed):
                scale, at = scales[row * groups + group], group * half * 2 + i * 2
                weight[row, at], weight[row, at + 1] = (int(byte) % 16 - 8) * scale, (int(byte) // 16 - 8) * scale
            weights[node.name.rpartition("/")[0]] = weight
    return weights


@pytest.mark.parametrize("precision", ["int8", "int8-static", "int4", "mixed"])
def test_quantised_files_compute_what_numpy_does(case: Case, precision: str, tmp_path: Path) -> None:
    got, emulated, expected = answer(case.files[precision].data, tmp_path), emulate(case, precision), expect(case.model)
    lost = np.abs(got - expected).max()
    assert lost > 1e-3
    assert np.median(np.abs(got - emulated)) < 1e-3 * np.median(np.abs(got - expected))
    # a value near a tie may fall to the other side in another order of summing, and moves all that follow
    step = choose_scale(case.graphs[precision].ranges["head"].output)[0] if precision == "int8-static" else 0
    assert np.abs(got - emulated).max() < max(0.25 * lost, 2.5 * step)
    cosine = (got * expected).sum(1) / np.linalg.norm(got, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() > (0.999 if precision.startswith("int8") else 0.95)


def test_int4_weights_are_near_their_own(case: Case) -> None:
    weights = unpack_int4(read(case.files["int4"]))
    exported = case.graphs["int4"].exported.state_dict
    assert weights.keys() == {name for name, kind in case.graphs["int4"].layers.items() if kind == "int4"}
    for layer, weight in weights.items():
        original = exported[f"{layer}.weight"].numpy(force=True)
        assert np.abs(weight - original).max() < 0.35 * np.abs(original).max()
        assert np.square(weight - original).mean() < 0.02 * np.square(original).mean()
        assert len(np.unique(weight)) > 16  # scales of their own


# ---- what was quantised ----------------------------------------------------------------------------------------------


def list_kinds(model: onnx.ModelProto) -> dict[str, str]:
    """How each Linear is multiplied, by its node's name."""
    makers = {name: node for node in model.graph.node for name in node.output}
    kinds = {}
    for node in model.graph.node:
        layer = node.name.rpartition("/")[0]
        if node.op_type in ("MatMulInteger", "MatMulNBits"):
            kinds[layer] = {"MatMulInteger": "int8", "MatMulNBits": "int4"}[node.op_type]
        elif node.op_type == "Gemm" and node.input[1] in makers:
            assert [makers[name].op_type for name in node.input] == ["DequantizeLinear"] * 3
            kinds[layer] = "int8-static"
    return kinds


@pytest.mark.parametrize("precision", PRECISIONS)
def test_exactly_the_named_linears_are_quantised(case: Case, precision: str) -> None:
    model = read(case.files[precision])
    assert list_kinds(model) == case.graphs[precision].layers
    matrices = [t for t in model.graph.initializer if t.data_type in (2, 3) and len(t.dims) > 1]  # uint8, int8
    assert len(matrices) == len(case.graphs[precision].layers)


def test_mixed_has_all_three_kinds(case: Case) -> None:
    assert set(case.graphs["mixed"].layers.values()) == {"int8", "int8-static", "int4"}


def test_one_linear_among_equal_shapes(case: Case) -> None:
    name = next(n for n in case.graphs["int8"].layers if n in ("layers.0.attn.v", "layers.0.p.attn.v"))
    model = read(backend.lower([build_graph(case.graphs["fp32"], "mixed", {name: "int8"})], TARGET, {}))
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    ((layer, kind),) = list_kinds(model).items()
    weight, scales = constants[f"{name}.weight_int8"].T, constants[f"{name}.weight_scale"]
    original = case.graphs["fp32"].exported.state_dict[f"{name}.weight"].detach().numpy()
    assert (layer, kind, weight.dtype) == (name, "int8", np.int8)
    assert np.allclose(scales, np.abs(original).max(1) / 127, rtol=1e-6)
    assert np.abs(weight * scales[:, None] - original).max() <= scales.max() * 0.51


def test_a_layer_that_is_not_there_is_an_error(case: Case) -> None:
    some = next(iter(case.graphs["int8"].layers))
    graph = build_graph(case.graphs["fp32"], "int8", {some: "int8", "layers.9.nothing": "int8"})
    with pytest.raises(RuntimeError, match=r"left out \['layers\.9\.nothing'\], took \[\] .* please report"):
        backend.lower([graph], TARGET, {})


def test_linears_of_one_value_share_its_quantisation(case: Case) -> None:
    # q, k and v read one value; so do they in the little block, and the keys and values of the skipped tokens
    spared = 2 + 2 + 1 if isinstance(case.model, BLViT) else 2
    layers, ops = case.graphs["int8"].layers, count_ops(read(case.files["int8"]))
    assert ops["MatMulInteger"] == len(layers)
    assert ops["DynamicQuantizeLinear"] == len(layers) - spared
    assert count_ops(read(case.files["int8-static"]))["QuantizeLinear"] == 2 * len(layers) - spared
