"""A user's folder: what is found in it, and that calibration and evaluation never share a picture."""

import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from bigvit_edge.errors import UserError
from bigvit_edge.export.pictures import (
    Picture,
    Pictures,
    choose_evenly,
    digest_pictures,
    find_pictures,
    leave_out,
    split,
)  # fmt: skip
from bigvit_edge.preprocessing import Preprocessing

HOW = Preprocessing(8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def draw(path: Path, value: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (9, 8), (value % 256, value // 256, 7)).save(path)
    return path


def list_labels(folder: Path) -> dict[str, str | None]:
    return {picture.path.relative_to(folder).as_posix(): picture.label for picture in find_pictures(folder)[0]}


def test_sub_folders_are_classes_and_their_own_sub_folders_belong_to_them(tmp_path: Path) -> None:
    for name in ("cat/a.png", "cat/more/b.PNG", "dog/a.jpg", ".cache/c.png", "dog/._a.jpg"):
        draw(tmp_path / name, 1)
    (tmp_path / "dog" / "notes.txt").write_text("x")
    assert list_labels(tmp_path) == {"cat/a.png": "cat", "cat/more/b.PNG": "cat", "dog/a.jpg": "dog"}


def test_linked_folders_are_classes_and_circles_end(tmp_path: Path) -> None:
    draw(tmp_path / "all/n01/a.png", 1)
    draw(tmp_path / "all/n02/b.png", 2)
    (tmp_path / "all/n02/up").symlink_to(tmp_path / "all")
    subset = tmp_path / "subset"
    subset.mkdir()
    for name in ("n01", "n02"):
        (subset / name).symlink_to(tmp_path / "all" / name)
    (subset / "n03").symlink_to(tmp_path / "all/n01")
    (subset / "n04").symlink_to("nowhere")
    (subset / "n02/c.jpg").symlink_to("nowhere.jpg")
    assert list_labels(subset) == {"n01/a.png": "n01", "n02/b.png": "n02"}
    lost, again = find_pictures(subset)[1]
    assert lost == "passed over what is no picture by its ending: 1 that lead nowhere, 1 without an ending"
    assert again == "folders that were met before by another way are passed over: n03, n02/up/n01, n02/up/n02"


def test_every_ending_of_what_can_be_decoded_is_a_pictures_and_others_are_told(tmp_path: Path) -> None:
    for name in ("a.jfif", "b.jpe", "c.JPEG", "d.ico", "e.tif", "f.webp", "g.jp2", "h.pbm"):
        (tmp_path / name).touch()
    assert len(find_pictures(tmp_path)[0]) == 8
    for name in ("i.heic", "j.HEIC", "k.eps", "l.mp4", "labels.txt", ".m.heic"):
        (tmp_path / name).touch()
    found, (note,) = find_pictures(tmp_path)
    assert len(found) == 8
    assert note == "passed over what is no picture by its ending: 2 .heic, 1 .eps, 1 .mp4, 1 .txt"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make what another user may not read")
def test_a_class_that_cannot_be_listed_is_no_missing_class() -> None:
    with tempfile.TemporaryDirectory() as root:  # not tmp_path, which is closed to others
        Path(root).chmod(0o755)
        draw(Path(root) / "cat/a.png", 1)
        draw(Path(root) / "dog/b.png", 1)
        (Path(root) / "dog").chmod(0o700)
        os.seteuid(65534)
        try:
            with pytest.raises(UserError, match=r"dog cannot be listed \(Permission denied\)"):
                find_pictures(Path(root))
        finally:
            os.seteuid(0)


def test_calibration_is_spread_over_the_sub_folders(tmp_path: Path) -> None:
    for i in range(256):
        (tmp_path / f"{i % 4}").mkdir(exist_ok=True)
        (tmp_path / f"{i % 4}/{i}.png").touch()
    chosen, notes = choose_evenly(tmp_path)
    assert notes == []
    assert Counter(picture.path.parent.name for picture in chosen) == {str(i): 32 for i in range(4)}


def test_what_was_calibrated_on_is_known_by_its_bytes(tmp_path: Path) -> None:
    pictures = [Picture(draw(tmp_path / f"{i}.png", i), None) for i in range(4)]
    digests = digest_pictures([pictures[1], pictures[2], pictures[1]])
    assert len(digests) == 2
    shutil.copy(tmp_path / "1.png", tmp_path / "copy.png")
    given = [*pictures, Picture(tmp_path / "copy.png", "x")]
    assert leave_out(given, digests) == (
        [pictures[0], pictures[3]], ["3 of 5 pictures were calibrated on: left out"],
    )  # fmt: skip
    assert leave_out(pictures[:1], digests) == (pictures[:1], [])
    with pytest.raises(UserError, match="all 1 pictures were calibrated on"):
        leave_out(pictures[1:2], digests)


def test_a_flat_folder_has_no_classes(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", 1)
    assert list_labels(tmp_path) == {"a.png": None}


def test_labels_csv_says_what_is_what_and_what_it_does_not_name_is_told(tmp_path: Path) -> None:
    for name in ("a.png", "x/b.png", "x/c.png"):
        draw(tmp_path / name, 1)
    text = "\ufeffFile, Label\r\na.png,3\r\n\r\n" + 'x/b.png,"tench, Tinca tinca"\r\n'
    (tmp_path / "labels.csv").write_bytes(text.encode())
    assert list_labels(tmp_path) == {"a.png": "3", "x/b.png": "tench, Tinca tinca"}
    assert find_pictures(tmp_path)[1] == ["labels.csv does not name x/c.png: left out"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a.png,1\n", "begins with 'a.png,1'; expected the header file,label"),
        ("", "expected the header file,label"),
        ("file,label\n", "labels no picture"),
        ("file,label\nb.png,1\n", "line 2 .*'b.png', '1'; expected a picture in that folder"),
        ("file,label\n../a.png,1\n", "line 2 .*'../a.png'"),
        ("file,label\na.png,\n", "line 2 .*'a.png', ''"),
        ("file,label\na.png\n", "line 2 .*'a.png', ''"),
        ("file,label\na.png,1\na.png,2\n", "labels a.png '1' and '2'"),
        ("file,label\n\xff", "cannot be read"),
    ],
)
def test_labels_that_cannot_serve(tmp_path: Path, text: str, words: str) -> None:
    draw(tmp_path / "a.png", 1)
    (tmp_path / "labels.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=words):
        find_pictures(tmp_path)


def test_folders_that_cannot_serve(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no folder .*nowhere"):
        find_pictures(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"or below"):
        find_pictures(tmp_path)
    draw(tmp_path / "a.png", 1)
    draw(tmp_path / "cat" / "b.png", 1)
    with pytest.raises(UserError, match=r"1 pictures beside sub-folders with 1"):
        find_pictures(tmp_path)


def test_the_split_has_no_overlap_is_even_over_classes_and_knows_copies_by_their_bytes(tmp_path: Path) -> None:
    for i in range(30):
        draw(tmp_path / ("abc"[i % 3]) / f"{i}.png", i)
    copies = [shutil.copy(tmp_path / "a" / "0.png", tmp_path / "a" / f"copy{i}.png") for i in range(3)]
    pictures, _ = find_pictures(tmp_path)
    calibration, evaluation = split(pictures)
    assert sorted(map(str, (p.path for p in calibration + evaluation))) == sorted(str(p.path) for p in pictures)
    seen = [{p.path.read_bytes() for p in part} for part in (calibration, evaluation)]
    assert not seen[0] & seen[1]
    assert len(pictures) // 2 - 4 <= len(calibration) <= len(pictures) // 2
    assert len(copies) == 3
    counts = [sum(p.label == name for p in calibration) for name in "abc"]
    assert max(counts) - min(counts) <= 3  # of copies, that come all or none


def test_the_split_does_not_depend_on_names_and_order(tmp_path: Path) -> None:
    chosen = []
    for folder, name in ((tmp_path / "one", "{}.png"), (tmp_path / "two", "img_{:05}.png")):
        for i in range(300):
            draw(folder / name.format((7 * i) % 300 if folder.name == "two" else i), i)
        calibration, evaluation = split(list(reversed(find_pictures(folder)[0])))
        assert len(calibration) == 128
        assert len(evaluation) == 172
        chosen.append({p.path.read_bytes() for p in calibration})
    assert chosen[0] == chosen[1]


def test_classes_of_one_picture_are_split_too(tmp_path: Path) -> None:
    for i in range(6):
        draw(tmp_path / str(i) / "a.png", i)
    assert [len(part) for part in split(find_pictures(tmp_path)[0])] == [3, 3]


def test_one_picture_cannot_be_split(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", 1)
    with pytest.raises(UserError, match=r"^one picture;"):
        split(find_pictures(tmp_path)[0])
    shutil.copy(tmp_path / "a.png", tmp_path / "b.png")
    with pytest.raises(UserError, match=r"^2 copies of one picture;"):
        split(find_pictures(tmp_path)[0])


def test_pictures_are_read_when_they_are_iterated_and_as_often(tmp_path: Path) -> None:
    pictures = Pictures(tuple(Picture(draw(tmp_path / f"{i}.png", 10 * i), None) for i in range(3)), HOW)
    for _ in range(2):
        images = list(pictures)
        assert [image.shape for image in images] == [(8, 8, 3)] * 3
        assert [image[0, 0, 0] for image in images] == [0, 10, 20]


def test_what_cannot_be_read_is_left_out_and_named_or_refused(tmp_path: Path) -> None:
    paths = [draw(tmp_path / f"{i}.png", i) for i in range(20)]
    paths[3].write_bytes(b"no picture")
    pictures, faults, said = Pictures(tuple(Picture(path, None) for path in paths), HOW), {}, Counter()
    assert len(list(pictures.read(faults, said))) == 19
    rest, (note, more) = pictures.tell(faults, said)
    assert more == "19 of 19 pictures: what the model sees of it is all of one colour"
    assert len(rest) == 19
    assert paths[3] not in [picture.path for picture in rest.pictures]
    assert "1 of 20 pictures cannot be read" in note
    assert "3.png" in note
    for path in paths[4:8]:
        path.write_bytes(b"no picture")
    list(pictures.read(faults, said))
    with pytest.raises(UserError, match=r"5 of 20 pictures cannot be read .*expected at most 10%"):
        pictures.tell(faults, said)
