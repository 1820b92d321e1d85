"""Manifests: what is written comes back, what is damaged is refused; and what in a folder is not as it was exported."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from bigvit_edge.artifact import Entry, hash_file, measure_size
from bigvit_edge.errors import UserError
from bigvit_edge.manifest import check_output, find_fault, list_changes, read_manifest, write_manifest
from tests.test_artifact import ENTRY, MANIFEST


def test_a_manifest_comes_back(tmp_path: Path) -> None:
    write_manifest(MANIFEST, tmp_path)
    assert replace(read_manifest(tmp_path), sha256=None) == MANIFEST


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
    assert {
        "name",
        "keep",
        "delegates",
        "leftovers",
        "fragments",
        "parity",
        "accuracy",
        "coverage",
        "conversions",
        "spans",
        "confusions",
    } == set(entry["methods"][0])
    parity, accuracy = (entry["methods"][0][name] for name in ("parity", "accuracy"))
    assert {"max_abs", "cosine_min", "cosine_mean", "top1_agreement", "images"} <= set(parity)
    assert {"top1_interval", "centred_cosine", "spread", "span"} <= set(parity)
    assert set(accuracy) == {"top1", "pytorch_top1", "images", "top1_interval"}


def test_a_manifest_of_version_2_has_no_intervals_centred_cosines_and_coverage(tmp_path: Path) -> None:
    data = json.loads(json.dumps(asdict(MANIFEST))) | {"version": 2}
    for name in ("top1_interval", "centred_cosine", "spread", "span"):
        del data["artifacts"][0]["methods"][0]["parity"][name]
    del data["artifacts"][0]["methods"][0]["accuracy"]["top1_interval"], data["artifacts"][0]["methods"][0]["coverage"]
    for name in ("int8_centred", "untrained_int4_cosine"):
        del data["limits"][name]
    (tmp_path / "manifest.json").write_text(json.dumps(data))
    assert read_manifest(tmp_path) == replace(MANIFEST, version=2)


def spoil(data: dict[str, Any], **fields: object) -> dict[str, Any]:
    """The manifest with fields of its first file changed."""
    return data | {"artifacts": [data["artifacts"][0] | fields]}


def resize(data: dict[str, Any], size: int, classes: int) -> dict[str, Any]:
    shapes = {"inputs": [{"name": "image", "shape": [1, 3, size, size]}]}
    shapes |= {"outputs": [{"name": "logits", "shape": [1, classes]}]}
    return spoil(prepare(data, size=size), **shapes, labels=None)


def prepare(data: dict[str, Any], **fields: object) -> dict[str, Any]:
    return spoil(data, preprocessing=data["artifacts"][0]["preprocessing"] | fields)


def point(data: dict[str, Any], **fields: object) -> dict[str, Any]:
    return spoil(data, methods=[data["artifacts"][0]["methods"][0] | fields])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data | {"version": 99}, "version 99; expected version 2 or 3"),
        (lambda data: {k: v for k, v in data.items() if k != "version"}, "has no version; expected version 2 or 3"),
        (lambda data: {k: v for k, v in data.items() if k != "model"}, "cannot be understood"),
        (lambda data: data | {"backend": "cuda"}, r"backend 'cuda', where one of xnnpack"),
        (lambda data: data | {"deployment": "iOS9"}, r"deployment 'iOS9'"),
        (lambda data: data | {"weights": "stolen"}, r"weights 'stolen'"),
        (lambda data: data | {"artifacts": data["artifacts"] * 2}, r"two artifacts of one file"),
        (lambda data: data | {"note": float("nan")}, r"cannot be understood \(the number NaN"),
        (lambda data: data | {"limits": {"fp32_max_abs": float("inf")}}, r"the number Infinity"),
        (lambda data: data | {"image_size": 10**400}, r"the number 1000"),
        (lambda data: spoil(data, file="manifest.json"), r"not in the bundle"),
        (lambda data: spoil(data, file="a\0b"), r"not in the bundle"),
        (lambda data: spoil(data, file="a\ud800b"), r"cannot be understood"),
        (lambda data: resize(data, 100_000, 2), r"where 1 to 8192"),
        (lambda data: resize(data, 2**31, 2), r"where 1 to 8192"),
        (lambda data: resize(data, 8000, 2), r"at most 4096 pixels"),
        (lambda data: resize(data, 8, 2**31), r"at most 4096 pixels and 1000000 classes"),
        (lambda data: resize(data, 2**70, 2), r"the number 11805"),
        (lambda data: prepare(data, mean=[float("nan")] * 3), r"the number NaN"),
        (lambda data: prepare(data, std=[0.5, 0, 0.5]), r"std .*, where numbers above 0"),
        (lambda data: prepare(data, std=[0.5, -1, 0.5]), r"std .*, where numbers above 0"),
        (lambda data: prepare(data, scale=0), r"scale 0.0, where a number above 0"),
        (
            lambda data: spoil(data, outputs=[{"name": "logits", "shape": [1, 2], "dtype": "int8"}]),
            r"dtype='int8'.*in float32 is expected",
        ),
        (lambda data: point(data, keep=0), r"a keep ratio that is not above 0"),
        (lambda data: point(data, keep=1.5), r"a keep ratio that is not above 0"),
        (lambda data: data | {"artifacts": [data["artifacts"][0] | {"file": "../../etc/passwd"}]}, "not in the bundle"),
        (lambda data: data | {"limits": {"images": "many"}}, r"limits.images"),
        (lambda data: data | {"image_size": "large"}, r"image_size"),
        (lambda data: data | {"artifacts": [data["artifacts"][0] | {"methods": []}]}, r"has no methods"),
        (lambda data: data | {"artifacts": []}, r"at least one of each"),
        (lambda data: data | {"threads": 0}, r"0 threads"),
        (lambda data: data | {"threads": 10**12}, r"1000000000000 threads"),
        (lambda data: data | {"dispatch": "zzz"}, r"dispatch 'zzz'"),
        (lambda data: spoil(data, file=".."), r"not in the bundle"),
        (lambda data: spoil(data, file="use"), r"not in the bundle"),
        (lambda data: data | {"samples": {"use/../x": "0"}}, r"sample 'use/../x', which is not in use/"),
        (lambda data: data | {"samples": {"/etc/passwd": "0"}}, r"which is not in use/"),
        (lambda data: data | {"samples": {"use": "0"}}, r"which is not in use/"),
        (lambda data: data | {"samples": ["use/x"]}, "samples"),
        (lambda data: data | {"extras": {"../x": "0"}}, r"file '../x' is not in the bundle"),
        (lambda data: data | {"extras": {"manifest.json": "0"}}, r"file 'manifest.json' is not in the bundle"),
        (lambda data: data | {"extras": {ENTRY.file: "0"}}, r"or another's"),
        (lambda data: data | {"extras": {"use": "0"}}, r"or another's"),
        (lambda data: spoil(data, outputs=[]), r"where one image and its logits"),
        (lambda data: spoil(data, methods=data["artifacts"][0]["methods"] * 2), r"two methods"),
        (lambda data: spoil(data, preprocessing=asdict(ENTRY.preprocessing) | {"size": 9}), r"does not make an input"),
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


@pytest.mark.parametrize("content", [b"\xff\xfe{", b"", b"[" * 100_000, b'{"version": 1e999}', b"9" * 5000, b"null"])
def test_not_json(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(UserError, match=r"cannot be understood"):
        read_manifest(tmp_path)


SHIPPED = """
{"model": "blvit_demo", "image_size": null, "num_classes": null, "target": "host", "dispatch": "permute",
"backend": "xnnpack", "deployment": "iOS17", "quant": {"keep_float": ["router", "little", "down"], "group": 32,
"observer": "minmax", "percentile": 99.99, "candidates": ["int4", "int8", "fp32"], "p": "", "e": "", "router":
""}, "weights": "shipped", "weights_sha256": "d0287650a7a0290b84d190277df9297e1bc03ca8842c24fdbf965a710f20af66",
"limits": {"fp32_max_abs": 0.001, "fp32_cosine": 0.99999, "fp16_cosine": 0.9999, "int8_cosine": 0.999,
"static_cosine": 0.99, "int4_cosine": 0.98, "mixed_cosine": 0.999, "cosine_min": 0.5, "untrained_cosine": 0.99,
"top1_agreement": 0.99, "static_agreement": 0.98, "int4_agreement": 0.92, "low_keep_slack": 4.0, "images": 20,
"max_fallback": 0.05, "max_fragments": 4}, "threads": 1, "artifacts": [{"file": "blvit_demo_fp32.onnx",
"format": "onnx", "precision": "fp32", "sha256":
"01188357bb83a332e370e0ae20ece53f3e92d26584ca74ac176a25acab9305ea", "bytes": 2928098, "inputs": [{"name":
"image", "shape": [1, 3, 64, 64], "dtype": "float32"}], "outputs": [{"name": "logits", "shape": [1, 10],
"dtype": "float32"}], "preprocessing": {"size": 64, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "color":
"RGB", "crop": "largest centre square", "resize": "bilinear, antialiased", "layout": "NCHW", "scale":
0.00392156862745098}, "labels": ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"], "methods": [{"name": "main",
"keep": 0.5, "delegates": 0, "leftovers": [{"op": "topk", "layer": "layers.0", "mac_share": 0.0, "reason":
"refused"}], "fragments": {"layers.0": 2}, "parity": {"max_abs": 6.67572021484375e-06, "cosine_min":
0.999999999999235, "cosine_mean": 0.9999999999998389, "top1_agreement": 1.0, "images": 20}, "accuracy": {"top1":
1.0, "pytorch_top1": 1.0, "images": 20}}], "layers": {}, "tools": {"torch": "2.13.0+cpu"}, "evaluated": false}],
"version": 2}
"""  # a manifest of layout 2, as bigvit-edge wrote it on 2026-11-29


def test_the_layout_before_is_read(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(SHIPPED)
    manifest = read_manifest(tmp_path)
    assert (manifest.version, manifest.model, manifest.limits.images) == (2, "blvit_demo", 20)
    ((method,),) = (entry.methods for entry in manifest.artifacts)
    assert (method.keep, method.parity.images, method.fragments) == (0.5, 20, {"layers.0": 2})
    assert manifest.artifacts[0].preprocessing.crop == "largest centre square"
    (tmp_path / manifest.artifacts[0].file).write_bytes(b"")
    assert "0 bytes, the manifest says 2928098" in "".join(list_changes(tmp_path, manifest))
    assert "manifest.json has" not in "".join(list_changes(tmp_path, manifest))


def plant(path: Path, kind: str) -> None:
    match kind:
        case "device":
            path.symlink_to("/dev/zero")
        case "pipe":
            os.mkfifo(path)
        case "circle":
            path.symlink_to(path.name)
        case "folder":
            path.mkdir()
        case "sparse":
            with path.open("wb") as f:
                f.truncate(2**40)


@pytest.mark.parametrize("kind", ["device", "pipe", "circle", "folder", "sparse"])
def test_a_manifest_that_could_be_read_forever(tmp_path: Path, kind: str) -> None:
    plant(tmp_path / "manifest.json", kind)
    with pytest.raises(UserError, match=r"is a link, a folder, a device, or larger than"):
        read_manifest(tmp_path)


def test_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no manifest.json in"):
        read_manifest(tmp_path)


def make_bundle(folder: Path) -> Path:
    """A file and a package, and the manifest that says so."""
    (folder / "m.mlpackage/Data").mkdir(parents=True)
    (folder / "m.mlpackage/Manifest.json").write_text("{}")
    (folder / "m.mlpackage/Data/weights").write_text("weights")
    (folder / ENTRY.file).write_text("abc")
    (folder / "use").mkdir()
    (folder / "use/classify.py").write_text("print(3)")
    kinds = (("litert", ENTRY.file), ("coreml", "m.mlpackage"))
    entries = tuple(describe(folder / name, kind) for kind, name in kinds)
    (folder / "config.json").write_text("{}")
    samples, extras = ({name: hash_file(folder / name)} for name in ("use/classify.py", "config.json"))
    write_manifest(replace(MANIFEST, artifacts=entries, samples=samples, extras=extras), folder)
    return folder


def describe(path: Path, kind: str) -> Entry:
    return replace(ENTRY, file=path.name, format=kind, sha256=hash_file(path), bytes=measure_size(path))


def list_all(folder: Path) -> dict[str, object]:
    """Everything in a folder, links and empty folders too."""
    return {
        str(path.relative_to(folder)): path.readlink() if path.is_symlink() else path.is_dir() or path.read_bytes()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_dir() or path.is_file()
    }


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "manifest.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def swap_for_folder(folder: Path) -> None:
    (folder / ENTRY.file).unlink()
    (folder / ENTRY.file).mkdir()
    (folder / ENTRY.file / "1.jpg").write_text("mine")


def swap_for_link(folder: Path) -> None:
    (folder / ENTRY.file).rename(folder.parent / "elsewhere")
    (folder / ENTRY.file).symlink_to("../elsewhere")


MINE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a note": (lambda f: (f / "notes.txt").write_text("mine"), "notes.txt is not the bundle's"),
    "a hidden file": (lambda f: (f / ".hidden").write_text("mine"), ".hidden is not the bundle's"),
    "an empty folder": (lambda f: (f / "photos").mkdir(), "photos is not the bundle's"),
    "a broken link": (lambda f: (f / "later").symlink_to("nowhere"), "later is not the bundle's"),
    "a note in a package": (
        lambda f: (f / "m.mlpackage/Data/notes.txt").write_text("mine"), "m.mlpackage: the file was changed"),
    "an empty file in a package": (
        lambda f: (f / "m.mlpackage/.DS_Store").touch(), "m.mlpackage: the file was changed"),
    "an empty folder in a package": (
        lambda f: (f / "m.mlpackage/Data/mine").mkdir(), "m.mlpackage/Data/mine is an empty folder"),
    "a link in a package": (lambda f: (f / "m.mlpackage/Data/l").symlink_to("weights"), "is a link or a device"),
    "an edited file": (lambda f: (f / ENTRY.file).write_text("abd"), "m_int8.tflite: the file was changed"),
    "a longer file": (lambda f: (f / ENTRY.file).write_text("abcd"), "4 bytes, the manifest says 3"),
    "a folder named like a file": (swap_for_folder, "m_int8.tflite: a folder is in its place"),
    "a link in a file's place": (swap_for_link, "m_int8.tflite: a link is in its place"),
    "a file that is gone": (lambda f: (f / ENTRY.file).unlink(), "m_int8.tflite: the file is missing"),
    "a sample that was tried out": (
        lambda f: (f / "use/classify.py").write_text("print(4)"), "use/classify.py: the file was changed"),
    "a file beside the samples": (lambda f: (f / "use/mine.py").touch(), "use/mine.py is not the bundle's"),
    "a sample that is gone": (lambda f: (f / "use/classify.py").unlink(), "use/classify.py: the file is missing"),
    "a link in place of the samples": (
        lambda f: ((f / "use").rename(f.parent / "elsewhere"), (f / "use").symlink_to(f.parent / "elsewhere")),
        "use/classify.py: use is no folder"),
    "a sample of another size": (
        lambda f: (f / "use/classify.py").write_bytes(bytes(2**21)), "changed after the export: 2097152 bytes"),
    "an extra that was edited": (lambda f: (f / "config.json").write_text("[]"), "config.json: the file was changed"),
    "an extra that is gone": (lambda f: (f / "config.json").unlink(), "config.json: the file is missing"),
    "a folder named like an extra": (
        lambda f: ((f / "config.json").unlink(), (f / "config.json").mkdir()), "config.json: a folder is in its place"),
    "a link in an extra's place": (
        lambda f: ((f / "config.json").rename(f.parent / "mine"), (f / "config.json").symlink_to("../mine")),
        "config.json: a link is in its place"),
    "a word in the manifest": (lambda f: edit(f, lambda d: d.update(note="mine")), "manifest.json has note"),
    "a word deep in the manifest": (
        lambda f: edit(f, lambda d: d["artifacts"][1]["methods"][0].update(todo="mine")),
        "manifest.json has artifacts.1.methods.0.todo"),
    "a mean in the manifest": (
        lambda f: edit(f, lambda d: d["artifacts"][0]["preprocessing"].update(mean=[0.4, 0.4, 0.4])),
        "manifest.json was edited after the export"),
    "another manifest": (lambda f: (f / "manifest.json").write_text("{}"), "is not a bundle of this version"),
}  # fmt: skip


@pytest.mark.parametrize("name", MINE)
def test_force_spares_and_names_what_is_the_users(tmp_path: Path, name: str) -> None:
    folder, (change, words) = make_bundle(tmp_path / "out"), MINE[name]
    assert check_output(folder, force=True) == folder
    change(folder)
    before = list_all(folder)
    with pytest.raises(UserError) as caught:
        check_output(folder, force=True)
    assert words in str(caught.value)
    assert list_all(folder) == before


def test_force_takes_a_bundle_of_the_layout_before(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "out")
    edit(folder, lambda data: data.update(version=2, sha256=None))
    assert check_output(folder, force=True) == folder
    with pytest.raises(UserError, match="add --force to replace it"):
        check_output(folder)


@pytest.mark.parametrize("kind", ["device", "pipe", "circle", "folder", "sparse"])
def test_a_model_file_that_could_be_read_forever(tmp_path: Path, kind: str) -> None:
    plant(tmp_path / ENTRY.file, kind)
    fault = find_fault(tmp_path, ENTRY)
    assert fault is not None
    assert ("bytes, the manifest says 3" if kind == "sparse" else "is in its place, where a file was exported") in fault
