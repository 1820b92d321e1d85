"""A user's pictures as the measure of an export: nothing counted twice, nothing left out in silence."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from bigvit_edge.artifact import Array
from bigvit_edge.cli import app
from bigvit_edge.demo.digits import make_batch
from bigvit_edge.errors import UserError
from bigvit_edge.export.evaluation import prepare_check, prepare_evaluation
from bigvit_edge.export.pictures import find_pictures, unwatched
from bigvit_edge.export.references import measure
from bigvit_edge.measures import Evaluated
from bigvit_edge.models.load import load
from bigvit_edge.models.zoo import DIGITS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty digits in folders of their names, one of them no picture, and two under a name that no model knows."""
    root, batch = tmp_path_factory.mktemp("digits"), make_batch("held_out", 42, 5)
    for i, (image, label) in enumerate(zip(batch.images, batch.labels.tolist(), strict=True)):
        path = root / (str(label) if i < 40 else "dodo") / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray((image.permute(1, 2, 0) * 255).byte().numpy()).save(path)
    (root / "0" / "broken.png").write_bytes(b"no picture")
    return root


def test_all_pictures_are_evaluated_on_where_nothing_calibrates(folder: Path) -> None:
    evaluation = prepare_evaluation(load("vit_demo"), (None,), 9, find_pictures(folder), False, None, unwatched)
    assert evaluation.pictures is not None
    assert (evaluation.pictures.evaluation, evaluation.pictures.calibration) == (42, 0)  # of 43 files one is broken
    assert not evaluation.digests


def test_pictures_are_split_read_and_labelled(folder: Path) -> None:
    model = load("vit_demo")
    evaluation = prepare_evaluation(model, (None,), 9, find_pictures(folder), True, None, unwatched)
    reference = evaluation.references[None]
    assert evaluation.pictures is not None
    assert evaluation.pictures.evaluation == len(reference.logits) == len(list(reference.images))
    assert evaluation.pictures.evaluation + evaluation.pictures.calibration == 42  # of 43 files
    assert len(evaluation.calibration) == evaluation.pictures.calibration
    assert any("1 of" in note and "broken.png" in note for note in evaluation.notes)
    assert any("1 of the 11 names, dodo" in note for note in evaluation.notes)
    held = {image.tobytes() for image in reference.images}
    assert not held & {image.tobytes() for image in evaluation.calibration}
    bundle = SimpleNamespace(pictures=evaluation.pictures, calibrated=evaluation.digests)
    again, notes = prepare_check(model, (None,), find_pictures(folder), bundle, unwatched)
    np.testing.assert_array_equal(again[None].logits, reference.logits)
    assert f"{evaluation.pictures.calibration} of 43 pictures were calibrated on: left out" in notes


def test_a_check_leaves_out_what_was_calibrated_on_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    model, pictures = load("vit_demo"), find_pictures(folder)
    for digests, calibration in (((), 0), (("0" * 16,), 1)):  # never calibrated on these
        bundle = SimpleNamespace(pictures=Evaluated(1, 1, calibration), calibrated=digests)
        references, notes = prepare_check(model, (None,), pictures, bundle, unwatched)
        assert len(references[None].logits) == 42
        assert not any("calibrated on" in note for note in notes)
    shutil.copy(next((folder / "3").iterdir()), tmp_path / "one.png")
    references, _ = prepare_check(model, (None,), find_pictures(tmp_path), bundle, unwatched)
    assert len(references[None].logits) == 1
    older = SimpleNamespace(pictures=Evaluated(1, 1, 9), calibrated=())
    assert any("does not say which" in note for note in prepare_check(model, (None,), pictures, older, unwatched)[1])


def test_a_folder_to_calibrate_on_is_not_evaluated_on_even_as_copies(folder: Path, tmp_path: Path) -> None:
    for i, path in enumerate(sorted((folder / "3").iterdir())):
        shutil.copy(path, tmp_path / f"{i}.PNG")
    (tmp_path / "x.heic").touch()
    threes = len(list((folder / "3").iterdir()))
    evaluation = prepare_evaluation(load("vit_demo"), (None,), 9, find_pictures(folder), True, tmp_path, unwatched)
    reference = evaluation.references[None]
    assert reference.labels is not None
    assert 3 not in reference.labels
    assert evaluation.pictures == Evaluated(42 - threes, int((reference.labels >= 0).sum()), threes)
    assert len(evaluation.digests) == threes
    assert f"{threes} of 43 pictures were calibrated on: left out" in evaluation.notes
    assert "passed over what is no picture by its ending: 1 .heic" in evaluation.notes
    demo = prepare_evaluation(load("vit_demo"), (None,), 9, None, True, tmp_path, unwatched)
    assert (demo.pictures, demo.digests) == (None, evaluation.digests)
    assert len(demo.references[None].logits) == 9


