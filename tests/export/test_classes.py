"""Names of folders against labels of models."""

import pytest

from bigvit_edge.errors import UserError
from bigvit_edge.export.classes import match_classes, name_classes

IMAGENET = (
    "tench, Tinca tinca",
    "goldfish, Carassius auratus",
    "crane",
    "crane, lifting crane",
    "tiger shark",
    "T-shirt",
)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("tench, Tinca tinca", 0), ("tench", 0), ("TINCA_TINCA", 0), ("Carassius auratus", 1), ("tiger_shark", 4),
        ("tiger-shark", 4), ("tiger  SHARK", 4), ("4", 4), ("004", 4), ("crane", 2), ("lifting crane", 3),
    ],
)  # fmt: skip
def test_a_name_finds_its_class(name: str, number: int) -> None:
    assert match_classes([name], IMAGENET, 5) == ({name: number}, [])


def test_a_name_that_two_labels_have_is_none() -> None:
    found, (note,) = match_classes(["bat"], ("bat, flying", "bat, baseball"), 2)
    assert found == {}
    assert "has no label for 1 of the 1 names, bat" in note


def test_labels_with_wordnet_numbers() -> None:
    labels = ("n01440764 tench, Tinca tinca", "n01443537")
    found, notes = match_classes(["n01440764", "n01443537", "tench"], labels, 2)
    assert found == {"n01440764": 0, "n01443537": 1, "tench": 0}
    assert notes == []


def test_what_the_model_lacks_is_said() -> None:
    found, (note,) = match_classes(["tench", "dodo", "7"], IMAGENET, 5)
    assert found == {"tench": 0}
    assert "no label for 2 of the 3 names, 7, dodo" in note


def test_a_digit_that_is_a_label_is_that_label() -> None:
    assert match_classes(["1", "0"], ("1", "0"), 2)[0] == {"1": 0, "0": 1}


@pytest.mark.parametrize("labels", [None, tuple("abcdefghijkl")])
def test_numbers_from_one_are_classes_only_where_nobody_can_count_otherwise(
    labels: tuple[str, ...] | None,
) -> None:
    found, (note,) = match_classes([f"{i:02}" for i in range(1, 13)], labels, 12)  # '01' to '12', whose orders agree
    assert (found["01"], found["12"]) == (0, 11)
    assert "the numbers 1 to 12: they are taken for the classes 0 to 11" in note
    found, (note,) = match_classes([str(i) for i in range(1, 13)], labels, 12)  # '10' is the second name
    assert found == {}
    assert "in the order of the numbers or of the names: " in note
    assert "name them 0 to 11, or write labels.csv" in note
    assert match_classes(["1", "12"], labels, 12)[0] == {}  # 12 is no class counted from 0
    assert match_classes([str(i) for i in range(12)], labels, 12) == ({str(i): i for i in range(12)}, [])


def test_a_model_without_labels_takes_numbers_or_the_order_of_as_many_folders() -> None:
    assert match_classes(["0", "1"], None, 5) == ({"0": 0, "1": 1}, [])
    found, (note,) = match_classes(["dog", "cat"], None, 2)
    assert found == {"cat": 0, "dog": 1}
    assert "in the order of their names" in note
    found, (note,) = match_classes(["dog", "cat"], None, 3)
    assert found == {}
    assert "the model has no labels for cat, dog" in note


def test_a_label_of_several_classes_is_told_apart() -> None:
    assert name_classes(["crane", "cat", "crane"], 3) == ("crane (class 0)", "cat", "crane (class 2)")
    assert name_classes(["\u00e9", "e\u0301"], 2) == ("\u00e9 (class 0)", "e\u0301 (class 1)")  # one text to Swift
    with pytest.raises(UserError, match=r"the label 'a \(class 0\)' of two classes; expected labels that differ"):
        name_classes(["a", "a", "a (class 0)"], 3)
