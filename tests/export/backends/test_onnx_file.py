"""The .onnx files themselves: what is in them, what the runtime makes of them, and Linears that are not a ViT's."""

import gc
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

from bigvit_edge.artifact import Artifact, list_versions
from bigvit_edge.export.backends import onnx as backend
from bigvit_edge.export.backends.onnx import model as floats
from bigvit_edge.export.graph import Graph, Ranges
from bigvit_edge.export.rewrite import rewrite_all
from bigvit_edge.models.blvit import BLViT
from bigvit_edge.runtime.formats import onnx as runtime
from bigvit_edge.target import Target

TARGET = cast(Target, SimpleNamespace())  # not read by this backend
METADATA = {"model": "tiny", "precision": "any", "keep": "0.5", "labels": '["zero", "eins"]'}
PRECISIONS = ("fp32", "fp16", "int8", "int8-static", "int4")
IMAGE = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
WIDE = Ranges((-8, 8), (-16, 16))


def capture(model: nn.Module, size: int = 16) -> Graph:
    exported = torch.export.export(model.eval(), (torch.zeros(1, 3, size, size),), strict=False)
    return Graph(rewrite_all(exported), keep=0.5)


def lower(graph: Graph, precision: str, layers: dict[str, str] | None = None) -> Artifact:
    ranges = dict.fromkeys(layers or {}, WIDE)
    given = Graph(graph.exported, precision, layers or {}, ranges, 32, graph.keep)
    return backend.lower([given], TARGET, METADATA)


@pytest.fixture(scope="module")
def graph() -> Graph:
    torch.manual_seed(0)
    shape = dict(
        image_size=16, patch=8, dim=32, little_dim=32, depth=1, head_dim=16, little_head_dim=16, num_classes=10
    )
    model = BLViT(**shape, keep=0.5)
    for name, parameter in model.named_parameters():
        if "gamma" in name:
            nn.init.constant_(parameter, 0.1)
    return capture(model)


@pytest.fixture(scope="module")
def layers(graph: Graph) -> list[str]:
    weights = [name for name, data in graph.exported.state_dict.items() if name.endswith("weight") and data.dim() == 2]
    return [name.removesuffix(".weight") for name in weights if "router" not in name]


@pytest.fixture(scope="module")
def files(graph: Graph, layers: list[str]) -> dict[str, Artifact]:
    quantized = {p: dict.fromkeys(layers, p) if p.startswith("int") else {} for p in PRECISIONS}
    return {precision: lower(graph, precision, quantized[precision]) for precision in PRECISIONS}


def read(file: Artifact) -> onnx.ModelProto:
    return onnx.load_from_string(cast(bytes, file.data))


def optimize(data: Any, folder: Path, options: Any = None) -> onnx.ModelProto:
    """What the runtime makes of a file."""
    options = options or runtime.set_options(1)
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "optimized.onnx")


