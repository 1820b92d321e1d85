"""Each precision of the LiteRT backend: the kernel against numpy, the model against PyTorch, what the file holds."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.fx import Interpreter

from bigvit_edge.artifact import Array, Artifact
from bigvit_edge.errors import UserError
from bigvit_edge.export.backends import litert
from bigvit_edge.export.backends.litert import contents, quantization
from bigvit_edge.export.graph import Graph, Ranges, matrix_products, weight_name
from bigvit_edge.export.rewrite import rewrite_all
from tests.export.backends.test_litert import answers, build, bytes_of, capture, cosine, list_ops, lower, only_method

aten = torch.ops.aten
INPUTS, OUTPUTS, ROWS = 128, 24, 5


class One(nn.Module):
    """A single Linear of an image's first rows."""

    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Linear(INPUTS, OUTPUTS)

    def forward(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.only(images.reshape(1, ROWS, INPUTS)))


def list_linears(graph: Graph) -> list[str]:
    """Those of the state dict, without the router's."""
    nodes = [node for node, _ in matrix_products(graph.exported) if node.target is aten.linear.default]
    names = [name.removesuffix(".weight") for node in nodes if (name := weight_name(graph.exported, node))]
    return [name for name in names if "router" not in name]


def measure_ranges(graph: Graph, images: Tensor) -> dict[str, Ranges]:
    """Smallest and largest value into and out of each Linear, over images [n, 3, S, S]."""
    nodes = [node for node, _ in matrix_products(graph.exported) if node.target is aten.linear.default]
    names = [weight_name(graph.exported, node) for node in nodes]
    seen: dict[str, tuple[list[Tensor], list[Tensor]]] = {}

    class Watch(Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:
            result = super().run_node(n)
            if n.target is aten.linear.default and (name := next(order)):
                source, _ = self.fetch_args_kwargs_from_env(n)
                into, out = seen.setdefault(name.removesuffix(".weight"), ([], []))
                into.append(source[0])
                out.append(result)
            return result

    for image in images:
        order = iter(names)
        with torch.no_grad():
            Watch(graph.exported.module()).run(image.unsqueeze(0))
    span = {
        name: [(float(min(t.min() for t in ts)), float(max(t.max() for t in ts))) for ts in both]
        for name, both in seen.items()
    }
    return {name: Ranges(*both) for name, both in span.items()}


def plan(graph: Graph, precision: str, group: int = 32) -> Graph:
    """Every Linear in that precision; in int4 those whose inputs are no multiple of the group in int8."""
    layers = {}
    for name in list_linears(graph):
        wanted = ("int8", "int4", "int8-static")[sum(name.encode()) % 3] if precision == "mixed" else precision
        whole = graph.exported.state_dict[name + ".weight"].shape[1] % group == 0
        layers[name] = "int8" if wanted == "int4" and not whole else wanted
    if precision in ("fp32", "fp16"):
        layers = {}
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    ranges = measure_ranges(graph, images) if "int8-static" in layers.values() else {}
    static = {name: ranges[name] for name, how in layers.items() if how == "int8-static"}
    return Graph(graph.exported, precision, layers, static, group=group)


# ---- one Linear, against the arithmetic written out ------------------------------------------------------------------


def round_rows(x: Array) -> Array:
    """int8 per row at run time, asymmetric, and back."""
    low, high = np.minimum(x.min(-1, keepdims=True), 0), np.maximum(x.max(-1, keepdims=True), 0)
    return round_range(x, low, high)


def round_range(x: Array, low: Any, high: Any) -> Array:
    scale = (high - low) / 255
    zero = np.clip(np.round(-128 - low / scale), -128, 127)
    return cast(Array, (np.clip(np.round(x / scale) + zero, -128, 127) - zero) * scale)


def round_weight(weight: Array, group: int, largest: int, exact: bool = True) -> Array:
    """[O, I] in steps of one scale per output channel and group of inputs; not exact: the scale has 8 bits."""
    parts = weight.reshape(len(weight), -1, group)
    scale = np.abs(parts).max(-1, keepdims=True) / largest
    if not exact:
        scale = torch.from_numpy(scale).to(torch.bfloat16).float().numpy()
    return cast(Array, (np.clip(np.round(parts / scale), -largest, largest) * scale).reshape(weight.shape))


def emulate(precision: str, group: int, model: One, x: Array, ranges: Ranges) -> Array:
    weight, bias = model.only.weight.detach().numpy(), model.only.bias.detach().numpy()
    if precision == "fp16":
        return x @ weight.astype(np.float16).astype(np.float32).T + bias
    if precision == "int4":
        return round_rows(x) @ round_weight(weight, group, 7, exact=False).T + bias
    weight = round_weight(weight, INPUTS, 127)
    if precision == "int8":
        return round_rows(x) @ weight.T + bias
    low, high = ranges.input
    return round_range(round_range(x, low, high) @ weight.T + bias, *ranges.output)


@pytest.mark.parametrize(
    ("precision", "group"), [("fp16", 32), ("int8", 32), ("int8-static", 32), ("int4", 32), ("int4", 64), ("int4", 128)]
)
def test_a_linear_computes_what_its_precision_says(precision: str, group: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = One().eval()
    image = torch.randn(1, 1, ROWS, INPUTS, generator=torch.Generator().manual_seed(2)) + 0.5
    graph = Graph(torch.export.export(model, (image,), strict=False))
    ranges = Ranges((-3.5, 4.0), (-2.5, 2.0))
    layers = {} if precision == "fp16" else {"only": precision}
    static = {"only": ranges} if precision == "int8-static" else {}
    file = lower(Graph(graph.exported, precision, layers, static, group=group))
    (tmp_path / "m.tflite").write_bytes(bytes_of(file))
    got = litert.load(tmp_path / "m.tflite")(image.numpy())
    x = image.numpy().reshape(1, ROWS, INPUTS)
    assert only_method(file).delegates == 1
    assert only_method(file).leftovers == ()
    with torch.no_grad():
        assert np.abs(got - model(image).numpy()).max() > 1e-4  # it is not float
    wrong = np.abs(got - emulate(precision, group, model, x, ranges))
    if precision == "int8-static":  # two ways to round half a step
        assert wrong.max() < 1.01 * (ranges.output[1] - ranges.output[0]) / 255
        assert (wrong > 1e-5).mean() < 0.05
    else:
        assert wrong.max() < 1e-5


# ---- a model ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return build(0.5)


@pytest.fixture(scope="module")
def graph(model: nn.Module) -> Graph:
    return Graph(rewrite_all(capture(model).exported))


@pytest.fixture(scope="module")
def files(graph: Graph) -> Mapping[str, Artifact]:
    return {name: lower(plan(graph, name)) for name in ("fp32", "fp16", "int8", "int8-static", "int4", "mixed")}


@pytest.mark.parametrize(
    ("precision", "least"), [("fp16", 0.99999), ("int8-static", 0.99), ("int4", 0.93), ("mixed", 0.96)]
)
def test_near_pytorch_but_not_equal(
    precision: str, least: float, model: nn.Module, files: Mapping[str, Artifact], tmp_path: Path
) -> None:
    got, expected = answers(model, files[precision], tmp_path)
    assert least < cosine(got, expected)
    assert np.abs(got - expected).max() > 1e-5


def count_weights(file: Artifact) -> Counter[str]:
    """Types of the constants that FULLY_CONNECTED ops multiply by, and of what they read and write."""
    graph = contents.read_model(bytes_of(file)).subgraphs[0]
    kinds: Counter[str] = Counter()
    for op in list_ops(file):
        if op.name == "FULLY_CONNECTED":
            numbers = (op.inputs[0], op.inputs[1], op.outputs[0])
            kinds[" ".join(contents.TYPE_NAMES[graph.tensors[n].type] for n in numbers)] += 1
    return kinds


SCHEMES = {"int8": "FLOAT32 INT8 FLOAT32", "int8-static": "INT8 INT8 INT8", "int4": "FLOAT32 INT4 FLOAT32"}


@pytest.mark.parametrize("precision", ["int8", "int8-static", "int4", "mixed"])
def test_exactly_the_named_layers_in_exactly_their_scheme(
    precision: str, graph: Graph, files: Mapping[str, Artifact]
) -> None:
    layers = plan(graph, precision).layers
    found = count_weights(files[precision])
    for how, scheme in SCHEMES.items():
        assert found[scheme] == sum(value == how for value in layers.values())
    assert found["FLOAT32 FLOAT32 FLOAT32"] == 3  # two routers and the patches
    assert len(set(layers.values())) == (3 if precision == "mixed" else 2 if precision == "int4" else 1)


@pytest.mark.parametrize("precision", ["fp16", "int8", "int8-static", "int4", "mixed"])
def test_quantising_leaves_nothing_more_to_the_interpreter(precision: str, files: Mapping[str, Artifact]) -> None:
    method, plain = only_method(files[precision]), only_method(files["fp32"])
    assert method.delegates == plain.delegates
    assert Counter((left.op, left.layer) for left in method.leftovers) == Counter(
        (left.op, left.layer) for left in plain.leftovers
    )
    assert plain.fragments.items() <= method.fragments.items()


def test_half_precision_is_of_every_matrix(files: Mapping[str, Artifact]) -> None:
    model = contents.read_model(bytes_of(files["fp16"]))
    tensors = model.subgraphs[0].tensors
    assert not [t.name for t in tensors if (v := contents.read_floats(model, t)) is not None and v.ndim > 1]
    halves = sum(contents.TYPE_NAMES[t.type] == "FLOAT16" for t in tensors)
    assert halves == Counter(op.name for op in list_ops(files["fp16"]))["DEQUANTIZE"] > len(list_linears_of(files))


def list_linears_of(files: Mapping[str, Artifact]) -> list[str]:
    return [op.output for op in list_ops(files["fp32"]) if op.name == "FULLY_CONNECTED"]


def test_sizes(files: Mapping[str, Artifact]) -> None:
    size = {name: len(bytes_of(file)) for name, file in files.items()}
    assert size["int4"] < size["int8"] < size["fp16"] < size["fp32"]


def test_old_runtimes_refuse_what_they_do_not_know(files: Mapping[str, Artifact]) -> None:
    versions = {}
    for name, file in files.items():
        codes = contents.read_model(bytes_of(file)).operatorCodes
        versions[name] = {contents.name_op(code): code.version for code in codes}
    assert {name: version["FULLY_CONNECTED"] for name, version in versions.items() if name.startswith("int")} == {
        "int8": 12,
        "int8-static": 12,
        "int4": 14,
    }
    assert versions["mixed"]["FULLY_CONNECTED"] == 14
    assert versions["fp16"]["DEQUANTIZE"] == 3


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["another group", "another range", "a layer too many", "a layer too few"])
def test_a_file_that_is_not_as_planned_is_an_error(damage: str, graph: Graph) -> None:
    made = plan(graph, "mixed")
    name = next(name for name, how in made.layers.items() if how == "int8-static")
    ranges = made.ranges | {name: Ranges(made.ranges[name].input, (-50, 50))}
    without = {layer: how for layer, how in made.layers.items() if layer != name}
    expected, words = {
        "another group": (Graph(made.exported, "mixed", made.layers, made.ranges, 64), "'int4'.*'something else of"),
        "another range": (
            Graph(made.exported, "mixed", made.layers, ranges),
            f"'{name}', 'int8-static'.*'something else",
        ),
        "a layer too many": (
            Graph(made.exported, "mixed", without, made.ranges),
            rf"left out \[\] and made .*'{name}'",
        ),
        "a layer too few": (Graph(made.exported, "mixed", {**made.layers, "x": "int8"}, made.ranges), "left out .*'x'"),
    }[damage]
    with pytest.raises(RuntimeError, match=words + ".* please report"):
        check_against(made, expected)


def check_against(made: Graph, expected: Graph) -> None:
    """The file that one graph makes, held to another."""
    data, _nodes = litert.lower_float([made], [litert.SINGLE])
    model = contents.read_model(data)
    linears = quantization.find_linears(model, 0, made.exported)
    ranges = [quantization.find_ranges(model, 0, graph, linears) for graph in (made, expected)]
    done = contents.read_model(quantization._run_quantizer(data, [made], [linears], ranges[:1]))
    quantization._check_signature(done, 0, expected, linears, ranges[1])


def test_a_bias_that_a_batch_norm_gave_is_the_linears_own() -> None:
    model = nn.Sequential(nn.Linear(INPUTS, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU()).eval()
    nn.init.normal_(model[1].bias)
    made = Graph(rewrite_all(torch.export.export(model, (torch.zeros(1, INPUTS),), strict=False)))
    found = quantization.find_linears(
        contents.read_model(litert.lower_float([made], [litert.SINGLE])[0]), 0, made.exported
    )
    (linear,) = found.values()
    assert linear.convert_range((-1.0, 2.0)) == (-1.0, 2.0)


def test_other_groups_are_refused(graph: Graph) -> None:
    wide = Graph(graph.exported, "int4", {"layers.0.p.mlp.fc2": "int4"}, group=512)
    with pytest.raises(UserError, match=r"quant.group=512; expected 32, 64, 128, 256 for litert"):
        lower(wide)


def test_weights_beyond_half_precision_are_refused() -> None:
    model = One().eval()
    with torch.no_grad():
        model.only.weight[3, 4] = -70000
    graph = Graph(torch.export.export(model, (torch.zeros(1, 1, ROWS, INPUTS),), strict=False))
    with pytest.raises(UserError, match=r"a weight of 70000 in .*; expected no more than 65504"):
        lower(Graph(graph.exported, "fp16"))


def test_groups_of_tiny_weights_are_stored_as_zeros(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = One().eval()
    with torch.no_grad():
        model.only.weight[3, :32] = 1e-9 * torch.randn(32)
    image = torch.randn(1, 1, ROWS, INPUTS)
    exported = torch.export.export(model, (image,), strict=False)
    file = lower(Graph(exported, "int4", {"only": "int4"}))
    (tmp_path / "m.tflite").write_bytes(bytes_of(file))
    got = litert.load(tmp_path / "m.tflite")(image.numpy())
    with torch.no_grad():
        model.only.weight[3, :32] = 0
    expected = (
        round_rows(image.numpy().reshape(1, ROWS, INPUTS))
        @ round_weight(model.only.weight.detach().numpy() + 1e-30, 32, 7, exact=False).T
        + model.only.bias.detach().numpy()
    )
    assert np.abs(got - expected).max() < 1e-5


def test_linears_that_disagree_about_their_input_are_an_error(graph: Graph) -> None:
    planned = plan(graph, "int8-static")
    twins = ["layers.0.p.attn.k", "layers.0.p.attn.v"]
    ranges = {name: planned.ranges[name] for name in twins}
    ranges[twins[1]] = Ranges((-9, 9), ranges[twins[1]].output)
    with pytest.raises(RuntimeError, match=r"attn\.v gives .* the range \(-9, 9\)"):
        lower(Graph(graph.exported, "int8-static", dict.fromkeys(twins, "int8-static"), ranges))


class Scaled(nn.Module):
    """A Linear followed by what the converter folds into it, rows of both signs, and a bias moved."""

    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Linear(INPUTS, OUTPUTS)
        self.scale = nn.Parameter(torch.linspace(-2, 3, OUTPUTS))

    def forward(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.only(images.reshape(1, ROWS, INPUTS)) * self.scale + 5)


def test_ranges_follow_folded_constants(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Scaled().eval()
    image = torch.randn(1, 1, ROWS, INPUTS)
    exported = torch.export.export(model, (image,), strict=False)
    with torch.no_grad():
        out = model.only(image.reshape(1, ROWS, INPUTS))
        expected = model(image).numpy()
    ranges = {"only": Ranges((float(image.min()), float(image.max())), (float(out.min()), float(out.max())))}
    file = lower(Graph(exported, "int8-static", {"only": "int8-static"}, ranges))
    (tmp_path / "m.tflite").write_bytes(bytes_of(file))
    got = litert.load(tmp_path / "m.tflite")(image.numpy())
    assert np.abs(got - expected).max() < 0.1  # clipped, it would be off by several units
    assert np.abs(expected).max() > 6
