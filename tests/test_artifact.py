"""Manifests: what is written comes back, what is damaged is refused."""

import json
from pathlib import Path

import pytest

from bigvit_edge.artifact import (
    Accuracy,
    Entry,
    Leftover,
    Manifest,
    Parity,
    Preprocessing,
    Tensor,
    hash_file,
    list_versions,
    read_manifest,
    write_manifest,
)  # fmt: skip
from bigvit_edge.errors import UserError
from bigvit_edge.target import Limits

ENTRY = Entry(
    file="m_int8.tflite", format="litert", precision="int8", sha256="0" * 64, bytes=3,
    inputs=(Tensor("image", (1, 3, 8, 8)),), outputs=(Tensor("logits", (1, 2)),),
    preprocessing=Preprocessing(8, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), labels=("a", "b"),
    parity=Parity(0.1, 0.99, 0.995, 1.0, 4), accuracy=Accuracy(0.5, 0.75, 4), delegates=3,
    leftovers=(Leftover("topk", "layers.0", 0.0),), tools={"torch": "2"},
)  # fmt: skip
MANIFEST = Manifest("m", 0.5, "android", "shipped", "0" * 64, Limits(images=4), 1, (ENTRY,))


def test_a_manifest_comes_back(tmp_path: Path) -> None:
    write_manifest(MANIFEST, tmp_path)
    assert read_manifest(tmp_path) == MANIFEST


def test_the_keys_that_others_rely_on(tmp_path: Path) -> None:
    write_manifest(MANIFEST, tmp_path)
    data = json.loads((tmp_path / "manifest.json").read_text())
    assert {"model", "keep", "target", "artifacts"} <= set(data)
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
        "parity",
    }
    assert wanted | {"accuracy", "leftovers", "tools"} <= set(entry)
    assert set(entry["parity"]) == {"max_abs", "cosine_min", "cosine_mean", "top1_agreement", "images"}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data | {"version": 99}, "version 99; expected version 1"),
        (lambda data: {k: v for k, v in data.items() if k != "model"}, "cannot be understood"),
        (lambda data: data | {"artifacts": [data["artifacts"][0] | {"file": "../../etc/passwd"}]}, "not in the bundle"),
        (lambda data: data | {"limits": {"images": "many"}}, r"limits.images"),
        (lambda data: data | {"keep": "half"}, r"keep"),
        (lambda data: data | {"artifacts": []}, r"at least one of each"),
        (lambda data: data | {"threads": 0}, r"0 threads"),
        (lambda data: data | {"limits": {"images": 0}}, r"limits.images=0"),
        (lambda data: data | {"artifacts": [data["artifacts"][0] | {"format": "coreml"}]}, r"coreml int8 is no format"),
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
