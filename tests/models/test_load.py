"""From what a user calls MODEL to a module."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import bigvit_edge
from bigvit_edge.errors import UserError
from bigvit_edge.models.blvit import BLViT
from bigvit_edge.models.load import FILE, SHIPPED, has_keep, is_factory, load, set_keep
from bigvit_edge.models.weights import hash_weights


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
    loaded = load(name)
    assert loaded.module.head.bias.abs().max() > 0  # a random start has zero biases
    assert (loaded.weights, loaded.notes, loaded.labels) == (SHIPPED, (), tuple("0123456789"))
    assert loaded.about["license"] == "Apache-2.0"


def test_other_sizes_of_an_own_model() -> None:
    loaded = load("blvit_demo", image_size=96, num_classes=7)
    assert (loaded.image_size, loaded.num_classes, loaded.labels) == (96, 7, None)
    assert loaded.module(torch.zeros(1, 3, 96, 96)).shape == (1, 7)
    assert any("8 x 8 patches to 12 x 12" in note for note in loaded.notes)
    assert any("head for 7 classes keeps its random start" in note for note in loaded.notes)


def test_a_checkpoints_own_head_is_taken_where_asked_for(tmp_path: Path) -> None:
    model = load("vit_demo", num_classes=4).module
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    loaded = load("vit_demo", weights=tmp_path / "w.safetensors", num_classes=4)
    assert torch.equal(loaded.module.head.weight, model.head.weight)
    assert ["3 heads of 32 channels" in note for note in loaded.notes] == [True]
    assert (loaded.weights, loaded.weights_sha256) == (FILE, hash_weights(tmp_path / "w.safetensors"))
    with pytest.raises(UserError, match=r"head.weight \[4, 96\] instead of \[10, 96\].*--num-classes 4 takes"):
        load("vit_demo", weights=tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"source": "blvit_dmo"}, "unknown model 'blvit_dmo'.*package.module:build.*did you mean blvit_demo"),
        ({"source": "vit_demo", "image_size": 90}, "--image-size 90.*multiple of the patch, 8.*for example 88"),
        ({"source": "vit_demo", "num_classes": 0}, "--num-classes 0.*1 to 1000000"),
        ({"source": "nowhere.pth"}, "no file nowhere.pth"),
        ({"source": "./nowhere"}, "no file nowhere"),
        ({"source": "vit_demo", "weights": "pretrained"}, "only timm:NAME has weights to download"),
        ({"source": "w.npz", "weights": "v.npz"}, "MODEL is a checkpoint already"),
    ],
)
def test_what_cannot_be_loaded(words: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(**words)  # type: ignore[arg-type]


def test_keep_is_of_any_module_that_has_one() -> None:
    module = nn.Identity()
    assert not has_keep(module)
    with pytest.raises(UserError, match=r"keep 0.5 for an Identity; expected no keep ratio"):
        set_keep(module, 0.5)
    module.keep = 1.0
    assert has_keep(module)
    set_keep(module, 0.5)
    assert module.keep == 0.5
    for keep in (0.0, 1.5, float("nan")):
        with pytest.raises(UserError, match=r"above 0 and at most 1"):
            set_keep(module, keep)


@pytest.mark.parametrize(
    ("source", "expected"), [("mine:build", True), ("timm:mine", False), ("vit_s", False), ("a/b:c.pth", False)]
)
def test_only_a_users_function_is_foreign_code(source: str, expected: bool) -> None:
    assert is_factory(source) == expected
