"""From a name to a module."""

import pytest
import torch

import bigvit_edge
from bigvit_edge.models.blvit import BLViT


def test_load_model_is_in_eval_mode_with_its_keep() -> None:
    model = bigvit_edge.load_model("blvit_ti", keep=0.25)
    assert isinstance(model, BLViT)
    assert model.keep == 0.25
    assert not model.training


def test_a_random_start_is_the_same_each_time_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    a, b = (bigvit_edge.load_model("vit_ti") for _ in range(2))
    assert torch.equal(a.head.weight, b.head.weight)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("name", ["blvit_demo", "vit_demo"])
def test_shipped_weights_are_not_a_random_start(name: str) -> None:
    model = bigvit_edge.load_model(name)
    assert model.head.bias.abs().max() > 0  # a random start has zero biases
