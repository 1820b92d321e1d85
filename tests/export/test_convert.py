"""The story's calls, one by one."""

import sys

import pytest
import torch

from bigvit_edge.errors import UserError
from bigvit_edge.export.convert import capture, load_backend, quantize
from bigvit_edge.export.graph import layer_of, matrix_products, weight_name
from bigvit_edge.models.blvit import BLViT
from bigvit_edge.target import Quant


@pytest.fixture(scope="module")
def model() -> BLViT:
    return BLViT(image_size=24, patch=8, dim=32, little_dim=16, depth=2, head_dim=16, little_head_dim=8, num_classes=5)


def test_the_captured_graph_has_no_scatter_sort_or_dynamic_shape(model: BLViT) -> None:
    graph = capture(model, 24)
    names = {str(node.target) for node in graph.exported.graph.nodes}
    assert not [name for name in names if "scatter" in name or "sort" in name or "index_put" in name]
    assert not graph.exported.range_constraints
    assert sum("topk" in str(node.target) for node in graph.exported.graph.nodes) == 2


def test_layers_are_named_as_in_the_module(model: BLViT) -> None:
    graph = capture(model, 24)
    modules = dict(model.named_modules())
    named = {layer_of(node) for node in graph.exported.graph.nodes if node.op == "call_function"}
    assert {"layers.1.p.mlp.fc1", "layers.0.router.score", "head"} <= named
    assert not [name for name in named if name not in modules]


def test_weight_names_are_state_dict_keys(model: BLViT) -> None:
    graph = capture(model, 24)
    keys = {weight_name(graph.exported, node) for node, _ in matrix_products(graph.exported)} - {None}
    assert keys <= set(model.state_dict())
    assert "layers.0.k_from_e.weight" in keys


def test_int8_takes_every_linear_but_what_the_scores_hang_on(model: BLViT) -> None:
    graph = quantize(capture(model, 24), "int8", Quant())
    linears = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    assert graph.int8 == {
        name for name in linears if "router" not in name and name.split(".")[-1] not in ("little", "down")
    }
    assert graph.precision == "int8"
    assert quantize(graph, "fp32", Quant()).precision == "fp32"


def test_keep_float_is_obeyed(model: BLViT) -> None:
    graph = quantize(capture(model, 24), "int8", Quant(keep_float=("router", "mlp", "head")))
    assert not [name for name in graph.int8 if "mlp" in name or "head" in name]
    assert "layers.0.p.attn.q" in graph.int8


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "bigvit_edge.export.backends.litert", raising=False)
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(UserError, match=r"pip install 'bigvit-edge\[litert\]'"):
        load_backend("litert")
