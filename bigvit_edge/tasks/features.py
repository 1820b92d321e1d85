"""What a picture looks like to a model without classes: an embedding [1, C], tokens [1, N, C] or a map [1, C, h, w].

Of random weights the cosine of two images' features is near 1 already, so what is judged is the cosine about PyTorch's
mean over the images, and the largest difference by what PyTorch's features span about that mean.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigvit_edge.artifact import Entry, Manifest, Runner
from bigvit_edge.errors import UserError
from bigvit_edge.measures import Accuracy, Parity
from bigvit_edge.signature import Array, Tensor
from bigvit_edge.target import Limits
from bigvit_edge.tasks import Answer, Expected, Measured, comparison
from bigvit_edge.tasks.comparison import CONVOLVED, choose_slack, measure_hidden, name_limits

OUTPUTS = ("features",)
LABELLED, SCORES = False, False
HEADINGS = ("features", "length", "mean", "smallest", "largest")
DOES, ORDER = "Computes features of pictures", "as the model gives them, scaled by nothing"
MEANINGS = {OUTPUTS[0]: "What the picture looks like."}
COLUMNS = ("cosine", "smallest", "centred", "largest error")
MOST_VALUES = 2**26  # of an answer: more is taken for a mistake
RANKS = 2, 3, 4

# Which limit the largest difference of a precision is held to, over the span of PyTorch's features.
ERRORS = {
    "fp32": "fp32_max_abs",
    "fp16": "features_fp16_error",
    "int8": "features_int8_error",
    "int8-static": "features_static_error",
    CONVOLVED: "features_convolved_error",
    "int4": "features_int4_error",
    "mixed": "features_mixed_error",
}


def check_answer(answer: Tensor, source: str) -> None:
    """Check that a model answers with features of one image.

    UserError otherwise.
    """
    if fault := _find_fault(answer):
        met = f"{source} answers one image with a tensor {list(answer.shape)}, {fault}"
        raise UserError(met, "features [1, C], [1, N, C] or [1, C, h, w]", "return these alone")


def _find_fault(answer: Tensor) -> str:
    if len(answer.shape) not in RANKS:
        return f"of rank {len(answer.shape)}"
    if answer.shape[0] != 1:
        return "of other than one image"
    return "" if 0 < np.prod(answer.shape, dtype=np.int64) <= MOST_VALUES else f"of none or over {MOST_VALUES} values"


def note_answers(first: Array, second: Array) -> tuple[str, ...]:
    """Note that a model answers two images alike."""
    same = np.allclose(first, second, atol=1e-6 * float(np.abs(first).max()))
    return ("the model answers two images with the same features",) if same else ()


def check_entry(entry: Entry) -> None:
    """Check what a manifest says of a file of this task.

    ValueError unless it takes one image, answers with features, and names no classes.
    """
    if len(entry.inputs) != 1 or len(entry.outputs) != 1 or entry.outputs[0].name not in OUTPUTS:
        raise ValueError(f"a file of {entry.signature}, where one image and its features are expected")
    if fault := _find_fault(entry.outputs[0]):
        raise ValueError(f"an output {entry.outputs[0]}, {fault}")
    if entry.labels is not None:
        raise ValueError(f"{len(entry.labels)} labels for features, which have no classes")


def measure(run: Runner | Answer, images: Iterable[NDArray[Any]], expected: Expected) -> Measured:
    """Run a file on images, one by one, and compare."""
    return Measured(compare(np.concatenate([run(image) for image in images]), expected.answers))


def read_answer(run: Runner, image: NDArray[Any]) -> Array:
    """Run an image to its features."""
    return run(image)


@dataclass(frozen=True)
class Features:
    """What a file answers one picture.

    The numbers in order, and the shape in which they lie.
    """

    shape: tuple[int, ...]
    values: tuple[float, ...]

    def as_cells(self) -> tuple[str, ...]:
        """Write what they are like: too many to print."""
        values = np.array(self.values)
        figures = float(np.linalg.norm(values)), float(values.mean()), float(values.min()), float(values.max())
        return str(list(self.shape)), *(f"{figure:.4g}" for figure in figures)


def list_rows(answer: Array, labels: Sequence[str] | None) -> list[Features]:
    """List the one line there is."""
    return [Features(answer.shape, tuple(answer.ravel().tolist()))]


def compare(said: Array, expected: Array) -> Parity:
    """Compare two sets of features [n, ...]."""
    return comparison.compare(said, expected)


def judge(parity: Parity, precision: str, limits: Limits, trained: bool = True, keep: float | None = None) -> list[str]:
    """List where a file falls short of its limits, in words.

    Empty if it does not. Random weights are judged as trained ones are. Where features vary little over the images, the
    largest error may be as many times as large as rounding hides of that.
    """
    slack, name = choose_slack(precision, limits, keep), ERRORS[precision]
    faults = comparison.judge_centred(parity, precision, limits, keep)
    hidden = 1 if parity.centred_cosine is None or parity.spread is None else measure_hidden(parity.spread, precision)
    most = getattr(limits, name) * slack * hidden
    if (error := _measure_error(parity)) > most:
        faults.append(f"largest error {error:.2g} of the features' span, limit {most:.4g} ({name_limits(name, slack)})")
    return faults


def _measure_error(parity: Parity) -> float:
    return parity.max_abs / (parity.span or 1)


def list_cells(parity: Parity | None, accuracy: Accuracy | None) -> tuple[str, ...]:
    """List a table's cells under COLUMNS; dashes where nothing was measured."""
    if parity is None:
        return ("–",) * len(COLUMNS)
    return *comparison.list_cells(parity), f"{_measure_error(parity):.2g}"


def explain_columns(manifest: Manifest) -> Iterator[str]:
    """Explain what the columns mean, and on what images they are."""
    methods = [method for entry in manifest.artifacts for method in entry.methods]
    images = next((str(m.parity.images) for m in methods if m.parity), "no")
    yield f"cosine (mean and smallest): of the features with PyTorch fp32's, on {images} images"
    yield "centred: without what the features of all images have in common; largest error: by their span about that"
