"""A user's folder: what is found in it, and that calibration and evaluation never share a picture."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bigvit_edge.errors import UserError
from bigvit_edge.export.pictures import Picture, Pictures, find_pictures, split
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
    with pytest.raises(UserError, match=r"which is empty"):
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
    shutil.copy(tmp_path / "a.png", tmp_path / "b.png")
    with pytest.raises(UserError, match=r"2 pictures that are one"):
        split(find_pictures(tmp_path)[0])


def test_pictures_are_read_when_they_are_iterated_and_as_often(tmp_path: Path) -> None:
    pictures = Pictures(tuple(Picture(draw(tmp_path / f"{i}.png", 10 * i), None) for i in range(3)), HOW)
    for _ in range(2):
        images = list(pictures)
        assert [image.shape for image in images] == [(3, 8, 8)] * 3
        np.testing.assert_allclose([image[0, 0, 0] * 255 for image in images], [0, 10, 20], atol=1e-4)


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
