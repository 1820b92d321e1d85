"""What a sweep goes through: a TOML file of lists. docs/sweep.md has an example."""

import math
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from bigvit_edge.bench.command import MOST_FPS, MOST_MINUTES, ROUNDS
from bigvit_edge.bench.policies import KNOWN
from bigvit_edge.devices import FORMS, check_name
from bigvit_edge.errors import UserError, name_type, suggest
from bigvit_edge.machine import WORDS
from bigvit_edge.target import FORMATS, PRECISIONS, load_target, override

MOST_BYTES = 2**20  # of the file
MOST_ROUNDS, MOST_THREADS = 100_000, 1024
Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Model:
    """A model, and what else its export is told.

    As of `bigvit-edge export`.
    """

    model: str
    weights: str | None = None
    weights_key: str | None = None
    image_size: int | None = None
    num_classes: int | None = None
    heads: int | None = None
    calibration: str | None = None


@dataclass(frozen=True)
class Sweep:
    """The lists to go through, and how each file is measured.

    formats, precisions: of `target` where the file has none. keeps: () for each model's own; threads: of each cluster
    word, None for its own count. settings: as of `export --set`. images: a folder, None for the demo's. text: of the
    file.
    """

    models: tuple[Model, ...]
    formats: tuple[str, ...]
    precisions: tuple[str, ...]
    keeps: tuple[float, ...]
    devices: tuple[str, ...]
    clusters: tuple[str, ...]
    threads: tuple[int | None, ...]
    target: str
    settings: tuple[str, ...]
    images: str | None
    rounds: int
    minutes: float
    fps: float
    cool: float | None
    text: str = ""


def read_sweep(path: Path) -> Sweep:
    """Read a sweep's file.

    UserError, naming the place in the file, on keys and words that it does not know, and on what cannot work.
    """
    text = _read_text(path)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise UserError(f"{path}: {e}", "a TOML file", "see docs/sweep.md") from e
    table = _Table(data, str(path), (*KEYS,))
    target = table.take_word("target", load_target, "host")
    settings = table.take_words("set", lambda word: override(load_target(target), [word]), ())
    preset = override(load_target(target), settings)
    models = tuple(_read_model(value, f"{path}: models[{i}]") for i, value in enumerate(table.take_list("models")))
    table.refuse_twice("models", models)
    sweep = Sweep(
        models,
        formats=table.take_words("formats", _one_of(FORMATS), preset.formats),
        precisions=table.take_words("precisions", _one_of(PRECISIONS), preset.precisions),
        keeps=table.take_numbers("keeps", float, 0, 1, above=True),
        devices=table.take_words("devices", _check_device, ("local",)),
        clusters=table.take_words("clusters", _check_clusters, ()),
        threads=table.take_numbers("threads", int, 1, MOST_THREADS) or (None,),
        target=target,
        settings=settings,
        images=table.take_word("images", _check_folder, None),
        rounds=table.take_number("rounds", int, 1, MOST_ROUNDS, ROUNDS),
        minutes=table.take_number("minutes", float, 0, MOST_MINUTES, 0.0),
        fps=table.take_number("fps", float, 0, MOST_FPS, 0.0),
        cool=table.take_number("cool", float, -40, 150, None),
        text=text,
    )
    if "rounds" in data and sweep.minutes:
        raise UserError(f"{path}: rounds and minutes", "one of them", "leave one out")
    return sweep


KEYS = (
    "models", "formats", "precisions", "keeps", "devices", "clusters", "threads", "target", "set", "images", "rounds",
    "minutes", "fps", "cool",
)  # fmt: skip


def _read_text(path: Path) -> str:
    if not path.is_file() or path.stat().st_size > MOST_BYTES:
        met = f"{path} is no plain file of up to {MOST_BYTES} bytes" if path.exists() else f"no file {path}"
        raise UserError(met, "a TOML file", "check the path; docs/sweep.md has an example")
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as e:
        raise UserError(f"{path}: {e}", "a TOML file, which is UTF-8", "check the path") from e


def _read_model(value: Any, where: str) -> Model:
    if isinstance(value, str):
        value = {"model": value}
    if not isinstance(value, dict):
        raise UserError(f"{where} is {name_type(value)}", "a word, or a table with `model`")
    table = _Table(value, where, tuple(f.name for f in fields(Model)))
    words = {
        f.name: table.take_number(f.name, int, 1, 2**20, None)
        if f.type == (int | None)
        else table.take_word(f.name, _check_folder if f.name == "calibration" else _accept, f.default)
        for f in fields(Model)
    }
    return Model(**words)


