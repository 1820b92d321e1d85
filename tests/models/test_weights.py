"""Checkpoints, good and bad."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bigvit_edge.errors import UserError
from bigvit_edge.models.weights import load_weights, read_metadata, read_weights, save_weights


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(4, 4) for _ in range(4)))


def test_saved_weights_come_back_in_half_precision(tmp_path: Path) -> None:
    model, again = net(), net()
    nn.init.zeros_(again[0].weight)
    save_weights(model, tmp_path / "w.safetensors", {"recipe": "r"})
    load_weights(again, tmp_path / "w.safetensors")
    assert torch.equal(again[0].weight, model[0].weight.half().float())
    assert read_metadata(tmp_path / "w.safetensors") == {"recipe": "r"}
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model": s, "epoch": 3}, lambda s: {"state_dict": s}])
def test_torch_checkpoints_load(tmp_path: Path, wrap: object) -> None:
    torch.save(wrap(net().state_dict()), tmp_path / "w.pth")
    load_weights(net(), tmp_path / "w.pth")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file .*nowhere"):
        read_weights(tmp_path / "nowhere.pth")


def save_legacy(state: dict[str, torch.Tensor], path: Path) -> None:
    torch.save(state, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize(
    ("name", "save"), [("w.safetensors", save_file), ("w.pth", torch.save), ("old.pth", save_legacy)]
)
def test_a_file_cut_anywhere_is_said_to_be_unreadable(tmp_path: Path, name: str, save: object) -> None:
    path = tmp_path / name
    save(net().state_dict(), path)
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, max(1, len(whole) // 40)):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"not executed|nothing in it was executed"):
            read_weights(path)


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n" + bytes(50), b'{"a": 1}', b"some text\n", bytes(range(256))])
def test_another_kind_of_file_is_not_called_code(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"cannot be read as tensors"):
        read_weights(tmp_path / "x.pth")


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("import pathlib; pathlib.Path('exploded').touch()",)


def save_pickle(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("save", [torch.save, save_legacy, save_pickle])
def test_a_pickle_with_code_is_not_executed(tmp_path: Path, save: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save({"w": Bomb()}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match=r"pickle with code in it \(.*exec.*\), which was not executed"):
        read_weights(tmp_path / "evil.pth")
    assert not Path("exploded").exists()


def test_not_a_state_dict(tmp_path: Path) -> None:
    torch.save([1, 2, 3], tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"holds a list.*expected a state dict"):
        read_weights(tmp_path / "w.pth")


def test_missing_keys_are_counted_and_five_listed(tmp_path: Path) -> None:
    save_file({"0.weight": torch.zeros(4, 4)}, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"7 missing \(0.bias, 1.weight, 1.bias, 2.weight, 2.bias and 2 more\)"):
        load_weights(net(), tmp_path / "w.safetensors")


def test_misshaped_and_unexpected_keys_are_named(tmp_path: Path) -> None:
    state = net().state_dict() | {"0.weight": torch.zeros(3, 4), "extra": torch.zeros(1)}
    save_file(state, tmp_path / "w.safetensors")
    model = net()
    before = model[1].weight.clone()
    with pytest.raises(
        UserError, match=r"1 unexpected \(extra\); 1 misshaped \(0.weight \[3, 4\] instead of \[4, 4\]\)"
    ):
        load_weights(model, tmp_path / "w.safetensors")
    assert torch.equal(model[1].weight, before)
