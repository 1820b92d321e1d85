import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import pytest

from bigvit_edge.artifact import Entry, hash_file, write_data
from bigvit_edge.bench.cases import list_cases
from bigvit_edge.bench.comparison import compare
from bigvit_edge.bench.measurement import Plan, make_key, measure
from bigvit_edge.devices import open_device
from bigvit_edge.errors import UserError
from bigvit_edge.manifest import write_manifest
from bigvit_edge.results import Protocol, Result
from bigvit_edge.runtime.opening import load_file
from tests.test_artifact import ENTRY, MANIFEST

PLAN = Plan(Protocol(0.001, 2, 2, 0, 0, None, "none"), energy=False)


def make_bundle(
    folder: Path, entries: Sequence[Entry] = (ENTRY,), data: bytes = b"abc", backend: str = "xnnpack"
) -> Path:
    """A bundle whose files hold no model."""
    folder.mkdir(parents=True)
    made = []
    for entry in entries:
        write_data({"a": data} if entry.format == "coreml" else data, folder / entry.file)
        made.append(replace(entry, sha256=hash_file(folder / entry.file), bytes=len(data)))
    write_manifest(replace(MANIFEST, artifacts=tuple(made), delegate=backend), folder)
    return folder


def bench(paths: Sequence[Path], path: Path) -> Result:
    return measure(list_cases(list(paths)), open_device("null"), lambda store: "bve-run", PLAN, path)


def test_a_bundle_is_its_files_at_each_of_their_keep_ratios(tmp_path: Path) -> None:
    several = replace(ENTRY.methods[0], name="keep_0_25", keep=0.25)
    other = replace(ENTRY, file="m_int8.bve", format="bve", methods=(several, ENTRY.methods[0]))
    cases = list_cases([make_bundle(tmp_path / "bundle", (ENTRY, other))])
    assert [(case.name, case.format, case.keep) for case in cases] == [
        ("m_int8.tflite", "litert", 0.5), ("m_int8.bve", "bve", 0.25), ("m_int8.bve", "bve", 0.5),
    ]  # fmt: skip
    assert {(case.model, case.bytes, case.runs_nowhere, case.native) for case in cases} == {("m", 3, "", False)}
    assert all(case.sha256 == hash_file(tmp_path / "bundle" / case.name) for case in cases)


