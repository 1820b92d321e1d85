"""Closed-form figures against the modules themselves, the captured graph, and the published figures."""

import pytest
import torch

from bigvit_edge.errors import UserError
from bigvit_edge.export.convert import capture
from bigvit_edge.export.graph import matrix_products
from bigvit_edge.models.blvit import set_dispatch
from bigvit_edge.models.load import build
from bigvit_edge.models.zoo import CARDS, count_dispatch_macs, count_macs, count_params, find_card


@pytest.mark.parametrize("name", CARDS)
def test_parameters_are_those_of_the_module(name: str) -> None:
    with torch.device("meta"):
        model = build(CARDS[name])
    assert count_params(CARDS[name]) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("dispatch", ["permute", "kernel"])
@pytest.mark.parametrize("name", ["blvit_demo", "vit_demo"])
@pytest.mark.parametrize("keep", [0.25, 1.0])
def test_macs_are_those_of_the_captured_graph(name: str, keep: float, dispatch: str) -> None:
    model = build(CARDS[name])
    model.keep = keep
    set_dispatch(model, dispatch)
    graph = capture(model, CARDS[name].image_size)
    assert sum(macs for _, macs in matrix_products(graph.exported)) == count_macs(CARDS[name], keep)


@pytest.mark.parametrize("keep", [0.25, 1.0])
def test_what_onehot_adds_is_what_the_captured_graph_has_more(keep: float) -> None:
    card = CARDS["blvit_demo"]
    model = build(card)
    model.keep = keep
    set_dispatch(model, "onehot")
    found = sum(macs for _, macs in matrix_products(capture(model, card.image_size).exported))
    assert found == count_macs(card, keep) + count_dispatch_macs(card, keep)
    assert count_dispatch_macs(CARDS["vit_demo"]) == 0


def test_blvit_s_has_the_figures_of_the_design() -> None:
    assert count_params(CARDS["blvit_s"]) / 1e6 == pytest.approx(25.3, abs=0.05)
    assert count_macs(CARDS["blvit_s"], 0.5) / 1e9 == pytest.approx(2.87, abs=0.005)
    assert count_macs(CARDS["vit_s"]) / 1e9 == pytest.approx(4.60, abs=0.005)


@pytest.mark.parametrize(("name", "millions"), [("vit_ti", 5.7), ("vit_s", 22.1), ("vit_b", 86.6), ("vit_l", 304.3)])
def test_dense_models_have_the_published_sizes(name: str, millions: float) -> None:
    """DeiT (arXiv 2012.12877), table 1; ViT-L: Dosovitskiy et al. with patch 16."""
    assert count_params(CARDS[name]) / 1e6 == pytest.approx(millions, abs=0.06)


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown model 'blvit_sm'.*one of blvit_ti.*did you mean blvit_s"):
        find_card("blvit_sm")
