"""Files that are no checkpoints are called what they are."""

import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bigvit_edge.errors import UserError
from bigvit_edge.models.weights import read_entries


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.pth", b"", "is empty"),
        (
            "w.safetensors",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
            "a Git LFS pointer.*git lfs pull",
        ),
        ("w.pth", b"\n<!DOCTYPE html><html>", "a web page"),
        ("w.bin", b"\x89HDF\r\n\x1a\n" + bytes(50), "an HDF5 file, as Keras writes"),
        ("model.pt", b"\x1c\0\0\0TFL3" + bytes(20), "a LiteRT .* model"),
        ("model.pt", b"\x1c\0\0\0ET12" + bytes(20), "an ExecuTorch program"),
        ("w.pth", b"GGUF" + bytes(20), "a GGUF file"),
        ("w.pth", b"\x1f\x8b\x08" + bytes(20), "a compressed file; .*unpack"),
        ("model.onnx", b"\x08\x09\x12\x07pytorch", "an ONNX model"),
        ("flax.msgpack", b"\x82\xa6", "a Flax checkpoint"),
        ("saved_model.pb", b"\x08\x01", "a TensorFlow graph"),
        ("model.ckpt-7.data-00000-of-00001", b"\0\1", "a part of a TensorFlow checkpoint"),
        ("model.ckpt.index", b"\0\1", "a part of a TensorFlow checkpoint"),
        ("w.pth", b"Not here any more.\n", "is a text"),
        ("w.pth", b"PK\x03\x04" + bytes(60), "is cut short.*again"),
        ("w.npz", b"PK\x03", "is cut short.*again"),
        ("w.index.json", b"[1, 2]", "has no weight_map.*an index"),
        ("w.index.json", b'{"weight_map"', "has no weight_map.*an index"),
    ],
)
def test_other_kinds_are_named(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_entries(tmp_path / name)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (["m/data.pkl", "m/code/__torch__.py", "m/constants.pkl"], "a TorchScript program.*torch.jit.load"),
        (["m/archive_format", "m/models/model.json"], "a program of torch.export"),
        (["config.json", "model.weights.h5"], "a Keras model"),
        (["a.png", "b.png"], r"a zip file \(a.png, b.png\)"),
    ],
)
def test_zips_are_named_by_what_is_in_them(members: list[str], message: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        for member in members:
            archive.writestr(member, b"x")
    with pytest.raises(UserError, match=message):
        read_entries(tmp_path / "w.pt")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_of_pytorchs_own(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), tmp_path / "w.pt")  # type: ignore[no-untyped-call]
    with pytest.raises(UserError, match="a TorchScript program"):
        read_entries(tmp_path / "w.pt")


def test_a_safetensors_file_may_begin_with_any_length(tmp_path: Path) -> None:
    tensors = {"w": torch.ones(2)}
    for pad in range(300):  # some header's length is 0x8b1f's last byte
        save_file(tensors, tmp_path / "w.bin", {"p": "x" * pad})
        assert read_entries(tmp_path / "w.bin").keys() == {"w"}


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is a folder; expected a .safetensors"):
        read_entries(tmp_path)