def test_a_file_in_its_bundle_is_its_entry_and_alone_only_a_format(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    (inside,) = list_cases([bundle / "m_int8.tflite"])
    assert inside.entry
    assert (inside.entry.precision, inside.keep, inside.model) == ("int8", 0.5, "m")
    (tmp_path / "other.pte").write_bytes(b"abc")
    (bundle / "own.onnx").write_bytes(b"abc")  # in the folder, but not of the bundle
    for path, format_ in ((tmp_path / "other.pte", "executorch"), (bundle / "own.onnx", "onnx")):
        (alone,) = list_cases([path])
        assert (alone.entry, alone.keep, alone.delegated_share, alone.format) == (None, None, None, format_)
        assert (alone.sha256, alone.bytes) == (hash_file(path), 3)


def test_what_left_its_unit_is_not_delegated(tmp_path: Path) -> None:
    left = tuple(replace(ENTRY.methods[0].leftovers[0], mac_share=share) for share in (0.125, 0.25))
    entry = replace(ENTRY, methods=(replace(ENTRY.methods[0], leftovers=left),))
    (case,) = list_cases([make_bundle(tmp_path / "bundle", (entry,))])
    assert case.delegated_share == 0.625


def test_keep_chooses_and_names_those_that_there_are(tmp_path: Path) -> None:
    several = (ENTRY.methods[0], replace(ENTRY.methods[0], name="keep_0_25", keep=0.25))
    bundle = make_bundle(tmp_path / "bundle", (replace(ENTRY, methods=several),))
    assert [case.keep for case in list_cases([bundle], 0.25)] == [0.25]
    for keep in (0.3, float("nan"), -1.0):
        with pytest.raises(UserError, match=r"--keep .*; expected one of 0.25, 0.5"):
            list_cases([bundle], keep)
    plain = replace(ENTRY, methods=(replace(ENTRY.methods[0], keep=None),))
    with pytest.raises(UserError, match="expected none: no model has a ratio"):
        list_cases([make_bundle(tmp_path / "plain", (plain,))], 0.5)


def test_core_ml_runs_nowhere_and_our_core_needs_its_library(tmp_path: Path) -> None:
    package = replace(ENTRY, file="m.mlpackage", format="coreml", evaluated=True)
    apple, native, _ = list_cases(
        [make_bundle(tmp_path / "b", (package, ENTRY, replace(ENTRY, file="m.bve", format="bve")), backend="native")]
    )
    assert (apple.runs_nowhere, apple.native) == ("Core ML runs on Apple's systems alone", False)
    assert (native.runs_nowhere, native.native) == ("", True)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: folder / "none", "no .*none; expected a bundle or a model file"),
        (lambda folder: folder, "a folder of b.txt; expected a bundle or a model file"),
        (lambda folder: folder / "b.txt", "ends in .bve, .tflite, .onnx, .pte; name a file of a bundle"),
        (lambda folder: folder / "pipe.bve", "which is a pipe, a device or a link to nothing; expected a model file"),
        (lambda folder: folder / "tfilte.tflit", "did you mean .tflite"),
    ],
)  # fmt: skip
def test_what_is_neither_a_bundle_nor_a_file_is_refused(make: object, says: str, tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_bytes(b"")
    path = make(tmp_path)  # type: ignore[operator]
    if path.name == "pipe.bve":
        os.mkfifo(path)
    if path.suffix == ".tflit":
        path.write_bytes(b"")
    with pytest.raises(UserError, match=says):
        list_cases([path])


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    (bundle / "m_int8.tflite").write_bytes(b"abd")
    for path in (bundle, bundle / "m_int8.tflite"):
        with pytest.raises(UserError, match=r"m_int8.tflite: .*; expected the file as exported"):
            list_cases([path])


def test_a_file_that_comes_twice_is_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    (tmp_path / "linked.tflite").symlink_to(bundle / "m_int8.tflite")
    for again in (bundle, bundle / "m_int8.tflite", tmp_path / "bundle/../bundle"):
        with pytest.raises(UserError, match="twice; expected each file once"):
            list_cases([bundle, again])
    assert [case.name for case in list_cases([tmp_path / "linked.tflite"])] == ["linked.tflite"]


def test_files_of_one_name_stay_two_rows(tmp_path: Path) -> None:
    one, other = make_bundle(tmp_path / "one/dist"), make_bundle(tmp_path / "two/dist", data=b"abd")
    assert [case.name for case in list_cases([one, other])] == ["one/dist/m_int8.tflite", "two/dist/m_int8.tflite"]
    before, after = bench([one, other], tmp_path / "before.json"), bench([other, one], tmp_path / "after.json")
    assert len({row.name() for row in before.rows}) == 2
    pairs, alone = compare(before, after)
    assert not alone
    assert all(pair.before.sha256 == pair.after.sha256 for pair in pairs)
    assert len({pair.before.sha256 for pair in pairs}) == 2


def test_what_resume_looks_for_tells_files_of_one_name_apart(tmp_path: Path) -> None:
    one, other = make_bundle(tmp_path / "one"), make_bundle(tmp_path / "two")  # the same bytes
    keys = {make_key(list_cases(paths), "null", PLAN) for paths in ([one], [one, other], [other, one])}
    assert len(keys) == 3
    whole = bench([one, other], tmp_path / "part.json")
    part = replace(whole, complete=False, rows=(replace(whole.rows[0], turns=whole.rows[0].turns[:1]), whole.rows[1]))
    again = measure(
        list_cases([one, other]), open_device("null"), lambda store: "bve-run", PLAN, tmp_path / "x.json", earlier=part
    )
    assert [[turn.part for turn in row.turns] for row in again.rows] == [[0, 1], [0, 0]]
    assert again.rows[1].turns == whole.rows[1].turns


def test_a_name_that_is_no_text_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.tflite")
    path.write_bytes(b"abc")
    assert [case.name for case in list_cases([path])] == ["caf\\xe9.tflite"]


def test_an_onnx_with_weights_elsewhere_is_refused_as_its_loader_does(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    weight = onnx.numpy_helper.from_array(np.ones((3, 3), np.float32), "weight")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["image", "weight"], ["logits"])], "tiny",
        [onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, (1, 3))],
        [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, (1, 3))], [weight],
    )  # fmt: skip
    onnx.save(onnx.helper.make_model(graph), str(path))
    assert [case.format for case in list_cases([path])] == ["onnx"]
    onnx.save(
        onnx.helper.make_model(graph), str(path), save_as_external_data=True, location="weights", size_threshold=0
    )
    with pytest.raises(UserError, match="its tensor 'weight' is in another file") as ours:
        list_cases([path])
    with pytest.raises(UserError) as theirs:
        load_file("onnx", path)
    assert str(ours.value) == str(theirs.value)
