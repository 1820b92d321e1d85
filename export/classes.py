"""The names of classes: those that pictures are filed under, and one for each where they have to differ."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from unicodedata import normalize

from bigvit_edge.errors import UserError, list_few

WNID = re.compile(r"n\d{8}\b")  # of WordNet, as ImageNet's folders are called


def match_classes(names: Iterable[str], labels: Sequence[str] | None, count: int) -> tuple[dict[str, int], list[str]]:
    """Match names to the classes of a model; and notes.

    Returns the number of the class that each name stands for, of `count` classes, and what to tell: names the model
    lacks, things assumed.

    A name is, in this order: a label as it is, whatever its case, underscores and hyphens; one of its words between
    commas ('tench' of 'tench, Tinca tinca') that no other label has; the WordNet number that a label begins with; the
    class's own number, from 0. A model without labels takes numbers; where there are as many names as classes, they are
    the classes in the order of the names, as torchvision's ImageFolder counts them. Numbers from 1 are the classes in
    their order only where the names have the same order; else nobody knows which was meant.
    """
    names = sorted(set(names))
    known = _index_labels(labels or ())
    found = {name: known[key] for name in names if (key := _normalize(name)) in known}
    numbers = {name: int(name) for name in names if name not in found and re.fullmatch(r"\d{1,9}", name)}
    span = (min(numbers.values(), default=0), max(numbers.values(), default=0))
    if len(numbers) == len(names) and span == (1, count):
        return _count_from_one(numbers, count)
    found |= {name: number for name, number in numbers.items() if number < count}
    if labels is None and not found and len(names) == count:
        said = f"the model has no labels: its classes are taken to be the {count} folders in the order of their names"
        return {name: i for i, name in enumerate(names)}, [said]
    lacking = [name for name in names if name not in found]
    if not lacking:
        return found, []
    has = "labels for" if labels is None else f"label for {len(lacking)} of the {len(names)} names,"
    return found, [
        f"the model has no {has} {list_few(lacking)}: their pictures count for agreement alone, not for accuracy"
    ]


def _count_from_one(numbers: dict[str, int], count: int) -> tuple[dict[str, int], list[str]]:
    """The classes of names that are numbers from 1 to `count`, as far as they can be told."""
    if list(numbers.values()) == [*range(1, count + 1)]:
        said = f"the names are the numbers 1 to {count}: they are taken for the classes 0 to {count - 1} in their order"
        return {name: number - 1 for name, number in numbers.items()}, [said]
    said = f"the names are numbers from 1 to {count}, which can be classes in the order of the numbers or of the names"
    return {}, [f"{said}: their pictures count for agreement alone; name them 0 to {count - 1}, or write labels.csv"]


def _index_labels(labels: Sequence[str]) -> dict[str, int]:
    """Every way to name a class -> its number; ways that fit two classes are none."""
    ways: list[dict[str, set[int]]] = [defaultdict(set) for _ in range(3)]
    for i, label in enumerate(labels):
        if wnid := WNID.match(label):
            ways[2][wnid[0]].add(i)
            label = label[wnid.end() :].strip() or label
        ways[0][_normalize(label)].add(i)
        for word in label.split(","):
            ways[1][_normalize(word)].add(i)
    known: dict[str, int] = {}
    for way in reversed(ways):  # a whole label is stronger than a word of another
        known |= {key: next(iter(numbers)) for key, numbers in way.items() if len(numbers) == 1 and key}
    return known


def _normalize(name: str) -> str:
    return " ".join(re.sub(r"[_\-]", " ", name).casefold().split())


def name_classes(labels: Sequence[str] | None, count: int) -> tuple[str, ...]:
    """Name the classes of a classifier, each otherwise.

    Core ML answers with a dictionary. A label that several classes have is followed by the class, 'crane (class 134)';
    equal are, as in Swift, texts of the same characters however they are composed. Without labels the names are the
    classes' numbers, '0' to count - 1. UserError where labels are equal all the same.
    """
    if labels is None:
        return tuple(map(str, range(count)))
    times = Counter(map(_compose, labels))
    names = tuple(label if times[_compose(label)] == 1 else f"{label} (class {i})" for i, label in enumerate(labels))
    if again := [name for name, number in Counter(map(_compose, names)).items() if number > 1]:
        raise UserError(
            f"the label {again[0]!r} of two classes",
            "labels that differ, in a Core ML classifier",
            "rename one, or add --input tensor",
        )
    return names


def _compose(text: str) -> str:
    return normalize("NFC", text)
