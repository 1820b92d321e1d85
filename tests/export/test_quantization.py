import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from bigvit_edge.export.graph import Graph, Ranges, layer_of
from bigvit_edge.export.quantization import (
    aten,
    choose_scale,
    insert_quantization,
    ops,
    quantize_groups_weight,
    quantize_rows_weight,
)
from bigvit_edge.models.blvit import BLViT

WIDE = Ranges((-4.0, 4.0), (-4.0, 4.0))


def linears(model: nn.Module) -> list[str]:
    return [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and "router" not in n]


def graph_of(exported: ExportedProgram, how: str, layers: list[str], group: int = 32) -> Graph:
    return Graph(exported, how, dict.fromkeys(layers, how), dict.fromkeys(layers, WIDE), group)


def measure_ranges(model: nn.Module, images: Tensor) -> dict[str, Ranges]:
    """What each Linear meets and gives on these images."""
    ranges = {}

    def note(name: str, inputs: Tensor, output: Tensor) -> None:
        low_high = [(float(x.detach().amin()), float(x.detach().amax())) for x in (inputs, output)]
        ranges[name] = Ranges(*low_high)

    linears = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    hooks = [m.register_forward_hook(lambda m, i, o, name=name: note(name, i[0], o)) for name, m in linears]
    model(images)
    for hook in hooks:
        hook.remove()
    return ranges


def count(program: ExportedProgram, target: object) -> int:
    return len(program.graph.find_nodes(op="call_function", target=target))


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def model() -> BLViT:
    torch.manual_seed(0)
    sizes = dict(image_size=48, patch=16, dim=64, little_dim=32, depth=1, head_dim=16, little_head_dim=8, num_classes=7)
    return BLViT(**sizes).eval()


@pytest.fixture(scope="module")
def exported(model: BLViT) -> ExportedProgram:
    return torch.export.export(model, (torch.zeros(1, 3, 48, 48),))


# ---- one Linear, against arithmetic written down here ----------------------------------------------------------------


