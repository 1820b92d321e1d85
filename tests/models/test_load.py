"""From what a user calls MODEL to a module."""

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import bigvit_edge
from bigvit_edge.errors import UserError
from bigvit_edge.models import foreign
from bigvit_edge.models.blvit import BLViT
from bigvit_edge.models.load import FACTORY, FILE, RANDOM, SHIPPED, has_keep, is_factory, load, set_keep
from bigvit_edge.models.weights import hash_state, hash_weights
from bigvit_edge.preprocessing import Preprocessing

needs_timm = pytest.mark.skipif(find_spec("timm") is None, reason="needs the extra [timm]")
TIMM_MEAN = (0.485, 0.456, 0.406)  # ImageNet's, which timm's fastvit_t8 is trained with


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
    assert loaded.notes == ()
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
    with pytest.raises(UserError, match=r"keep 0.5 for a Identity; expected no keep ratio"):
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


# ---- a user's own factory -------------------------------------------------------------------------------------------

SOURCE = """
import torch

class Net(torch.nn.Module):
    mean, std, image_size = [0.1, 0.2, 0.3], (0.4, 0.5, 0.6), 24
    def __init__(self):
        super().__init__()
        self.keep = 0.5
        self.fc = torch.nn.Linear(3, 4)
    def forward(self, x):
        if x.shape[-1] < 8:
            raise ValueError("too small")
        return self.fc(x.mean((2, 3)))

def build():
    return Net()

def build_plain():
    return torch.nn.Sequential(torch.nn.AvgPool2d(224), torch.nn.Flatten(), torch.nn.Linear(3, 6))

def build_list():
    return [Net()]

def build_badly():
    return torch.nn.Linear("3", 4)  # line 25

def build_map():
    return torch.nn.Conv2d(3, 4, 1)

ready = Net()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with the user's modules `mine` and `broken`."""
    (tmp_path / "mine.py").write_text(SOURCE)
    (tmp_path / "broken.py").write_text("import os\n\n1 / 0\n")
    (tmp_path / "unfinished.py").write_text("def build(:\n")
    (tmp_path / "needy.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("mine", "broken", "unfinished", "needy"):
        sys.modules.pop(name, None)


def test_a_factory_says_what_it_wants(folder: Path) -> None:
    loaded = load("mine:build")
    assert (loaded.image_size, loaded.num_classes) == (24, 4)
    assert loaded.preprocessing == Preprocessing(24, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert (loaded.weights, loaded.weights_sha256, loaded.notes) == (FACTORY, hash_state(loaded.module), ())
    assert not loaded.module.training
    assert load("mine:Net").weights_sha256 == loaded.weights_sha256  # the same random start each time
    assert load("mine:build", image_size=32).image_size == 32


def test_what_a_factory_does_not_say_is_assumed_aloud(folder: Path) -> None:
    loaded = load("mine:build_plain")
    assert (loaded.image_size, loaded.num_classes, loaded.preprocessing.mean) == (224, 6, (0.5, 0.5, 0.5))
    assert [note.split(";")[0] for note in loaded.notes] == [
        f"the module has no attribute {name}" for name in ("image_size", "mean", "std")
    ]


def test_a_factory_takes_weights_by_its_own_keys(folder: Path) -> None:
    save_file({"fc.weight": torch.ones(4, 3), "fc.bias": torch.zeros(4)}, folder / "w.safetensors")
    loaded = load("mine:build", weights="w.safetensors")
    assert (loaded.module.fc.weight == 1).all()
    assert loaded.weights == FILE
    save_file({"fc.weight": torch.ones(4, 3)}, folder / "w.safetensors")
    with pytest.raises(UserError, match=r"1 missing \(fc.bias\)"):
        load("mine:build", weights="w.safetensors")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("mien:build", r"no module mien.*did you mean mine\?"),
        ("mine:biuld", r"mine:biuld is nothing of that name.*did you mean build"),
        ("mine:ready", r"mine:ready is a Net; expected a function without arguments"),
        ("mine:build_list", r"returned a list; expected a torch.nn.Module"),
        ("mine:build_badly", r"mine:build_badly\(\) raised TypeError: .* at .*mine.py:25: return torch.nn.Linear"),
        ("mine:build_map", r"answers one image with a tensor \[1, 4, 224, 224\]; expected logits \[1, classes\]"),
        ("broken:build", r"importing broken raised ZeroDivisionError: .* at .*broken.py:3: 1 / 0"),
        ("unfinished:build", r"importing unfinished raised SyntaxError: .* at .*unfinished.py:1: def build"),
        ("needy:build", r"ModuleNotFoundError: No module named 'a_package_that_is_not_there' at .*needy.py:1"),
    ],
)
def test_what_can_be_wrong_with_a_factory(folder: Path, source: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(source)


def test_a_factorys_model_that_refuses_the_size(folder: Path) -> None:
    with pytest.raises(UserError, match=r"on an image \[1, 3, 4, 4\] raised ValueError: too small at .*mine.py:12"):
        load("mine:build", image_size=4)
    with pytest.raises(UserError, match=r"--num-classes 3 for mine:build; expected none"):
        load("mine:build", num_classes=3)


# ---- timm -----------------------------------------------------------------------------------------------------------


@needs_timm
def test_timm_models_bring_their_own_preprocessing(tmp_path: Path) -> None:
    a, b = (load("timm:fastvit_t8", image_size=64, num_classes=3) for _ in range(2))
    assert (a.image_size, a.num_classes, a.weights, a.weights_sha256) == (64, 3, RANDOM, None)
    assert (a.preprocessing.mean, a.preprocessing.resize_to) == (TIMM_MEAN, 71)  # of 64 / 0.9
    assert hash_state(a.module) == hash_state(b.module)
    save_file(a.module.state_dict(), tmp_path / "w.safetensors")
    filled = load("timm:fastvit_t8", image_size=64, num_classes=3, weights=tmp_path / "w.safetensors")
    assert (filled.weights, hash_state(filled.module)) == (FILE, hash_state(a.module))
    with pytest.raises(UserError, match=r"misshaped \(head.fc.weight \[3, 768\] instead of \[1000, 768\]"):
        load("timm:fastvit_t8", image_size=64, weights=tmp_path / "w.safetensors")


@needs_timm
def test_timm_transformers_take_another_image_size() -> None:
    loaded = load("timm:vit_tiny_patch16_224.augreg_in21k", image_size=64, num_classes=5)
    assert loaded.module(torch.zeros(1, 3, 64, 64)).shape == (1, 5)
    assert loaded.preprocessing.mean == (0.5, 0.5, 0.5)


@needs_timm
@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("timm:vit_tinny_patch16_224", "no model 'vit_tinny_patch16_224'.*did you mean vit_tiny_patch16_224"),
        ("timm:vit_tiny_patch16_224.xx", "has no weights 'xx'; expected augreg_in21k"),
        ("timm:hf-hub:somebody/something", "timm has no model 'hf-hub:somebody/something'"),
        ("timm:local-dir:somewhere", "timm has no model 'local-dir:somewhere'"),
    ],
)
def test_only_timms_own_names(source: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(source)


@needs_timm
def test_a_download_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(foreign.import_timm().models._builder, "load_state_dict_from_hf", refuse)
    with pytest.raises(UserError, match=r"cannot make vit_tiny_patch16_224 \(OSError: no network\).*--weights FILE"):
        load("timm:vit_tiny_patch16_224", weights="pretrained")


@needs_timm
def test_labels_of_imagenet() -> None:
    model = load("timm:fastvit_t8", image_size=64).module
    labels = foreign.list_labels(model, 1000)
    assert labels is not None
    assert len(labels) == 1000
    assert "goldfish" in labels[1]
    assert foreign.list_labels(model, 5) is None


@pytest.mark.parametrize("missing", ["timm", "torchvision"])
def test_without_timm_one_line_says_what_to_install(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    monkeypatch.setattr(foreign, "import_module", refuse)
    with pytest.raises(UserError, match=rf"^{missing} is not installed; .*pip install 'bigvit-edge\[timm\]'$"):
        load("timm:fastvit_t8")
