"""Checkpoints, good and bad."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bigvit_edge.errors import UserError
from bigvit_edge.models.weights import (
    hash_state,
    hash_weights,
    load_weights,
    read_metadata,
    read_weights,
    save_weights,
)


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
    model, again = net(), net()
    for parameter in again.parameters():
        nn.init.zeros_(parameter)
    torch.save(wrap(model.state_dict()), tmp_path / "w.pth")
    load_weights(again, tmp_path / "w.pth")
    for key, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], tensor), key


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
        with pytest.raises(UserError, match=r"nothing in it was executed|is empty|is cut short"):
            read_weights(path)


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n" + bytes(50), b'{"a": 1}', b"some text\n", bytes(range(256))])
def test_another_kind_of_file_is_not_called_code(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"cannot be read as tensors|is a text"):
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
    save_file({"w": torch.zeros(4, 4)}, tmp_path / "v.safetensors")
    with pytest.raises(UserError, match=r"none of the 8 keys of Sequential; it has w;"):
        load_weights(net(), tmp_path / "v.safetensors")
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


# ---- an index over several files ------------------------------------------------------------------------------------


def write_shards(folder: Path, suffix: str = ".safetensors", **changes: str | None) -> Path:
    """net() in two files and their index; changes: other file names for keys, '__' standing for '.'."""
    state = net().state_dict()
    places = {key: f"model-{1 + int(key[0]) // 2:05}-of-00002{suffix}" for key in state}
    for name in set(places.values()):
        part = {key: tensor for key, tensor in state.items() if places[key] == name}
        save_file(part, folder / name) if suffix == ".safetensors" else torch.save(part, folder / name)
    index = folder / f"model{suffix}.index.json"
    changed = {key.replace("__", "."): value for key, value in changes.items()}
    index.write_text(json.dumps({"metadata": {"total_size": 320}, "weight_map": places | changed}))
    return index


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_an_index_is_read_with_all_its_files(suffix: str, tmp_path: Path) -> None:
    index = write_shards(tmp_path, suffix)
    again = net()
    for parameter in again.parameters():
        nn.init.zeros_(parameter)
    load_weights(again, index)
    assert hash_state(again) == hash_state(net())
    with pytest.raises(UserError, match=r"4 missing.*name the index of all its parts"):
        load_weights(net(), tmp_path / f"model-00001-of-00002{suffix}")


def test_the_hash_of_an_index_is_of_its_files_too(tmp_path: Path) -> None:
    index = write_shards(tmp_path)
    before = hash_weights(index)
    assert hash_weights(index) == before
    save_file({"2.weight": torch.zeros(4, 4)}, tmp_path / "model-00002-of-00002.safetensors")
    assert hash_weights(index) != before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"0__weight": "../model-00001-of-00002.safetensors"}, r"names the file '../model.*; expected the name of a"),
        ({"0__weight": "/etc/passwd"}, r"names the file '/etc/passwd'"),
        ({"0__weight": "sub/w.safetensors"}, r"names the file 'sub/w.safetensors'"),
        ({"0__weight": ".."}, r"\.\. is not there"),
        ({"0__weight": ""}, r"is not there"),
        ({"0__weight": "model.safetensors.index.json"}, r"names the file 'model.safetensors.index.json'"),
        ({"0__weight": "model-00003-of-00003.safetensors"}, r"model-00003-of-00003.safetensors is not there"),
        ({"0__weight": "model-00002-of-00002.safetensors"}, r"model-00002-of-00002.safetensors lacks 0.weight"),
        ({"0__weight": None}, r"has no weight_map"),
    ],
)
def test_an_index_leads_nowhere_else(changes: dict[str, str | None], message: str, tmp_path: Path) -> None:
    index = write_shards(tmp_path, **changes)
    with pytest.raises(UserError, match=message):
        read_weights(index)
    if "lacks" not in message:  # which only reading shows
        with pytest.raises(UserError, match=message):
            hash_weights(index)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"weight_map": 3}', b'{"weight_map": {}}', b"\xff{"])
def test_what_is_no_index(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "w.index.json").write_bytes(content)
    with pytest.raises(UserError, match=r"cannot be read|no weight_map|is empty"):
        read_weights(tmp_path / "w.index.json")


def test_a_file_under_anothers_name_is_named(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"a PyTorch file under another's name.*rename it to .pth"):
        read_weights(tmp_path / "w.safetensors")