def round_to_byte(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Asymmetric, in 256 steps from low to high."""
    step = (high - low) / 255
    zero = (-128 - low / step).round()
    return ((x / step + zero).round().clamp(-128, 127) - zero) * step


def round_by_row(x: Tensor) -> Tensor:
    return round_to_byte(x, x.amin(-1, keepdim=True).clamp(max=0), x.amax(-1, keepdim=True).clamp(min=0))


def round_weight(weight: Tensor) -> Tensor:
    scale = weight.abs().amax(1, keepdim=True) / 127
    return (weight / scale).round() * scale


@pytest.fixture
def linear() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 4)).eval()


@torch.no_grad()
def test_int8(linear: nn.Sequential) -> None:
    x = draw(2, 3, 64)
    program = insert_quantization(graph_of(torch.export.export(linear, (x,)), "int8", ["0"]))
    rows, weight = round_by_row(x), round_weight(linear[0].weight)
    # a value may round the other way at a tie: a step of a row times a weight
    atol = float((x.amax() - x.amin()) / 255 * weight.abs().max())
    assert torch.allclose(program.module()(x), rows @ weight.T + linear[0].bias, atol=atol)
    assert not torch.allclose(program.module()(x), linear(x), atol=1e-5)


@torch.no_grad()
def test_static_int8(linear: nn.Sequential) -> None:
    x = draw(2, 3, 64)
    ranges = Ranges((-1.5, 2.0), (0.1, 0.9))  # narrower than the values: they saturate
    graph = Graph(torch.export.export(linear, (x,)), "int8-static", {"0": "int8-static"}, {"0": ranges})
    answer = insert_quantization(graph).module()(x)
    inputs = round_to_byte(x, torch.tensor(-1.5), torch.tensor(2.0))
    assert float(inputs.max()) < 2.01  # they do
    product = inputs @ round_weight(linear[0].weight).T + linear[0].bias
    expected = round_to_byte(product, torch.tensor(0.0), torch.tensor(0.9))  # the range has grown to hold zero
    assert torch.allclose(answer, expected, atol=0.9 / 255 * 1.01)
    assert float(answer.min()) == 0.0
    assert float(answer.max()) == pytest.approx(0.9)


@torch.no_grad()
@pytest.mark.parametrize("group", [32, 64])
def test_int4(linear: nn.Sequential, group: int) -> None:
    x = draw(2, 3, 64)
    program = insert_quantization(graph_of(torch.export.export(linear, (x,)), "int4", ["0"], group))
    integers, scale = (program.constants[f"0.weight.{part}"] for part in ("int4", "scale"))
    assert scale.shape == (4, 64 // group)
    weight = torch.stack(
        [torch.stack([integers[o, i] * scale[o, i // group] for i in range(64)]) for o in range(4)]
    )  # [4, 64]
    atol = float((x.amax() - x.amin()) / 255 * weight.abs().max())
    assert torch.allclose(program.module()(x), round_by_row(x) @ weight.T + linear[0].bias, atol=atol)


# ---- the parts that others use too -----------------------------------------------------------------------------------


def test_a_weight_by_rows() -> None:
    weight = draw(5, 40) * torch.tensor([1e-3, 1, 10, 100, 0]).unsqueeze(1)
    integers, scale = quantize_rows_weight(weight)
    assert (integers.dtype, integers.shape, scale.shape) == (torch.int8, (5, 40), (5,))
    assert int(integers.abs().max()) == 127
    assert torch.all((integers * scale.unsqueeze(1) - weight).abs() <= scale.unsqueeze(1) * 0.501)
    assert torch.equal(integers[4], torch.zeros(40, dtype=torch.int8))


def test_a_weight_by_groups() -> None:
    weight = draw(3, 96) * torch.tensor([1e-3, 1, 0]).repeat_interleave(32)
    integers, scale = quantize_groups_weight(weight, 32)
    assert (integers.dtype, integers.shape, scale.shape) == (torch.int8, (3, 96), (3, 3))
    assert -8 <= int(integers.min()) <= -6
    assert 6 <= int(integers.max()) <= 7
    assert torch.equal(scale, scale.bfloat16().float())
    back = integers.reshape(3, 3, 32) * scale.unsqueeze(2)
    error = (back - weight.reshape(3, 3, 32)).square().sum(2)  # [3, 3]
    plain = (weight.reshape(3, 3, 32).abs().amax(2, keepdim=True) / 7).clamp(min=1e-7).bfloat16().float()
    unclipped = ((weight.reshape(3, 3, 32) / plain).round() * plain - weight.reshape(3, 3, 32)).square().sum(2)
    assert torch.all(error <= unclipped)
    assert float(error.sum()) < 0.95 * float(unclipped.sum())  # clipping gains
    assert torch.all(error[:, 2] == 0)


def test_a_weight_that_its_groups_do_not_divide() -> None:
    with pytest.raises(ValueError, match="48 inputs; expected a multiple of the group, 32"):
        quantize_groups_weight(torch.ones(2, 48), 32)


@pytest.mark.parametrize("span", [(-1.0, 3.0), (0.5, 2.0), (-3.0, -1.0), (0.0, 0.0), (-1e-30, 1e-30)])
def test_zero_is_met_exactly(span: tuple[float, float]) -> None:
    scale, zero = choose_scale(span)
    assert scale > 0
    assert -128 <= zero <= 127
    low, high = (-128 - zero) * scale, (127 - zero) * scale
    assert low - scale <= min(span[0], 0) <= max(span[1], 0) <= high + scale
    assert (zero - zero) * scale == 0


# ---- a whole model ---------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize(("how", "least"), [("int8", 0.999), ("int8-static", 0.99), ("int4", 0.98)])
def test_close_to_float(model: BLViT, exported: ExportedProgram, how: str, least: float) -> None:
    images = draw(1, 3, 48, 48)
    graph = Graph(exported, how, dict.fromkeys(linears(model), how), measure_ranges(model, images))
    cosine = torch.nn.functional.cosine_similarity(insert_quantization(graph).module()(images), model(images))
    assert least < float(cosine) < 0.99999999


def test_leaves_the_original_alone(model: BLViT, exported: ExportedProgram) -> None:
    graph, weights, constants = str(exported.graph), set(exported.state_dict), set(exported.constants)
    insert_quantization(graph_of(exported, "int8-static", linears(model)))
    assert (str(exported.graph), set(exported.state_dict), set(exported.constants)) == (graph, weights, constants)


def test_one_quantisation_for_each_value_read(model: BLViT, exported: ExportedProgram) -> None:
    kinds = ("int8", "int4")  # of the same input
    layers = {layer: kinds[i % 2] for i, layer in enumerate(linears(model))}
    program = insert_quantization(Graph(exported, "mixed", layers))
    assert count(program, ops.dequantize_per_channel.default) == list(layers.values()).count("int8")
    assert count(program, ops.dequantize_per_channel_group.default) == list(layers.values()).count("int4")
    inputs = {n.args[0] for n in exported.graph.find_nodes(op="call_function", target=aten.linear.default)}
    assert count(program, ops.choose_qparams_per_token_asymmetric.default) == len(inputs) - 1  # the router stays float


def test_static_inputs_are_shared_where_their_ranges_agree(exported: ExportedProgram) -> None:
    q, k, v = (f"layers.0.e.attn.{part}" for part in "qkv")
    graph = graph_of(exported, "int8-static", [q, k, v])
    program = insert_quantization(graph)
    assert count(program, ops.quantize_per_tensor.default) == 1 + 3
    assert count(program, ops.dequantize_per_tensor.default) == 1 + 3
    other = Graph(exported, "int8-static", graph.layers, {**graph.ranges, q: Ranges((-1.0, 1.0), (-4.0, 4.0))})
    assert count(insert_quantization(other), ops.quantize_per_tensor.default) == 2 + 3


def test_only_the_named_layers_change(model: BLViT, exported: ExportedProgram) -> None:
    program = insert_quantization(graph_of(exported, "int8", ["layers.0.p.mlp.fc1"]))
    quantised = [
        layer_of(n)
        for n in program.graph.find_nodes(op="call_function", target=aten.linear.default)
        if n.args[1].op != "placeholder"
    ]
    assert quantised == ["layers.0.p.mlp.fc1"]
    assert program.constants["layers.0.p.mlp.fc1.weight.int8"].dtype is torch.int8
    assert set(exported.state_dict) - set(program.state_dict) == {"layers.0.p.mlp.fc1.weight"}


@pytest.mark.parametrize("how", ["int8", "int8-static", "int4"])
def test_every_new_op_knows_its_layer(model: BLViT, exported: ExportedProgram, how: str) -> None:
    program = insert_quantization(graph_of(exported, how, linears(model)))
    new = [n for n in program.graph.nodes if n.op == "call_function" and "quantize" in str(n.target)]
    assert new
    assert {layer_of(n) for n in new} <= set(linears(model))


@pytest.mark.parametrize("how", ["int8", "int8-static", "int4"])
def test_the_program_can_be_decomposed_again(model: BLViT, exported: ExportedProgram, how: str) -> None:
    images = draw(1, 3, 48, 48)
    program = insert_quantization(graph_of(exported, how, linears(model)))
    assert torch.equal(program.run_decompositions({}).module()(images), program.module()(images))


def test_a_program_rewritten_beforehand(model: BLViT, exported: ExportedProgram) -> None:
    images, graph = draw(1, 3, 48, 48), graph_of(exported, "int8", linears(model))
    rewritten = exported.run_decompositions({aten.gelu.default: lambda x: x * torch.sigmoid(1.702 * x)})
    answer = insert_quantization(graph, rewritten).module()(images)
    assert torch.equal(answer, insert_quantization(graph_of(rewritten, "int8", linears(model))).module()(images))
    assert not torch.equal(answer, insert_quantization(graph).module()(images))


class Twice(nn.Module):
    """One Linear, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.fc(x))  # type: ignore[no-any-return]


