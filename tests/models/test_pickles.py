"""PyTorch files as trainers write them, and as attackers do: tensors come out, and nothing is run."""

import argparse
import collections
import datetime
import functools
import os
import pathlib
import pickle
import subprocess
import types
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bigvit_edge.errors import UserError
from bigvit_edge.models.weights import read_entries

TENSOR = torch.arange(3.0)


class Config(dict[str, object]):
    """A mapping with attributes of its own, as configurations are."""


@dataclass
class Options:
    rate: float
    folder: Path


def explode(name: str = "exploded") -> None:
    Path(name).touch()


class Armed:
    """An object that is read by calling what it was given."""

    def __init__(self, call: object, *args: object) -> None:
        self.call, self.args = call, args

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call, self.args


def save_legacy(content: object, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def make_config() -> Config:
    config = Config(lr=0.1, sizes=collections.deque([1, 2], 3))
    config.frozen = True  # type: ignore[attr-defined]
    return config


@pytest.mark.parametrize("save", [torch.save, save_legacy])
@pytest.mark.parametrize(
    "beside",
    [
        argparse.Namespace(lr=1e-3, model="vit"),
        np.float64(0.8),
        np.arange(3),
        {"metric": np.int64(3), "best": np.bool_(True)},
        datetime.datetime.now(datetime.UTC),
        pathlib.PurePosixPath("a/b"),
        pathlib.PurePath,
        collections.defaultdict(list, {"loss": [1, 2]}),
        collections.defaultdict(dict, {"a": {"b": collections.deque([1])}}),
        collections.OrderedDict(a=1),
        collections.Counter("abc"),
        types.SimpleNamespace(a=1),
        torch.Size([1, 2]),
        torch.float32,
        torch.device("cpu"),
        functools.partial(dict, a=1),
        make_config(),
        Options(0.1, Path("runs")),
        {1, 2},
        frozenset({1}),
        torch.optim.lr_scheduler.LinearLR,
        Armed(explode),
        Armed(explode, "here"),
        Armed(np.fromfile, "w.pth"),
    ],
)
def test_what_trainers_put_beside_the_weights(
    save: object, beside: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save({"args": beside, "state_dict": {"w": TENSOR}, "again": [beside]}, tmp_path / "w.pth")  # type: ignore[operator]
    found = read_entries(tmp_path / "w.pth")
    assert torch.equal(found["state_dict.w"], TENSOR)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["w.pth"]


@pytest.mark.parametrize("save", [torch.save, save_legacy])
@pytest.mark.parametrize(
    "armed",
    [
        Armed(exec, "import pathlib; pathlib.Path('exploded').touch()"),
        Armed(eval, "__import__('pathlib').Path('exploded').touch()"),
        Armed(os.system, "touch exploded"),
        Armed(subprocess.Popen, ["touch", "exploded"]),
        Armed(functools.partial, exec, "open('exploded', 'w')"),
        Armed(getattr, "", "format"),
        Armed(pickle.loads, b"N."),
        Armed(open, "exploded", "w"),
    ],
)
def test_code_of_the_standard_library_is_named_and_not_run(
    save: object, armed: Armed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save({"state_dict": {"w": TENSOR}, "args": armed}, tmp_path / "w.pth")  # type: ignore[operator]
    with pytest.raises(UserError, match=r"pickle with code in it \(\S+\), which was not executed"):
        read_entries(tmp_path / "w.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["w.pth"]


@pytest.mark.parametrize("save", [torch.save, save_legacy])
def test_a_whole_module_is_called_one(save: object, tmp_path: Path) -> None:
    save(nn.Sequential(nn.Linear(2, 2), nn.GELU()), tmp_path / "w.pth")  # type: ignore[operator]
    kind = "module" if save is save_legacy else "Sequential"
    with pytest.raises(UserError, match=rf"holds a whole {kind}, .*not executed.*torch.save\(model.state_dict\(\)"):
        read_entries(tmp_path / "w.pth")
    torch.save({"model": nn.Linear(2, 2), "epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"holds no tensors by name \(model \(a Linear\), epoch \(an int\)\)"):
        read_entries(tmp_path / "w.pth")


def test_reading_leaves_pytorchs_list_of_safe_classes_alone(tmp_path: Path) -> None:
    before = set(torch.serialization.get_safe_globals())
    torch.save({"args": argparse.Namespace(), "w": TENSOR}, tmp_path / "w.pth")
    read_entries(tmp_path / "w.pth")
    assert set(torch.serialization.get_safe_globals()) == before
