import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bigvit_edge.artifact import Array
from bigvit_edge.bench import answers
from bigvit_edge.bench.answers import Pictures, find_labelled, judge_answers
from bigvit_edge.bench.cases import Case, list_cases
from bigvit_edge.bench.measurement import Plan, measure
from bigvit_edge.demo.digits import SIZE, held_out
from bigvit_edge.devices.local import Local
from bigvit_edge.errors import UserError
from bigvit_edge.export.check import check_bundle
from bigvit_edge.export.image import normalize
from bigvit_edge.models.zoo import CARDS
from bigvit_edge.results import Answers, Protocol
from bigvit_edge.runtime import Session
from tests.native import ROOT, run_program
from tests.test_tiny import TINY, call

COUNT = 3  # pictures of each class
CLASSES = ("0", "3", "7")
PLAN = Plan(Protocol(0.001, 2, 1, 0, 0, None, "none"), energy=False)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("answers") / "bundle"
    CARDS["tiny"] = replace(TINY, image_size=SIZE)
    limits = ("--set", "limits.images=4", "--set", "limits.untrained_cosine=0.98", "--set", "precisions=fp32")
    made = call("export", "tiny", "--format", "bve", "-o", folder, *limits)
    assert made.exit_code == 0, made.output
    yield folder
    del CARDS["tiny"]


@pytest.fixture(scope="module")
def case(bundle: Path) -> Case:
    return list_cases([bundle])[0]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Noise in folders of classes."""
    random = np.random.default_rng(0)
    for name in CLASSES:
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for n in range(COUNT):
            pixels = random.integers(0, 255, (40, 48, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{n}.png")
    return tmp_path / "pictures"


class Replying:
    """A runner that answers by our runtime in this process, or with what it is told to."""

    def __init__(self, case: Case, logits: Array | None = None) -> None:
        self.case, self.logits = case, logits

    def answer(self, images: Path, logits: Path, count: int) -> None:
        self.images = np.fromfile(images, "<f4").reshape(count, 3, SIZE, SIZE)
        answered = self.logits
        if answered is None:
            with Session(self.case.path) as session:
                answered = np.concatenate([session.run(image[None]) for image in self.images])
        logits.write_bytes(answered.astype("<f4").tobytes())


def test_known_answers_are_counted(case: Case, pictures: Path) -> None:
    found, notes = find_labelled(pictures)
    logits = np.zeros((COUNT * len(CLASSES), 10))
    logits[:, 3] = 1  # right for one class of three
    assert not notes
    assert judge_answers(case, Replying(case, logits), found) == Answers(1 / 3, 9, str(pictures))


def test_top1_is_that_of_check(case: Case, bundle: Path, pictures: Path, tmp_path: Path) -> None:
    run_program("bve-run", "--version")
    with Session(case.path) as session:  # a random model says nearly always the same: label so that some are right
        entry = case.entry
        assert entry
        runner = Replying(case)
        found, _ = find_labelled(pictures)
        judge_answers(case, runner, found)
        said = [int(session.run(image[None]).argmax()) for image in runner.images]
    names = [path.relative_to(pictures) for path in sorted(pictures.glob("*/*.png"))]
    labels = [digit if n % 3 else (digit + 1) % 10 for n, digit in enumerate(said)]
    lines = "".join(f"{name},{label}\n" for name, label in zip(names, labels, strict=True))
    (pictures / "labels.csv").write_text(f"file,label\n{lines}")
    (checked,) = check_bundle(bundle, images=pictures)
    assert checked.accuracy
    plan = Plan(PLAN.protocol, energy=False, pictures=find_labelled(pictures)[0])
    result = measure([case], Local("local"), lambda store: str(ROOT / "build/host/bve-run"), plan, tmp_path / "r.json")
    told = result.rows[0].answers
    assert isinstance(told, Answers)
    assert (told.top1, told.images) == (checked.accuracy.top1, checked.accuracy.images) == (pytest.approx(6 / 9), 9)


def test_folders_without_labels_are_refused(pictures: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for n, path in enumerate(sorted(pictures.glob("*/*.png"))):
        shutil.copy(path, flat / f"{n}.png")
    with pytest.raises(UserError, match=r"names no classes; expected a sub-folder for each, or labels.csv"):
        find_labelled(flat)
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "none"):
        with pytest.raises(UserError):
            find_labelled(folder)


def test_damaged_pictures_are_left_out_and_said(case: Case, pictures: Path) -> None:
    (pictures / "3/1.png").write_bytes(b"\x89PNG no more")
    told = judge_answers(case, Replying(case), find_labelled(pictures)[0])
    assert isinstance(told, Answers)
    assert told.images == 8
    assert "1 of 9 pictures cannot be read" in told.pictures
    for path in pictures.glob("*/*.png"):
        path.write_bytes(b"none")
    told = judge_answers(case, Replying(case), find_labelled(pictures)[0])
    assert isinstance(told, str)
    assert told.startswith("not available: 9 of 9 pictures cannot be read")


def test_classes_that_the_model_lacks_are_left_out_and_said(case: Case, pictures: Path) -> None:
    (pictures / "7").rename(pictures / "a fish")
    told = judge_answers(case, Replying(case), find_labelled(pictures)[0])
    assert isinstance(told, Answers)
    assert told.images == 6
    assert "a fish" in told.pictures
    for name, other in (("0", "a cat"), ("3", "a dog")):
        (pictures / name).rename(pictures / other)
    assert judge_answers(case, Replying(case), find_labelled(pictures)[0]) == (
        "not available: none of the pictures' classes is the model's"
    )


def test_many_pictures_are_spread_evenly(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MOST", 3)
    found, notes = find_labelled(pictures)
    assert [picture.label for picture in found.found or ()] == list(CLASSES)
    assert notes == [f"{pictures} holds 9 pictures: every 3th is answered"]


def test_the_demos_pictures_are_those_of_its_figures(case: Case) -> None:
    runner = Replying(case)
    told = judge_answers(case, runner, Pictures("the demo's held-out images"))
    batch = held_out()
    assert case.entry
    expected = normalize(255 * batch.images[:200].numpy(), case.entry.preprocessing)
    assert np.allclose(runner.images, expected)
    with Session(case.path) as session:
        said = np.array([session.run(image[None]).argmax() for image in expected])
    assert isinstance(told, Answers)
    assert (told.top1, told.images) == ((said == batch.labels[:200].numpy()).mean(), 200)


def test_what_cannot_be_judged_says_why(case: Case, bundle: Path, pictures: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.bve"
    shutil.copy(bundle / case.path.name, alone)
    (other,) = list_cases([alone])
    assert "a file without its bundle" in str(judge_answers(other, Replying(other), Pictures("any")))
    nan = np.full((9, 10), np.nan)
    assert judge_answers(case, Replying(case, nan), find_labelled(pictures)[0]) == "its answers are not finite"
