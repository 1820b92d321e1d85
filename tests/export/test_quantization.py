import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from bigvit_edge.export.graph import layer_of
from bigvit_edge.export.quantization import aten, insert_dynamic_int8, ops
from bigvit_edge.models.blvit import BLViT


def linears(model: nn.Module) -> frozenset[str]:
    return frozenset(n for n, m in model.named_modules() if isinstance(m, nn.Linear) and "router" not in n)


def count(program: ExportedProgram, target: object) -> int:
    return len(program.graph.find_nodes(op="call_function", target=target))


@pytest.fixture(scope="module")
def model() -> BLViT:
    torch.manual_seed(0)
    sizes = dict(image_size=48, patch=16, dim=32, little_dim=16, depth=1, head_dim=16, little_head_dim=8, num_classes=7)
    return BLViT(**sizes).eval()


@pytest.fixture(scope="module")
def exported(model: BLViT) -> ExportedProgram:
    return torch.export.export(model, (torch.zeros(1, 3, 48, 48),))


def test_one_linear_is_quantised_as_written_down_here() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 4))
    x = torch.randn(2, 3, 8)
    program = insert_dynamic_int8(torch.export.export(model, (x,)), frozenset({"0"}))

    low, high = x.amin(-1, keepdim=True).clamp(max=0), x.amax(-1, keepdim=True).clamp(min=0)
    step = (high - low) / 255
    zero = (-128 - low / step).round()
    rows = ((x / step + zero).round().clamp(-128, 127) - zero) * step
    weight = model[0].weight.detach()
    scale = weight.abs().amax(1, keepdim=True) / 127
    expected = rows @ ((weight / scale).round() * scale).T + model[0].bias
    # one value may round the other way at a tie: a step of a row times a weight
    assert torch.allclose(program.module()(x), expected, atol=float(step.max() * weight.abs().max()))
    assert not torch.allclose(program.module()(x), model(x), atol=1e-5)


@torch.no_grad()
def test_close_to_float(model: BLViT, exported: ExportedProgram) -> None:
    program = insert_dynamic_int8(exported, linears(model))
    images = torch.randn(1, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    cosine = torch.nn.functional.cosine_similarity(program.module()(images), model(images))
    assert 0.999 < float(cosine) < 0.99999999


def test_leaves_the_original_alone(model: BLViT, exported: ExportedProgram) -> None:
    graph, weights, constants = str(exported.graph), set(exported.state_dict), set(exported.constants)
    insert_dynamic_int8(exported, linears(model))
    assert (str(exported.graph), set(exported.state_dict), set(exported.constants)) == (graph, weights, constants)


def test_one_quantisation_for_each_value_read(model: BLViT, exported: ExportedProgram) -> None:
    program = insert_dynamic_int8(exported, linears(model))
    assert count(program, ops.dequantize_per_channel.default) == len(linears(model))
    inputs = {n.args[0] for n in exported.graph.find_nodes(op="call_function", target=aten.linear.default)}
    assert count(program, ops.choose_qparams_per_token_asymmetric.default) == len(inputs) - 1  # the router stays float


def test_only_the_named_layers_change(model: BLViT, exported: ExportedProgram) -> None:
    program = insert_dynamic_int8(exported, frozenset({"layers.0.p.mlp.fc1"}))
    quantised = [
        layer_of(n)
        for n in program.graph.find_nodes(op="call_function", target=aten.linear.default)
        if n.args[1].op != "placeholder"
    ]
    assert quantised == ["layers.0.p.mlp.fc1"]
    assert program.constants["layers.0.p.mlp.fc1.weight.int8"].dtype is torch.int8
    assert set(exported.state_dict) - set(program.state_dict) == {"layers.0.p.mlp.fc1.weight"}


def test_every_new_op_knows_its_layer(model: BLViT, exported: ExportedProgram) -> None:
    program = insert_dynamic_int8(exported, linears(model))
    new = [n for n in program.graph.nodes if n.op == "call_function" and "quantize" in str(n.target)]
    assert new
    assert {layer_of(n) for n in new} <= linears(model)


def test_the_program_can_be_decomposed_again(model: BLViT, exported: ExportedProgram) -> None:
    images: Tensor = torch.randn(1, 3, 48, 48)
    program = insert_dynamic_int8(exported, linears(model))
    assert torch.equal(program.run_decompositions({}).module()(images), program.module()(images))


def test_a_channel_of_zeros_stays_zero() -> None:
    model = nn.Sequential(nn.Linear(8, 4, bias=False))
    nn.init.zeros_(model[0].weight)
    program = insert_dynamic_int8(torch.export.export(model, (torch.ones(1, 8),)), frozenset({"0"}))
    assert torch.equal(program.module()(torch.ones(1, 8)), torch.zeros(1, 4))


def test_an_unknown_layer_is_named(exported: ExportedProgram) -> None:
    with pytest.raises(ValueError, match=r"layers\.9\.fc"):
        insert_dynamic_int8(exported, frozenset({"layers.9.fc"}))
