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


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.95])
def test_truncated_file(tmp_path: Path, name: str, share: float) -> None:
    path = tmp_path / name
    save = save_file if name.endswith("safetensors") else torch.save
    save(net().state_dict(), path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(UserError, match=r"cannot be read|pickle with code"):
        read_weights(path)


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("import pathlib; pathlib.Path('exploded').touch()",)


@pytest.mark.parametrize("protocol", ["torch", "plain"])
def test_a_pickle_with_code_is_not_executed(tmp_path: Path, protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pth"
    if protocol == "torch":
        torch.save({"w": Bomb()}, path)
    else:
        path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UserError, match=r"pickle with code in it.*not executed"):
        read_weights(path)
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
