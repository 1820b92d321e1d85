"""Manifests: what is written comes back, what is damaged is refused."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from bigvit_edge.artifact import (
    Accuracy,
    Entry,
    Leftover,
    Manifest,
    Parity,
    Tensor,
    Verified,
    hash_file,
    list_versions,
    measure_size,
    read_manifest,
    write_data,
    write_manifest,
)  # fmt: skip
from bigvit_edge.errors import UserError
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


def test_a_manifest_comes_back(tmp_path: Path) -> None:
    write_manifest(MANIFEST, tmp_path)
    assert read_manifest(tmp_path) == MANIFEST


def test_the_keys_that_others_rely_on(tmp_path: Path) -> None:
    write_manifest(MANIFEST, tmp_path)
    data = json.loads((tmp_path / "manifest.json").read_text())
    assert {"model", "image_size", "target", "dispatch", "artifacts"} <= set(data)
    entry = data["artifacts"][0]
    wanted = {
        "file",
        "format",
        "precision",
        "sha256",
        "bytes",
        "inputs",
        "outputs",
        "preprocessing",
        "labels",
        "methods",
    }
    assert wanted | {"layers", "tools"} <= set(entry)
    assert {"name", "keep", "delegates", "leftovers", "fragments", "parity", "accuracy"} == set(entry["methods"][0])
    assert set(entry["methods"][0]["parity"]) == {"max_abs", "cosine_min", "cosine_mean", "top1_agreement", "images"}


def spoil(data: dict[str, Any], **fields: object) -> dict[str, Any]:
    """The manifest with fields of its first file changed."""
    return data | {"artifacts": [data["artifacts"][0] | fields]}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data | {"version": 99}, "version 99; expected version 2"),
        (lambda data: {k: v for k, v in data.items() if k != "model"}, "cannot be understood"),
        (lambda data: data | {"artifacts": [data["artifacts"][0] | {"file": "../../etc/passwd"}]}, "not in the bundle"),
        (lambda data: data | {"limits": {"images": "many"}}, r"limits.images"),
        (lambda data: data | {"image_size": "large"}, r"image_size"),
        (lambda data: data | {"artifacts": [data["artifacts"][0] | {"methods": []}]}, r"has no methods"),
        (lambda data: data | {"artifacts": []}, r"at least one of each"),
        (lambda data: data | {"threads": 0}, r"0 threads"),
        (lambda data: data | {"threads": 10**12}, r"1000000000000 threads"),
        (lambda data: data | {"dispatch": "zzz"}, r"dispatch 'zzz'"),
        (lambda data: spoil(data, file=".."), r"not in the bundle"),
        (lambda data: spoil(data, outputs=[]), r"where one image and its logits"),
        (lambda data: spoil(data, methods=data["artifacts"][0]["methods"] * 2), r"two methods"),
        (lambda data: spoil(data, preprocessing=asdict(ENTRY.preprocessing) | {"size": 0}), r"does not make an input"),
        (lambda data: data | {"limits": {"images": 0}}, r"limits.images=0"),
        (lambda data: data | {"artifacts": [data["artifacts"][0] | {"format": "tosa"}]}, r"tosa int8 is no format"),
        (lambda data: data | {"artifacts": [data["artifacts"][0] | {"labels": ["a"]}]}, r"1 labels for an output"),
        (lambda data: data | {"artifacts": 3}, "cannot be understood"),
        (lambda data: [data], "cannot be understood"),
    ],
)
def test_damaged_manifest(tmp_path: Path, damage: object, message: str) -> None:
    write_manifest(MANIFEST, tmp_path)
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(UserError, match=message):
        read_manifest(tmp_path)


def test_not_json(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(UserError, match=r"cannot be understood"):
        read_manifest(tmp_path)


def test_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no manifest.json in"):
        read_manifest(tmp_path)


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