def count_ops(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def run(data: Any, folder: Path, image: Tensor = IMAGE) -> Any:
    (folder / "model.onnx").write_bytes(data)
    return backend.load(folder / "model.onnx")(image.numpy())


# ---- what is in them -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_head_of_the_file(files: dict[str, Artifact], precision: str) -> None:
    model = read(files[precision])
    onnx.checker.check_model(model, full_check=precision != "int4")  # no shapes are known for another domain's ops
    contrib = {"com.microsoft": 1} if precision == "int4" else {}
    assert {opset.domain: opset.version for opset in model.opset_import} == {"": 20, **contrib}
    assert (model.ir_version, model.producer_name, model.graph.name) == (9, "bigvit-edge", "tiny")
    assert {prop.key: prop.value for prop in model.metadata_props} == METADATA
    values = [(v.name, v.type.tensor_type.elem_type, [d.dim_value for d in v.type.tensor_type.shape.dim])
              for v in (*model.graph.input, *model.graph.output)]  # fmt: skip
    assert values == [("pixel_values", TensorProto.FLOAT, [1, 3, 16, 16]), ("logits", TensorProto.FLOAT, [1, 10])]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_nothing_is_left_in_the_file(files: dict[str, Artifact], precision: str) -> None:
    model = read(files[precision])
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    used = {name for node in model.graph.node for name in node.input}
    assert constants.keys() <= used
    for node in model.graph.node:
        assert node.op_type not in ("Constant", "Identity")
        assert node.op_type == "DequantizeLinear" or not all(name in constants for name in node.input)
        assert not node.metadata_props
        assert not node.doc_string
    assert all(not t.external_data and t.data_location == TensorProto.DEFAULT for t in constants.values())
    assert b"Traceback" not in files[precision].data
    assert __file__.encode() not in cast(bytes, files[precision].data)
    types = {t.data_type for t in constants.values() if len(t.dims) > 1 and np.prod(t.dims) > 100}
    assert (TensorProto.FLOAT in types) == (precision != "fp16")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_nodes_carry_their_layers(files: dict[str, Artifact], precision: str, graph: Graph) -> None:
    model = read(files[precision])
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    modules = {".".join(name.split(".")[:i]) for name in graph.exported.state_dict for i in range(6)}
    assert {floats.layer_of(node) for node in model.graph.node} <= modules
    where = {node.op_type: floats.layer_of(node) for node in reversed(model.graph.node)}
    assert where["LayerNormalization"] == "layers.0.router.norm"
    assert where["TopK"] == "layers.0"
    assert where["Gelu"] == "layers.0.p.mlp"


def test_ops_stay_whole(files: dict[str, Artifact]) -> None:
    ops = count_ops(read(files["fp32"]))
    assert (ops["LayerNormalization"], ops["Gelu"], ops["Softmax"], ops["TopK"]) == (6, 2, 3, 1)
    assert not ops.keys() & {"Erf", "ReduceMean", "Sqrt", "Expand", "Where", "Shape", "Cast", "GatherND", "ScatterND"}


def test_linears_are_stored_as_they_are_multiplied(files: dict[str, Artifact], graph: Graph) -> None:
    model = read(files["fp32"])
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    product = next(node for node in model.graph.node if node.name == "layers.0.e.mlp.fc1/MatMul")
    assert product.input[1] == "layers.0.e.mlp.fc1.weight"
    weight = graph.exported.state_dict["layers.0.e.mlp.fc1.weight"].numpy(force=True)
    assert np.array_equal(constants[product.input[1]], weight.T)


def test_the_artifact(files: dict[str, Artifact]) -> None:
    for precision, file in files.items():
        assert (file.format, file.precision) == ("onnx", precision)
        assert file.tools == list_versions(backend.PACKAGES)
        (method,) = file.methods
        assert (method.name, method.keep, method.delegates, method.leftovers) == ("main", 0.5, 0, ())
        assert method.fragments == {}
    sizes = {precision: len(file.data) for precision, file in files.items()}
    assert sizes["fp16"] < 0.6 * sizes["fp32"]
    assert sizes["int4"] < 0.85 * sizes["int8"] < 0.6 * sizes["fp32"]


def test_same_graph_same_bytes_and_untouched(graph: Graph, layers: list[str], files: dict[str, Artifact]) -> None:
    def show() -> tuple[str, str, float]:
        exported = graph.exported
        return str(exported.graph), str(exported.call_spec), float(exported.state_dict["head.weight"].detach().sum())

    before = show()
    floats._models.clear()
    for precision in ("fp32", "int8", "int8-static", "int4"):
        again = lower(graph, precision, dict.fromkeys(layers, precision) if "int" in precision else {})
        assert again.data == files[precision].data
    assert show() == before


def test_the_float_model_goes_with_its_graph() -> None:
    floats._models.clear()
    gc.collect()
    small = capture(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), 8)
    lower(small, "fp32")
    assert len(floats._models) == 1
    del small
    gc.collect()
    assert len(floats._models) == 0


# ---- what the runtime makes of them ----------------------------------------------------------------------------------


def test_int8_becomes_one_op_a_linear(files: dict[str, Artifact], layers: list[str], tmp_path: Path) -> None:
    ops = count_ops(optimize(files["int8"].data, tmp_path))
    assert ops["DynamicQuantizeMatMul"] + ops["MatMulIntegerToFloat"] == len(layers)
    assert ops["MatMulIntegerToFloat"] > 0  # those that share their input
    assert not ops.keys() & {"MatMulInteger", "Cast"}


def test_static_int8_becomes_one_op_a_linear(files: dict[str, Artifact], layers: list[str], tmp_path: Path) -> None:
    ops = count_ops(optimize(files["int8-static"].data, tmp_path))
    assert ops["QGemm"] == len(layers)
    assert ops["QuantizeLinear"] + ops["DequantizeLinear"] < 2 * len(layers)  # of activations alone


def test_int4_stays_one_op_a_linear_with_its_bias(
    files: dict[str, Artifact], layers: list[str], tmp_path: Path
) -> None:
    model = optimize(files["int4"].data, tmp_path)
    assert count_ops(model)["MatMulNBits"] == len(layers)
    (product,) = (node for node in model.graph.node if node.name.startswith("head/"))
    assert [a.i for a in product.attribute if a.name == "accuracy_level"] == [4]


CPUS = {
    "avx2 only": ("x86_64", "flags\t: fpu sse4_2 avx avx2 fma bmi2\n", True),
    "avx-512 without vnni": ("x86_64", "flags\t: avx2 avx512f avx512bw avx512vl\n", True),
    "avx-512 with vnni": ("x86_64", "flags\t: avx2 avx512f avx512_vnni\n", False),
    "avx vnni": ("AMD64", "flags\t: avx2 avx_vnni\n", False),
    "unknown": ("x86_64", None, True),
    "arm": ("aarch64", "Features\t: fp asimd asimddp\n", False),
}


