"""A user's folder of pictures: which there are, of which class, which to calibrate on and which to evaluate on."""

import csv
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from bigvit_edge.artifact import Pixels, hash_file
from bigvit_edge.errors import UserError, keep_few, list_few
from bigvit_edge.export.decoding import list_endings
from bigvit_edge.export.image import prepare
from bigvit_edge.preprocessing import Preprocessing

LABELS = "labels.csv"
CALIBRATION = 128  # pictures to calibrate on at most
MOST_UNREADABLE = 0.1  # share of a folder that may be left out, and said
DIGITS = 16  # of a picture's sha256 that are kept

Watch = Callable[[Iterable[Any], str, int], Iterable[Any]]  # goes through something of that name and length


def unwatched(items: Iterable[Any], name: str, count: int) -> Iterable[Any]:
    """Go through something and tell nobody."""
    return items


@dataclass(frozen=True)
class Picture:
    """A file and the name of its class, None if nobody says."""

    path: Path
    label: str | None


@dataclass(frozen=True)
class Pictures:
    """Pictures, resized and cropped as a model wants them.

    Iterating reads and prepares one after the other, [S, S, 3] each, so that however many there are, one is in memory.
    """

    pictures: tuple[Picture, ...]
    how: Preprocessing
    watch: Watch = unwatched
    name: str = "pictures"

    def __len__(self) -> int:
        return len(self.pictures)

    def __iter__(self) -> Iterator[Pixels]:
        for picture in self.watch(self.pictures, self.name, len(self.pictures)):
            yield prepare(picture.path, self.how).pixels

    def read(self, faults: dict[int, str], notes: Counter[str]) -> Iterator[Pixels]:
        """Read the pictures, leaving out what cannot be read.

        A picture left out is put into faults, by its number; what is to be told of the others is counted in notes.
        """
        for i, picture in enumerate(self.watch(self.pictures, self.name, len(self.pictures))):
            try:
                prepared = prepare(picture.path, self.how)
            except UserError as e:
                faults[i] = e.met
                continue
            notes.update(prepared.notes)
            yield prepared.pixels

    def drop(self, faults: dict[int, str]) -> "tuple[Pictures, list[str]]":
        """Drop those at fault; and what to tell of them.

        UserError if they are more than MOST_UNREADABLE of all.
        """
        said = f"{len(faults)} of {len(self)} pictures cannot be read ({list_few(faults.values(), by='; ')})"
        if len(faults) > max(1, MOST_UNREADABLE * len(self)) or len(faults) == len(self):
            raise UserError(said, f"at most {MOST_UNREADABLE:.0%}, which are left out", "check them")
        rest = tuple(picture for i, picture in enumerate(self.pictures) if i not in faults)
        return replace(self, pictures=rest), [f"{said}: left out"]

    def tell(self, faults: dict[int, str], notes: Counter[str]) -> "tuple[Pictures, list[str]]":
        """Drop those at fault; and what to tell of these and others."""
        rest, said = (self, []) if not faults else self.drop(faults)
        shown = keep_few(f"{count} of {len(rest)} pictures: {note}" for note, count in notes.most_common())
        return rest, said + shown

    def rename(self, name: str) -> "Pictures":
        """Give the pictures another name for the progress bar."""
        return replace(self, name=name)


def find_files(folder: Path) -> tuple[list[Path], list[str]]:
    """Find the picture files below a folder; and notes.

    Pictures by their endings, in order; notes tell of the others. Linked folders are entered, each folder once; names
    that begin with a dot are passed over. UserError if there is no folder or picture, or one below cannot be listed.
    """
    if not folder.is_dir():
        raise UserError(f"no folder {folder}", "a folder of pictures", "check the path")
    endings, found, others, again = list_endings(), list[Path](), Counter[str](), list[str]()
    seen = {_identify(folder)}
    for place, inner, names in os.walk(folder, followlinks=True, onerror=_refuse):
        fresh = []
        for name in sorted(name for name in inner if not name.startswith(".")):
            if (key := _identify(Path(place, name))) in seen:
                again.append(str(Path(place, name).relative_to(folder)))
                continue
            seen.add(key)
            fresh.append(name)
        inner[:] = fresh
        for path in (Path(place, name) for name in names if not name.startswith(".") and name != LABELS):
            ending = path.suffix.lower()
            if ending in endings and path.is_file():
                found.append(path)
            else:
                others["that lead nowhere" if ending in endings else ending or "without an ending"] += 1
    kinds = list_few(f"{count} {kind}" for kind, count in sorted(others.items(), key=lambda kind: (-kind[1], kind)))
    notes = [f"passed over what is no picture by its ending: {kinds}"] if others else []
    if again:
        notes.append(f"folders that were met before by another way are passed over: {list_few(again)}")
    if not found:
        met = f"no picture in {folder}" + (f" ({'; '.join(notes)})" if notes else " or below")
        raise UserError(met, "some that end in .jpg, .png, .webp ...", "add pictures like those the model meets")
    return sorted(found), notes


