"""What an export leaves: hashes and sizes of files and packages."""

import os
from pathlib import Path

import pytest

from bigvit_edge.artifact import (
    Entry,
    Leftover,
    Manifest,
    Tensor,
    Verified,
    hash_file,
    list_versions,
    measure_size,
    write_data,
)  # fmt: skip
from bigvit_edge.errors import UserError
from bigvit_edge.measures import Accuracy, Parity
from bigvit_edge.preprocessing import Preprocessing
from bigvit_edge.target import Limits, Quant

ENTRY = Entry(
    file="m_int8.tflite", format="litert", precision="int8", sha256="0" * 64, bytes=3,
    inputs=(Tensor("image", (1, 3, 8, 8)),), outputs=(Tensor("logits", (1, 2)),),
    preprocessing=Preprocessing(8, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), labels=("a", "b"),
    methods=(
        Verified(
            name="serving_default", keep=0.5, delegates=3, leftovers=(Leftover("topk", "layers.0", 0.0, "no top-k"),),
            fragments={"layers.0": 2}, parity=Parity(0.1, 0.99, 0.995, 1.0, 4), accuracy=Accuracy(0.5, 0.75, 4),
        ),
    ),
    layers={"head": "int8"}, tools={"torch": "2"},
)  # fmt: skip
MANIFEST = Manifest(
    model="m", image_size=8, num_classes=2, target="android", dispatch="permute", backend="xnnpack", deployment="iOS17",
    quant=Quant(), weights="shipped", weights_sha256="0" * 64, limits=Limits(images=4), threads=1, artifacts=(ENTRY,),
)  # fmt: skip


def test_hash_of_known_bytes(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert hash_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_package_that_is_not_there_is_said_so() -> None:
    assert list_versions(["no-such-package"])["no-such-package"] == "not installed"


def test_a_package_is_hashed_by_its_files_and_their_names(tmp_path: Path) -> None:
    data = {"Manifest.json": b"{}", "Data/weights/w.bin": b"abc"}
    for name in ("one", "two", "renamed", "changed"):
        write_data(data, tmp_path / name)
    (tmp_path / "renamed/Data/weights/w.bin").rename(tmp_path / "renamed/Data/weights/v.bin")
    (tmp_path / "changed/Data/weights/w.bin").write_bytes(b"abd")
    one, *others = (hash_file(tmp_path / name) for name in ("one", "two", "renamed", "changed"))
    assert [other == one for other in others] == [True, False, False]
    assert measure_size(tmp_path / "one") == 5
    write_data(b"abcd", tmp_path / "file")
    assert measure_size(tmp_path / "file") == 4


def test_a_package_with_a_pipe_or_a_link_is_refused(tmp_path: Path) -> None:
    write_data({"a": b"1"}, tmp_path / "linked")
    (tmp_path / "linked/b").symlink_to("/dev/zero")
    write_data({"a": b"1"}, tmp_path / "piped")
    os.mkfifo(tmp_path / "piped/b")
    for name in ("linked", "piped"):
        with pytest.raises(UserError, match=r"b is a link or a device"):
            hash_file(tmp_path / name)
