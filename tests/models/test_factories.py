"""A user's own function that returns a model."""

import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bigvit_edge.errors import UserError
from bigvit_edge.models.load import FACTORY, FILE, load
from bigvit_edge.models.weights import hash_state
from bigvit_edge.preprocessing import Preprocessing

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

def build_class():
    return Net

def build_wide(width, *, depth=2):
    return Net()

def build_wrapped():
    return torch.nn.DataParallel(torch.nn.Sequential(torch.compile(Net())))

class Stateful(Net):
    def get_extra_state(self):
        return {"version": 3}
    def set_extra_state(self, state):
        pass

def build_large():
    return torch.nn.Linear(2**20, 2**20)

def build_vision():
    print("hello")
    import torchvision
    model = torchvision.models.VisionTransformer(32, 16, 1, 2, 32, 64, num_classes=5)
    model.image_size = 32
    return model

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
    forget()  # a module of that name in another test's folder
    yield tmp_path
    forget()


def forget() -> None:
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
        ("mine:build_class", r"build_class\(\) returned the class Net; expected a torch.nn.Module; return Net\(\)"),
        ("mine:build_wide", r"build_wide needs arguments \(width\).*def build\(\): return build_wide\(width=...\)"),
        ("mine:build_large", r"build_large\(\) takes more than 75% of the free memory \([\d.]+ GiB\)"),
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


def test_wrappers_are_taken_off_aloud(folder: Path) -> None:
    loaded = load("mine:build_wrapped", image_size=24)
    assert [type(module).__name__ for module in loaded.module.modules()] == ["Sequential", "Net", "Linear"]
    assert [note.split(" was taken off")[0] for note in loaded.notes[:2]] == ["DataParallel", "OptimizedModule"]


def test_extra_state_does_not_hinder(folder: Path) -> None:
    assert load("mine:Stateful").weights_sha256 == load("mine:build").weights_sha256  # the same tensors


@pytest.mark.skipif(find_spec("torchvision") is None, reason="needs the extra [timm]")
def test_a_factory_may_import_torchvision_first(folder: Path) -> None:
    """In a process of its own, where nothing has defined torchvision's ops before; what it prints is no output."""
    line = "from bigvit_edge.models.load import load; print(load('mine:build_vision').num_classes)"
    done = subprocess.run([sys.executable, "-c", line], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout == "5\n"
    assert "hello" in done.stderr