@pytest.mark.parametrize("cpu", CPUS)
def test_which_processors_saturate(cpu: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine, text, saturates = CPUS[cpu]
    monkeypatch.setattr(runtime.platform, "machine", lambda: machine)
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    assert runtime.saturates(tmp_path / "cpuinfo") == saturates


@pytest.mark.parametrize("precision", ["int8", "int8-static"])
def test_where_int8_saturates_the_runtime_takes_unsigned_weights(
    files: dict[str, Artifact], precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run(files[precision].data, tmp_path)
    monkeypatch.setattr(runtime, "saturates", lambda: True)
    model = optimize(files[precision].data, tmp_path)
    if runtime.platform.machine() == "x86_64":
        assert not [t.name for t in model.graph.initializer if t.data_type == TensorProto.INT8 and len(t.dims) > 1]
    assert np.allclose(run(files[precision].data, tmp_path), expected, atol=1e-5)


# ---- Linears of other shapes -----------------------------------------------------------------------------------------


class Shapes(nn.Module):
    """A Linear on four dimensions, one without bias, one called twice, one whose bias is far beyond its products, one
    of a constant, and one so large that the exporter leaves its reshaped weight to the runtime."""

    def __init__(self) -> None:
        super().__init__()
        self.four, self.bare = nn.Linear(16, 32), nn.Linear(32, 32, bias=False)
        self.twice, self.far, self.patches = nn.Linear(32, 32), nn.Linear(32, 10), nn.Conv2d(3, 1024, 8, stride=8)
        self.table, self.places = nn.Linear(32, 32), nn.Buffer(torch.linspace(-1, 1, 96).view(3, 32))
        with torch.no_grad():
            self.far.weight[3] = 0
            self.far.bias[3] = 1e5

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)  # [1, 4, 1024]
        x = self.bare(self.four(images)).mean(2) + tokens.mean(2).mean(1) + self.table(self.places)  # [1, 3, 32]
        return cast(Tensor, self.far(self.twice(self.twice(x)).mean(1)) * 1.0)  # [1, 10]


@pytest.mark.parametrize(("precision", "near"), [("fp32", 1e-5), ("int8", 0.02), ("int8-static", 0.2), ("int4", 0.1)])
def test_linears_of_other_shapes(precision: str, near: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = Shapes().eval()
    names = ("four", "bare", "twice", "far", "table")
    quantized = {n: "int8" if n == "four" and precision == "int4" else precision for n in names if n != "table"}
    ranges = {name: Ranges((-3, 3), (-3, 3)) for name in names} | {"far": Ranges((-1, 1), (-1, 1e5))}
    plain = capture(model)
    graph = Graph(plain.exported, precision, {} if precision == "fp32" else quantized, ranges)
    file = backend.lower([graph], TARGET, {})
    got, expected = run(file.data, tmp_path), model(IMAGE).detach().numpy()
    assert got[0, 3] == pytest.approx(1e5, rel=1e-3)
    if precision != "int8-static":  # there the step of the output is 400
        assert np.abs(np.delete(got - expected, 3, axis=1)).max() < near
    assert count_ops(read(file))["Transpose"] == 1  # of the image's patches
    monkeypatch.setattr(runtime, "saturates", lambda: True)
    assert np.allclose(run(file.data, tmp_path), got, atol=1e-4)
    twice = [node.op_type for node in read(file).graph.node if floats.layer_of(node) == "twice"]
    assert "table" not in {floats.layer_of(node) for node in read(file).graph.node}  # a constant now
    assert sum(op in ("MatMul", "MatMulInteger", "MatMulNBits", "Gemm") for op in twice) == 2


class Attention(nn.Module):
    """With learned positions as its mask, PyTorch's one op for attention has other strides than its decomposition."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.bias = nn.Linear(16, 48), nn.Parameter(torch.zeros(2, 16, 16))

    def forward(self, images: Tensor) -> Tensor:
        q, k, v = self.qkv(images.view(3, 16, 16)).view(3, 16, 2, 24).transpose(1, 2).chunk(3, dim=3)  # [3, 2, 16, 8]
        x = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=self.bias[None])
        return x.transpose(1, 2).reshape(3, 4, 4, -1).mean(0).mean(0)[:1]  # [1, 16]


def test_attention_of_others(tmp_path: Path) -> None:
    model = Attention()
    file = lower(capture(model), "fp32")
    assert np.abs(run(file.data, tmp_path) - model(IMAGE).numpy(force=True)).max() < 1e-6
    assert not count_ops(read(file)).keys() & {"Identity"}