def _identify(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _refuse(e: OSError) -> None:
    met = f"{e.filename} cannot be listed ({e.strerror})"
    raise UserError(met, "folders that this user may read", "check it") from e


def find_pictures(folder: Path) -> tuple[list[Picture], list[str]]:
    """Find the pictures of a folder and their classes; and notes.

    By path (see find_files); notes tell of those left out. Their classes are what labels.csv says (header file,label;
    files relative to the folder), else the sub-folders' names; without either they have none.

    UserError as of find_files, if pictures lie beside sub-folders of pictures, or labels.csv cannot be understood.
    """
    found, notes = find_files(folder)
    if (folder / LABELS).exists():
        pictures, more = _label_by_file(folder, found)
        return pictures, notes + more
    flat = [path for path in found if path.parent == folder]
    if flat and len(flat) < len(found):
        met = f"{folder} holds {len(flat)} pictures beside sub-folders with {len(found) - len(flat)}"
        raise UserError(met, "all in sub-folders, one a class, or none", f"move them, or add a {LABELS}")
    return [Picture(path, None if flat else path.relative_to(folder).parts[0]) for path in found], notes


def _label_by_file(folder: Path, found: Sequence[Path]) -> tuple[list[Picture], list[str]]:
    path = folder / LABELS
    try:
        with path.open(encoding="utf-8-sig", newline="") as text:
            rows = list(csv.reader(text))
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise UserError(f"{path} cannot be read ({e})", "lines of file,label in UTF-8", "check it") from e
    head = [word.strip().lower() for word in rows[0]] if rows else []
    if not {"file", "label"} <= set(head):
        met = f"{path} begins with {','.join(head)[:60]!r}"
        raise UserError(met, "the header file,label", "add it; label is a class's name or number")
    labels: dict[Path, str] = {}
    known = set(found)
    for number, row in enumerate(rows[1:], 2):
        if not any(cell.strip() for cell in row):
            continue
        cells = dict(zip_longest(head, row, fillvalue=""))
        name, label = cells["file"].strip(), cells["label"].strip()
        picture = folder / name
        if picture not in known or not label:
            met = f"line {number} of {path}: {name[:80]!r}, {label[:80]!r}"
            raise UserError(met, "a picture in that folder and its label", "correct the line, or take it out")
        if labels.setdefault(picture, label) != label:
            raise UserError(f"{path} labels {name} {labels[picture]!r} and {label!r}", "one label", "take one out")
    if not labels:
        raise UserError(f"{path} labels no picture", "a line file,label for each", "add them, or take the file away")
    left = [str(picture.relative_to(folder)) for picture in found if picture not in labels]
    notes = [f"{LABELS} does not name {list_few(left, by='; ')}: left out"] if left else []
    return [Picture(picture, labels[picture]) for picture in found if picture in labels], notes


def split(pictures: Sequence[Picture], watch: Watch = unwatched) -> tuple[list[Picture], list[Picture]]:
    """Split pictures into those to calibrate on and the others.

    To calibrate on: at most CALIBRATION and at most half of each class, as many of each as far as it goes; the others
    stay in their order. Which is which depends on the bytes of the files alone, not on names or order, and copies of a
    picture stay together. UserError if there are not two different ones.
    """
    hashes = {p: hash_file(p.path) for p in watch(pictures, "split", len(pictures))}
    copies: dict[str, int] = defaultdict(int)
    classes: dict[str, set[str]] = defaultdict(set)
    for picture, digest in hashes.items():
        copies[digest] += 1
        classes[picture.label or ""].add(digest)
    if len(copies) < 2:
        met = "one picture" if len(pictures) == 1 else f"{len(pictures)} copies of one picture"
        raise UserError(met, "two different ones at least, to calibrate and to evaluate on", "add some")
    halves = [sorted(classes[name])[: len(classes[name]) // 2] for name in sorted(classes)]
    if not any(halves):  # one picture a class
        halves = [sorted(copies)[: len(copies) // 2]]
    chosen: set[str] = set()
    room = max(min(CALIBRATION, len(pictures) // 2), min(copies.values()))
    for turn in zip_longest(*halves):
        for digest in turn:
            if digest is not None and digest not in chosen and copies[digest] <= room:
                chosen.add(digest)
                room -= copies[digest]
    taken = [picture for picture in pictures if hashes[picture] in chosen]
    return taken, [picture for picture in pictures if hashes[picture] not in chosen]


def choose_evenly(folder: Path) -> tuple[list[Picture], list[str]]:
    """Choose at most CALIBRATION pictures of a folder, evenly spread.

    They are as far from each other in the order of their paths as it goes, so that no sub-folder is left out for its
    name. Also returns what to tell of other files. UserError as of find_files.
    """
    found, notes = find_files(folder)
    count = min(CALIBRATION, len(found))
    return [Picture(found[i * len(found) // count], None) for i in range(count)], notes


def digest_pictures(pictures: Iterable[Picture]) -> tuple[str, ...]:
    """Digest each different picture, in order.

    A digest is the beginning of the picture's sha256.
    """
    return tuple(sorted({hash_file(picture.path)[:DIGITS] for picture in pictures}))


def leave_out(
    pictures: Sequence[Picture], digests: Collection[str], watch: Watch = unwatched
) -> tuple[list[Picture], list[str]]:
    """Leave out the digested pictures; and what to tell of them.

    UserError if none is left.
    """
    if not digests:
        return list(pictures), []
    watched = watch(pictures, "compare", len(pictures))
    rest = [picture for picture in watched if hash_file(picture.path)[:DIGITS] not in digests]
    count = len(pictures) - len(rest)
    if not rest:
        raise UserError(f"all {count} pictures were calibrated on", "others to evaluate on", "add some")
    return rest, [f"{count} of {len(pictures)} pictures were calibrated on: left out"] if count else []
