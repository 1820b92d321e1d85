"""Which pieces of a graph are cut out for the bve runtime, and that each computes what its nodes do."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.fx import Interpreter, Node
from torch.nn import functional

from bigvit_edge.export.convert import capture_cores
from bigvit_edge.export.core import partition
from bigvit_edge.export.core.lowering import lower_parts
from bigvit_edge.export.core.partition import find_pieces
from bigvit_edge.export.graph import Graph, Piece, count_node_macs, layer_of, read_constants
from bigvit_edge.models.blvit import BLViT
from bigvit_edge.models.dispatch import DISPATCH
from bigvit_edge.models.vit import ViT
from tests.export.program_interpreter import interpret_all
from tests.models.around import build

SIZE = 16
DIM = 32


def make_weights(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3)
    return model.eval()


def make_vit(**shape: Any) -> ViT:
    sizes = {"image_size": SIZE, "patch": 4, "dim": DIM, "depth": 2, "head_dim": 16, "num_classes": 5, **shape}
    return ViT(**sizes)


def make_blvit() -> BLViT:
    little = {"little_dim": 16, "little_head_dim": 8}
    return BLViT(image_size=SIZE, patch=4, dim=DIM, depth=2, head_dim=16, num_classes=5, keep=0.5, **little)


class Using(nn.Module):
    """A model around one of ours, used as told."""

    def __init__(self, net: nn.Module, use: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.use = net, use

    def forward(self, images: Tensor) -> Tensor:
        return self.use(self.net, images)


class Values(Interpreter):
    """What every node gives for an image."""

    def __init__(self, graph: Graph, image: Tensor) -> None:
        program = graph.exported
        super().__init__(program.graph_module)
        data, self.values = read_constants(program), dict[str, Any]()
        with torch.no_grad():
            self.run(*(data.get(node, image) for node in program.graph.find_nodes(op="placeholder")))

    def run_node(self, n: Node) -> Any:
        self.values[n.name] = super().run_node(n)
        return self.values[n.name]


def check(model: nn.Module, size: int = SIZE) -> tuple[Piece, ...]:
    """The pieces of a model, each compared with PyTorch on what it is given in the whole graph."""
    (core,) = capture_cores(make_weights(model), size, (getattr(model, "keep", None),))
    assert core.core is not None
    pieces = find_pieces(core.core)
    image = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 3, size, size), dtype=np.float32))
    values = Values(core, image).values
    programs = lower_parts([Graph(core.exported, core=core.core, pieces=pieces)], 4, {})
    for piece, program in zip(pieces, programs, strict=True):
        (entry,) = program.entries
        assert [port.shape for port in entry.ports] == [values[n.name].shape for n in (*piece.inputs, *piece.outputs)]
        found = interpret_all(program, entry, [values[node.name].numpy() for node in piece.inputs])
        for node, rows in zip(piece.outputs, found, strict=True):
            expected = values[node.name].numpy()
            atol = 1e-4 * np.abs(expected).max()
            np.testing.assert_allclose(rows.reshape(expected.shape), expected, rtol=1e-3, atol=atol)
    return pieces


def list_layers(piece: Piece) -> set[str]:
    return {layer_of(node).split(".")[0] for node in piece.nodes if count_node_macs(node)}


def test_a_whole_model_is_one_piece() -> None:
    (piece,) = check(make_vit())
    assert [node.op for node in piece.inputs] == ["placeholder"]
    assert sum(map(count_node_macs, piece.nodes)) > 0


def test_of_a_model_around_ours_the_piece_goes_as_far_as_it_can() -> None:
    (piece,) = check(build(), 32)
    assert list_layers(piece) == {"net", "hidden", "out"}
    assert [tuple(node.meta["val"].shape) for node in (*piece.inputs, *piece.outputs)] == [(1, 3, 16, 16), (1, 4)]


@pytest.mark.parametrize(
    ("use", "count"),
    [
        (lambda net, x: net(x) + net(-x), 1),  # what both take is given
        (lambda net, x: net.head(net.encode(x)[:, 0]), 1),
        (lambda net, x: net(x) * net.head.weight.mean(), 1),
        (lambda net, x: torch.cat([net(y := x / 2), y.mean((2, 3))], 1), 1),
        (lambda net, x: net.head(functional.relu(net.encode(x)).mean(1)), 1),
        (lambda net, x: net(torch.ones(1, 3, SIZE, SIZE)) * x.mean(), 0),  # which no image changes: a constant
    ],
)
def test_ours_may_be_used_in_any_way(use: Callable[[Any, Tensor], Tensor], count: int) -> None:
    assert len(check(Using(make_vit(), use))) == count


def test_tokens_are_given_in_a_routers_order_by_who_orders_them() -> None:
    pieces = check(Using(make_blvit(), lambda net, x: functional.relu(net.encode(x)[0]).mean(1)))
    assert len(pieces) > 1
    assert all(node.target is not DISPATCH for piece in pieces for node in piece.nodes)


class Stages(nn.Module):
    """A stem of convolutions, and blocks of ours between which something else stands."""

    def __init__(self, between: Callable[[Tensor], Tensor], several: bool = False) -> None:
        super().__init__()
        self.stem, self.net = nn.Conv2d(3, DIM, 3, stride=4, padding=1), make_vit()
        self.between, self.several = between, several

    def forward(self, images: Tensor) -> Tensor:
        x = first = self.net.layers[0](self.stem(images).flatten(2).mT)
        x = self.net.layers[1](self.between(x))
        if self.several:
            return (
                self.net.head((torch.tanh(x) + torch.sin(first)).mean(1)) + torch.tanh(torch.cat([x, first], 1)).mean()
            )
        return self.net.head(torch.tanh(x).mean(1))  # type: ignore[no-any-return]


def test_what_stands_between_blocks_parts_them() -> None:
    first, second = check(Stages(torch.sin))
    assert [node.target for node in first.outputs] == [node.all_input_nodes[0].target for node in second.inputs]
    assert {layer_of(node) for node in first.nodes}.isdisjoint(layer_of(node) for node in second.nodes)


def test_a_value_may_leave_and_go_on() -> None:
    (piece,) = check(Stages(lambda x: x, several=True))
    assert len(piece.outputs) == 3


def test_nothing_that_waits_for_itself_is_a_piece() -> None:
    """The sum behind the sine needs the block before it and the sine of that."""
    first, second = check(Stages(lambda x: x + torch.sin(x)))
    assert not set(first.nodes) & set(second.nodes)
    assert second.inputs[-1] in (*first.outputs, *(user for node in first.outputs for user in node.users))


def test_what_is_too_small_for_a_call_stays_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 14 * 14, 2))
    assert len(check(model)) == 1
    monkeypatch.setattr(partition, "LEAST", 0.1)
    assert check(model) == ()
    assert check(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())) == ()


def test_a_piece_ends_in_a_product_or_sum() -> None:
    model = Using(make_vit(), lambda net, x: torch.sin(net.norm(net.layers[0](net.embedding(x)))).mean(1))
    (piece,) = check(model)
    assert [node.target for node in piece.outputs] == [torch.ops.aten.add.Tensor]


def test_a_norm_that_goes_on_inside_stays() -> None:
    def use(net: ViT, images: Tensor) -> Tensor:
        normed = net.layers[0].norm1(net.embedding(images))
        return torch.sin(net.layers[0].attn(normed)).mean(1) + torch.sin(normed).mean(1)

    (piece,) = check(Using(make_vit(), use))
    assert torch.ops.aten.layer_norm.default in [node.target for node in piece.outputs]


def change_epsilon(net: nn.Module) -> None:
    for inside in net.modules():
        if isinstance(inside, nn.LayerNorm):
            inside.eps = 0.1


def hook(net: ViT) -> None:
    net.layers[0].register_forward_hook(lambda module, given, made: made + made)


class Adapted(nn.Module):
    """A Linear with a low-rank one beside it."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear, self.down = linear, nn.Linear(linear.in_features, 2)
        self.up = nn.Linear(2, linear.out_features)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.up(self.down(x))  # type: ignore[no-any-return]


def adapt(net: ViT) -> None:
    net.layers[0].attn.proj = Adapted(net.layers[0].attn.proj)  # type: ignore[assignment]


@pytest.mark.parametrize("change", [change_epsilon, hook, adapt])
def test_ours_may_be_changed_inside(change: Callable[[Any], None]) -> None:
    net = make_vit()
    change(net)
    assert len(check(Using(net, lambda net, x: torch.sin(net(x))))) >= 1
