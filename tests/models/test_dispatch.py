"""The permutation as a matrix product, and as one op, against the permutation by indices; and what is left in the
graph.
"""

import pytest
import torch
from torch import Tensor

from bigvit_edge.export.convert import capture, rewrite
from bigvit_edge.models.blvit import BLViT, Ranking, order_tokens, permute, restore, selected_tokens, set_dispatch
from bigvit_edge.models.load import build
from bigvit_edge.models.zoo import CARDS

PLAIN = {"gt.Tensor", "eq.Tensor", "where.self", "sum.dim_IntList", "unsqueeze.default", "squeeze.dim", "add.Tensor"}


def tiny(keep: float) -> BLViT:
    torch.manual_seed(0)
    model = BLViT(
        image_size=24, patch=8, dim=32, little_dim=16, depth=3, head_dim=16, little_head_dim=8, num_classes=5, keep=keep
    )
    for parameter in model.parameters():  # the start has gammas of 1e-4: make every path count
        parameter.data.normal_(0, 0.3)
    return model.eval()


def order_stably(score: Tensor) -> Tensor:
    """CLS, then by falling score, equal ones as they stand (top-k leaves that open)."""
    lead = torch.zeros_like(score)
    lead[:, 0] = 2
    return torch.sort(score + lead, dim=1, descending=True, stable=True).indices