class _Table:
    """A table of the file, and where it is."""

    def __init__(self, data: dict[str, Any], where: str, known: Sequence[str]) -> None:
        self.data, self.where = data, where
        for key in data:
            if key not in known:
                raise UserError(f"{where}: unknown key {key!r}", f"one of {', '.join(known)}", suggest(key, known))

    def take_list(self, key: str, default: Sequence[Any] | None = None) -> Sequence[Any]:
        """Take a list that is not empty."""
        if key not in self.data:
            if default is None:
                raise UserError(f"{self.where}: no {key}", "a list of them", "see docs/sweep.md")
            return default
        value = self.data[key]
        if not isinstance(value, list) or not value:
            met = "an empty list" if value == [] else name_type(value)
            raise UserError(f"{self.where}: {key} is {met}", "a list with at least one item")
        return value

    def take_words(self, key: str, check: Callable[[str], object], default: tuple[str, ...]) -> tuple[str, ...]:
        """Take a list of words, each once, which the check takes."""
        if key not in self.data:
            return default
        values = tuple(self._check(f"{key}[{i}]", value, check) for i, value in enumerate(self.take_list(key)))
        self.refuse_twice(key, values)
        return values

    def take_word(self, key: str, check: Callable[[str], object], default: Any) -> Any:
        """Take a word which the check takes."""
        if key not in self.data:
            if default is MISSING:
                raise UserError(f"{self.where}: no {key}", "a word for it")
            return default
        return self._check(key, self.data[key], check)

    def take_numbers(
        self, key: str, kind: type[Number], low: float, high: float, above: bool = False
    ) -> tuple[Number, ...]:
        """Take a list of numbers from low to high, each once.

        above: low itself is none of them.
        """
        values = tuple(
            self._convert(f"{key}[{i}]", value, kind, low, high, above)
            for i, value in enumerate(self.take_list(key, ()))
        )
        self.refuse_twice(key, values)
        return values

    def take_number(self, key: str, kind: type[Number], low: float, high: float, default: Any) -> Any:
        """Take a number from low to high."""
        if key not in self.data:
            return default
        return self._convert(key, self.data[key], kind, low, high)

    def refuse_twice(self, key: str, values: Sequence[object]) -> None:
        """Refuse a list that has an item twice."""
        for i, value in enumerate(values):
            if value in values[:i]:
                raise UserError(
                    f"{self.where}: {key}[{i}] is {getattr(value, 'model', value)!r} again",
                    "each item once",
                    "leave it out",
                )

    def _check(self, place: str, value: Any, check: Callable[[str], object]) -> str:
        if not isinstance(value, str) or not value:
            met = "an empty word" if value == "" else name_type(value)
            raise UserError(f"{self.where}: {place} is {met}", "a word")
        try:
            check(value)
        except UserError as e:
            raise UserError(f"{self.where}: {place}: {e.met}", e.expected, e.do) from e
        return value

    def _convert(
        self, place: str, value: Any, kind: type[Number], low: float, high: float, above: bool = False
    ) -> Number:
        fits = type(value) is kind or (kind is float and type(value) is int)
        if not fits or not math.isfinite(value) or not low <= value <= high or (above and value == low):
            bounds = f"above {low:g} and at most {high:g}" if above else f"from {low:g} to {high:g}"
            what = "a whole number" if kind is int else "a number"
            raise UserError(f"{self.where}: {place} = {value!r}", f"{what} {bounds}")
        return kind(value)


def _one_of(known: Sequence[str]) -> Callable[[str], None]:
    def check(word: str) -> None:
        if word not in known:
            raise UserError(f"unknown word {word!r}", f"one of {', '.join(known)}", suggest(word, known))

    return check


def _check_clusters(word: str) -> None:
    if not set(word.split(",")) <= set(WORDS):
        _one_of(KNOWN)(word)


def _check_device(word: str) -> None:
    check_name(word)
    kind, _, address = word.partition(":")
    if bool(address) != (kind in ("adb", "ssh")):
        raise UserError(f"device {word!r}", FORMS)


def _check_folder(word: str) -> None:
    if not Path(word).is_dir():
        raise UserError(f"no folder {word}", "a folder of pictures", "check the path")


def _accept(word: str) -> None:
    """Take any word: loading the model judges it."""