@torch.no_grad()
@pytest.mark.parametrize("how", ["int8", "int8-static", "int4"])
def test_a_linear_called_twice(how: str) -> None:
    torch.manual_seed(0)
    model, x = Twice().eval(), draw(1, 3, 32)
    program = insert_quantization(graph_of(torch.export.export(model, (x,)), how, ["fc"]))
    assert list(program.state_dict) == ["fc.bias"]
    assert torch.allclose(program.module()(x), model(x), atol=0.15)
    assert not torch.allclose(program.module()(x), model(x), atol=1e-5)


@torch.no_grad()
def test_weights_alone(model: BLViT, exported: ExportedProgram) -> None:
    """For runtimes that quantise no rows; static int8 keeps its fixed scales there too."""
    layers = {layer: ("int8", "int4", "int8-static")[i % 3] for i, layer in enumerate(linears(model))}
    static = list(layers.values()).count("int8-static")
    graph = Graph(exported, "mixed", layers, dict.fromkeys(layers, WIDE))
    program = insert_quantization(graph, rows=False)
    assert count(program, ops.choose_qparams_per_token_asymmetric.default) == 0
    assert static < count(program, ops.quantize_per_tensor.default) <= 2 * static
    only_int8 = Graph(exported, "int8", dict.fromkeys(linears(model), "int8"))
    images = draw(1, 3, 48, 48)
    alone, both = (insert_quantization(only_int8, rows=rows).module()(images) for rows in (False, True))
    assert float((alone - model(images)).abs().max()) < float((both - model(images)).abs().max())


# ---- what cannot be --------------------------------------------------------------------------------------------------


def test_an_unknown_layer_is_named(exported: ExportedProgram) -> None:
    with pytest.raises(ValueError, match=r"no Linear in the graph for layers\.9\.fc"):
        insert_quantization(graph_of(exported, "int8", ["layers.9.fc"]))


def test_a_missing_range_is_named(exported: ExportedProgram) -> None:
    with pytest.raises(ValueError, match=r"no range for head"):
        insert_quantization(Graph(exported, "int8-static", {"head": "int8-static"}))


def test_a_layer_that_the_group_does_not_divide_is_named(exported: ExportedProgram) -> None:
    with pytest.raises(ValueError, match=r"head.weight has 64 inputs; expected a multiple of the group, 128"):
        insert_quantization(graph_of(exported, "int4", ["head"], group=128))


def test_an_unknown_precision_is_named(exported: ExportedProgram) -> None:
    with pytest.raises(ValueError, match=r"head is to be 'int2'; expected int8, int8-static or int4"):
        insert_quantization(Graph(exported, "mixed", {"head": "int2"}))
