"""The graph around the pieces that the bve runtime runs, and what of a model goes into which of the two."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bigvit_edge.errors import UserError
from bigvit_edge.export.convert import capture_cores, cut, list_refusals, rewrite
from bigvit_edge.export.graph import Graph, matrix_products
from bigvit_edge.export.native import lower_native, lower_pieces, take_rest
from bigvit_edge.export.pieces import CALL, sort_nodes, write_calls
from bigvit_edge.export.program import from_bytes
from bigvit_edge.export.quantization import insert_quantization
from bigvit_edge.models.vit import ViT
from bigvit_edge.target import load_target, override
from tests.models.around import SIZE, build, cut_model

TARGET = override(load_target("android-native"), ["formats=executorch,litert,bve"])


def make_vit() -> ViT:
    return ViT(image_size=SIZE, patch=8, dim=32, depth=1, head_dim=16, num_classes=5)


class Sines(nn.Module):
    """A ViT with a sine before and behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = make_vit()

    def forward(self, images: Tensor) -> Tensor:
        return torch.sin(self.net(torch.sin(images)))


@pytest.fixture(scope="module")
def graph() -> Graph:
    return cut_model(build(), keep=0.5)


def test_each_piece_is_one_call(graph: Graph) -> None:
    assert graph.around is not None
    (call,) = graph.around.graph.find_nodes(op="call_function", target=CALL)
    assert [list(node.meta["val"].shape) for node in call.args[0]] == [[1, 3, 16, 16]]
    assert [list(value.shape) for value in call.meta["val"]] == [[1, 4]]
    assert {name.partition(".")[0] for name in graph.around.state_dict} == {"smooth"}
    assert graph.core is not None
    whole, rest = (sum(macs for _, macs in matrix_products(of)) for of in (graph.core, graph.around))
    inside = {node for piece in graph.pieces for node in piece.nodes}
    assert rest == whole - sum(macs for node, macs in matrix_products(graph.core) if node in inside) > 0


def test_calls_stand_behind_what_they_read(graph: Graph) -> None:
    assert graph.core is not None
    nodes = list(write_calls(graph.core, graph.pieces).graph.nodes)
    assert all(nodes.index(source) < nodes.index(node) for node in nodes for source in node.all_input_nodes)


def test_nodes_keep_their_order_where_they_may() -> None:
    made = torch.fx.Graph()
    x = made.placeholder("x")
    first, second, third = (made.call_function(torch.sin, (x,)) for _ in range(3))
    made.output((first, second, third))
    first.args = (third,)
    sort_nodes(made)
    assert list(made.nodes)[:4] == [x, third, first, second]


def test_nobody_can_run_a_call() -> None:
    with pytest.raises(NotImplementedError):
        CALL([torch.zeros(1, 3, 8, 8)], 0, [2], [1, 5])
    some = CALL([torch.zeros(1, device="meta")], 0, [2, 1], [1, 5, 7])
    assert [tuple(made.shape) for made in some] == [(1, 5), (7,)]


def test_formats_with_a_framework_around_us_take_what_has_a_piece_for_us() -> None:
    def refuse(module: nn.Module, size: int = SIZE, keep: float | None = None) -> list[str]:
        return list_refusals(TARGET, capture_cores(module, size, (keep,)))

    assert refuse(make_vit()) == refuse(nn.Sequential(make_vit(), nn.Linear(5, 3))) == []
    assert refuse(build(), keep=0.5) == refuse(nn.Sequential(make_vit(), nn.ReLU())) == ["bve"]
    assert refuse(nn.Conv2d(3, 4, 3)) == ["executorch", "litert", "bve"]


def test_layers_go_to_the_graph_that_they_are_of() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.out = make_vit(), nn.Linear(5, 512)

        def forward(self, images: Tensor) -> Tensor:
            return torch.sin(self.out(torch.sin(self.net(images))))

    graph = cut_model(Twice())
    layers = dict.fromkeys(("net.layers.0.attn.q", "out"), "int8")
    graph = replace(graph, precision="int8", layers=layers, calibration=np.ones((1, 3, SIZE, SIZE), np.float32))
    rest = take_rest(graph)
    assert rest.layers == {"out": "int8"}
    insert_quantization(rest)  # finds it
    kinds = {weight.name: weight.type.name for weight in from_bytes(lower_native([graph], TARGET, {}).data).weights}
    assert {name: kind for name, kind in kinds.items() if "attn.q" in name or name == "out"} == {
        "net.layers.0.attn.q": "QC8X4"
    }


def test_a_piece_has_an_entry_for_each_keep_ratio() -> None:
    model = build()
    graphs = [cut(rewrite(core)) for core in capture_cores(model, SIZE, (0.25, 1.0))]
    (lowered,) = lower_pieces(graphs, TARGET, {})
    assert [entry.keep for entry in lowered.entries] == [1.0, 0.25]
    assert len({entry.macs for entry in lowered.entries}) == 2


def test_a_piece_says_nothing_of_pictures() -> None:
    """Else a camera's frame would go to it past what is in front of it."""
    lowered = lower_native([cut_model(Sines())], TARGET, {"preprocessing": "{}", "labels": "null"})
    assert from_bytes(lowered.data).metadata == {"labels": "null"}


def test_a_head_that_was_taken_off_gives_features() -> None:
    model = Sines()
    model.net.head = nn.Identity()  # type: ignore[assignment]
    (entry,) = from_bytes(lower_native([cut_model(model)], TARGET, {}).data).entries
    assert [port.shape for port in entry.ports] == [(1, 3, SIZE, SIZE), (1, 32)]


def test_what_a_piece_cannot_have_is_refused() -> None:
    graph = replace(cut_model(build(), keep=0.5), precision="int8", layers={"net.layers.0.router.score": "int8"})
    with pytest.raises(UserError, match=r"router\.score in int8; expected routers in float"):
        lower_native([graph], TARGET, {})