def test_pictures_of_any_size_are_calibrated_on(tmp_path: Path) -> None:
    model = load("vit_demo")
    for i, size in enumerate([(40, 30), (16, 16), (7, 90)]):
        Image.new("RGB", size, (255, 0, 0)).save(tmp_path / f"{i}.png")
    images = prepare_evaluation(model, (None,), 1, None, True, tmp_path, unwatched).calibration
    assert images.shape == (3, 3, model.image_size, model.image_size)
    (tmp_path / "broken.png").write_bytes(b"no picture at all")
    assert any("broken.png" in n for n in prepare_evaluation(model, (None,), 1, None, True, tmp_path, unwatched).notes)
    (tmp_path / "0.png").write_bytes(b"nor this")
    with pytest.raises(UserError, match=r"2 of 4 pictures cannot be read"):
        prepare_evaluation(model, (None,), 1, None, True, tmp_path, unwatched)


def test_accuracy_and_confusions_by_hand(folder: Path) -> None:
    evaluation = prepare_evaluation(load("vit_demo"), (None,), 9, find_pictures(folder), True, None, unwatched)
    reference = evaluation.references[None]
    labels = reference.labels
    assert labels is not None
    order = iter(labels.tolist())

    def answer(image: Array) -> Array:  # always right, but that it takes 3 for 5, and dodos for 0
        number = max(0, next(order))
        return np.eye(10, dtype=np.float32)[[5 if number == 3 else number]]

    parity, accuracy, confusions = measure(answer, reference)
    known = int((labels >= 0).sum())
    threes = int((labels == 3).sum())
    assert threes
    assert accuracy is not None
    assert accuracy.images == known
    assert accuracy.top1 == pytest.approx(1 - threes / known)
    assert parity.images == len(labels)
    assert [(c.label, c.images, c.right, c.taken_for, c.times) for c in confusions] == [("3", threes, 0, "5", threes)]


def test_export_and_check_by_a_users_pictures(folder: Path, tmp_path: Path) -> None:
    out, words = tmp_path / "out", ["vit_demo", "--format", "onnx", "--set", "precisions=int8", "--images", str(folder)]
    loose = ["--set", "limits.int8_cosine=0.9", "--set", "limits.int8_centred=0.9"]
    exported = CliRunner().invoke(app, ["export", *words, *loose, "-o", str(out)])
    assert exported.exit_code == 0, exported.stderr
    assert "broken.png" in exported.stdout
    assert "dodo" in exported.stdout
    manifest = json.loads((out / "manifest.json").read_text())
    pictures, method = manifest["pictures"], manifest["artifacts"][0]["methods"][0]
    assert method["parity"]["images"] == pictures["evaluation"] == 42
    assert method["accuracy"]["images"] == pictures["labelled"] < pictures["evaluation"] + 1
    checked = CliRunner().invoke(app, ["check", str(out), "--images", str(folder), "--json"])
    assert checked.exit_code == 0, checked.stderr
    (found,) = json.loads(checked.stdout)
    assert found["parity"] == method["parity"]
    assert found["accuracy"] == method["accuracy"]
    assert found["confusions"] == method["confusions"]
    assert any("broken.png" in note for note in found["notes"])


def test_a_folder_that_is_not_there_shows_before_anything_runs(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["export", "vit_demo", "--images", str(tmp_path / "x"), "-o", str(tmp_path / "o")])
    assert result.exit_code == 2
    assert "no folder" in result.stderr
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("labels", "calibrates", "given", "told"),
    [
        (("a", "b"), True, False, True),
        (("a", "b"), False, False, False),  # nothing is calibrated
        (("a", "b"), True, True, False),  # on the user's own
        (DIGITS, True, False, False),  # the demo's images are what the model sees
    ],
)
def test_borrowed_photographs_are_told_of(
    labels: tuple[str, ...], calibrates: bool, given: bool, told: bool, folder: Path
) -> None:
    model, found = replace(load("vit_demo"), labels=labels), find_pictures(folder) if given else None
    evaluation = prepare_evaluation(model, (None,), 1, found, calibrates, None, unwatched)
    notes = [note for note in evaluation.notes if "borrowed photographs" in note]
    assert len(notes) == told
    assert all("--images or --calibration" in n and f" {len(evaluation.calibration)} windows" in n for n in notes)
