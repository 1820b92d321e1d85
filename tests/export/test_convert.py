"""The story's calls, one by one."""

import sys

import pytest
import torch

from bigvit_edge.errors import UserError
from bigvit_edge.export.convert import capture, load_backend
from bigvit_edge.export.graph import layer_of, matrix_products, weight_name
from bigvit_edge.models.blvit import BLViT


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


def test_each_keep_ratio_is_a_graph_of_its_own(model: BLViT) -> None:
    graphs = [capture(model, 24, keep) for keep in (0.25, 1.0)]
    assert [graph.keep for graph in graphs] == [0.25, 1.0]
    macs = [sum(n for _, n in matrix_products(graph.exported)) for graph in graphs]
    assert macs[0] < 0.7 * macs[1]


class Branching(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if image.sum() > 0:  # the line that the message must name
            return image.mean((2, 3))
        return image.amax((2, 3))


def test_control_flow_that_depends_on_the_image_is_named_with_its_line() -> None:
    with pytest.raises(UserError, match=r"test_convert.py:\d+: if image.sum\(\) > 0.*do not depend on the image"):
        capture(Branching(), 8)


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [m for m in sys.modules if m.startswith("bigvit_edge.export.backends.litert")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(UserError, match=r"pip install 'bigvit-edge\[litert\]'"):
        load_backend("litert")
