"""What a model is for, one module a task: what its answers are, how a file's are compared and judged, what is printed.

Nothing else in the package knows what an answer means.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from bigvit_edge.artifact import Entry, Manifest, Runner
from bigvit_edge.errors import UserError, suggest
from bigvit_edge.measures import Accuracy, Confusion, Parity
from bigvit_edge.signature import Array, Tensor
from bigvit_edge.target import Limits

TASKS = CLASSIFICATION, FEATURES = "classification", "features"
Answer = Callable[[NDArray[Any]], Array]  # an image as the file takes it -> its answer [1, ...]


@dataclass(frozen=True)
class Expected:
    """PyTorch's answers to some images, [n, ...].

    labels [n]: the classes of the images, -1 of one that the model has not, None where nobody says; names: of classes,
    by their number.
    """

    answers: Array
    labels: NDArray[np.int64] | None = None
    names: Mapping[int, str] | None = None


class Measured(NamedTuple):
    """A file's answers against PyTorch's, as Verified holds them."""

    parity: Parity
    accuracy: Accuracy | None = None
    confusions: tuple[Confusion, ...] = ()


class Row(Protocol):
    """A line of what a file answers one picture.

    A dataclass that JSON takes.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def as_cells(self) -> tuple[str, ...]: ...


class Task(Protocol):
    """The interface of a module here.

    OUTPUTS: what the answer may be called, a model's own first. LABELLED: each place of an answer is a class, which can
    have a name. SCORES: files that take pixels answer with probabilities, which libraries of their formats expect.
    COLUMNS: of a table, for list_cells; HEADINGS: of list_rows, which says what a file answers one picture. DOES,
    ORDER, MEANINGS: in the words of files, what a model does, how its answer lies, and what each of OUTPUTS is.
    check_answer raises UserError on an answer of PyTorch's that is none of this task, check_entry ValueError on a file
    that a manifest describes so. note_answers says what is odd of two answers. measure goes through the images once.
    judge lists in words where a file falls short of its limits, explain_columns what the columns mean.
    """

    OUTPUTS: tuple[str, ...]
    LABELLED: bool
    SCORES: bool
    COLUMNS: tuple[str, ...]
    HEADINGS: tuple[str, ...]
    DOES: str
    ORDER: str
    MEANINGS: Mapping[str, str]

    def check_answer(self, answer: Tensor, source: str) -> None: ...
    def note_answers(self, first: Array, second: Array) -> tuple[str, ...]: ...
    def check_entry(self, entry: Entry) -> None: ...
    def measure(self, run: Runner | Answer, images: Iterable[NDArray[Any]], expected: Expected) -> Measured: ...
    def read_answer(self, run: Runner, image: NDArray[Any]) -> Array: ...
    def list_rows(self, answer: Array, labels: Sequence[str] | None) -> Sequence[Row]: ...
    def compare(self, said: Array, expected: Array) -> Parity: ...
    def judge(
        self, parity: Parity, precision: str, limits: Limits, trained: bool = True, keep: float | None = None
    ) -> list[str]: ...
    def list_cells(self, parity: Parity | None, accuracy: Accuracy | None) -> tuple[str, ...]: ...
    def explain_columns(self, manifest: Manifest) -> Iterator[str]: ...


def find_task(name: str) -> Task:
    """Find the task of that name.

    UserError with those there are.
    """
    if name not in TASKS:
        raise UserError(f"task {name!r}", f"one of {', '.join(TASKS)}", suggest(name, TASKS))
    return cast(Task, import_module(f"bigvit_edge.tasks.{name}"))