@pytest.mark.parametrize("dispatch", ["onehot", "kernel"])
@pytest.mark.parametrize("keep", [0.1, 0.25, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("batch", [1, 3])
def test_each_way_equals_permute(keep: float, batch: int, dispatch: str) -> None:
    model, images = tiny(keep), torch.randn(batch, 3, 24, 24)
    with torch.no_grad():
        expected = model(images)
        set_dispatch(model, dispatch)
        torch.testing.assert_close(model(images), expected, atol=1e-5, rtol=1e-5)
        set_dispatch(model, "permute")
        assert torch.equal(model(images), expected)


def test_a_model_around_ours_is_told_as_well() -> None:
    inside = tiny(0.5)
    set_dispatch(torch.nn.Sequential(torch.nn.Identity(), inside), "kernel")
    assert [layer.arrange for layer in inside.layers] == [None] * 3


@pytest.mark.parametrize("dispatch", ["onehot", "kernel"])
@pytest.mark.parametrize("keep", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("batch", [1, 3])
def test_ties_are_broken_by_place(keep: float, batch: int, dispatch: str) -> None:
    model, images = tiny(keep), torch.randn(batch, 3, 24, 24)
    model.layers[0].router.score.weight.data.zero_()  # every token scores the same
    with torch.no_grad():
        for layer in model.layers:
            layer.arrange = order_stably
        expected = model(images)
        set_dispatch(model, dispatch)
        torch.testing.assert_close(model(images), expected, atol=1e-5, rtol=1e-5)


def test_ranking_of_scores_with_ties_is_the_stable_order() -> None:
    generator = torch.Generator().manual_seed(0)
    score = torch.randint(0, 4, (5, 12), generator=generator) / 4
    matrix = Ranking(12)(score)
    assert torch.equal(matrix.argmax(2), order_stably(score))
    assert torch.equal(matrix.sum(1), torch.ones(5, 12))
    assert torch.equal(matrix.sum(2), torch.ones(5, 12))


def test_float16_ranks_hundreds_of_tokens_without_a_mistake() -> None:
    score = torch.rand(1, 785, generator=torch.Generator().manual_seed(0)).half()
    ranking = Ranking(785)
    for name, constant in vars(ranking).items():
        setattr(ranking, name, constant.half())
    assert torch.equal(ranking(score).argmax(2), order_stably(score))


@pytest.mark.parametrize("shape", [(2, 6), (2, 6, 3)])
def test_a_matrix_permutes_as_its_indices_do(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    t, score = torch.rand(shape, generator=generator), torch.rand(2, 6, generator=generator)
    assert torch.equal(permute(t, Ranking(6)(score)), permute(t, order_tokens(score)))


def test_restoring_and_naming_selected_tokens_take_matrices() -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.arange(12.0).view(2, 6, 1)
    scores = [torch.rand(2, 6, generator=generator) for _ in range(4)]
    indices, matrices = ([f(score) for score in scores] for f in (order_tokens, Ranking(6)))
    moved = start
    for matrix in matrices:
        moved = permute(moved, matrix)
    assert not torch.equal(moved, start)
    assert torch.equal(restore(moved, matrices), start)
    assert torch.equal(selected_tokens(matrices, 3), selected_tokens(indices, 3))


@pytest.mark.parametrize("batch", [1, 3])
def test_the_kernel_takes_the_same_tokens_in_rising_order(batch: int) -> None:
    """Streams and orders, layer by layer: the same sets, and the same tokens once put back in image order."""
    model, images = tiny(0.5), torch.randn(batch, 3, 24, 24)
    with torch.no_grad():
        x, z, orders = model.encode(images)
        set_dispatch(model, "kernel")
        kernel_x, kernel_z, kernel_orders = model.encode(images)
    assert torch.equal(selected_tokens(kernel_orders, 5), selected_tokens(orders, 5))
    for stream, kernel_stream in ((x, kernel_x), (z, kernel_z)):
        expected = restore(stream, orders)
        torch.testing.assert_close(restore(kernel_stream, kernel_orders), expected, atol=1e-5, rtol=1e-5)
    for order in kernel_orders:
        assert order.shape == (batch, 10)
        for part in (order[:, :5], order[:, 5:]):
            assert torch.equal(part, part.sort(1).values)
    assert any(not torch.equal(order, kernel) for order, kernel in zip(orders, kernel_orders, strict=True))


def test_another_choice_of_tokens_goes_before_the_kernel() -> None:
    model, images = tiny(0.5), torch.randn(2, 3, 24, 24)
    set_dispatch(model, "kernel")
    model.layers[0].arrange = lambda score: torch.arange(10).flip(0).roll(1).expand(len(score), 10)  # CLS, 9, 8, ...
    with torch.no_grad():
        _, _, orders = model.encode(images)
    assert selected_tokens(orders, 5)[0].tolist() == [[True] + [False] * 5 + [True] * 4] * 2


def test_the_graph_has_the_op_alone_of_all_dispatch() -> None:
    model = tiny(0.5)
    set_dispatch(model, "kernel")
    graph = capture(model, 24)
    nodes = [str(node.target) for node in rewrite(graph).exported.graph.nodes if node.op == "call_function"]
    assert nodes.count("bve.dispatch.default") == 3
    left = ("topk", "index_select", "gather", "sort", "to", "_assert")
    assert not [target for target in nodes if target.startswith(tuple(f"aten.{op}" for op in left))]


def test_the_graph_has_neither_topk_nor_gather_nor_index_arithmetic() -> None:
    ops = {}
    for dispatch in ("permute", "onehot"):
        model = tiny(0.5)
        set_dispatch(model, dispatch)
        nodes = [node for node in capture(model, 24).exported.graph.nodes if node.op == "call_function"]
        ops[dispatch] = {str(node.target).removeprefix("aten.") for node in nodes}
        whole = {str(node.meta["val"].dtype) for node in nodes if isinstance(node.meta.get("val"), Tensor)}
        assert ("torch.int64" in whole) == (dispatch == "permute")
    assert {"topk.default", "index_select.default"} <= ops["permute"] - ops["onehot"]
    assert ops["onehot"] - ops["permute"] <= PLAIN


def test_a_dense_model_has_nothing_to_set() -> None:
    model = build(CARDS["vit_demo"])
    before = {name for name, _ in model.named_modules()}
    set_dispatch(model, "onehot")
    assert {name for name, _ in model.named_modules()} == before
