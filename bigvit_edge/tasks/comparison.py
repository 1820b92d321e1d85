"""Two sets of answers beside each other, a file's and PyTorch's: what every task compares, and what images can show."""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bigvit_edge.artifact import Method
from bigvit_edge.measures import Parity
from bigvit_edge.signature import Array
from bigvit_edge.target import FULL, Limits

LOW_KEEP = 0.5
CONVOLVED = "convolved"  # what a file with convolutions in int8 is judged as, whatever its precision is called

CENTRED = {
    "fp32": "fp32_centred",
    "fp16": "fp16_centred",
    "int8": "int8_centred",
    "int8-static": "static_centred",
    CONVOLVED: "convolved_centred",
    "int4": "int4_centred",
    "mixed": "mixed_centred",
}

# What rounding in a precision adds to the answers, by their size: measured, docs/parity.md. Where PyTorch's answers
# vary less than that over the images, the centred cosine of a right file falls.
ROUNDING = {
    "fp32": 3e-6, "fp16": 1e-3, "int8": 1.4e-2, "int8-static": 3e-2, CONVOLVED: 3e-2, "int4": 0.1, "mixed": 0.1,
}  # fmt: skip
CHANCE = 0.2  # of a centred cosine: what files with the features of other images stay below
FLAT = 1e-6  # spread of answers that do not vary: less than float32 can say
LEAST_SPAN = 0.01  # of the largest answer: float32 rounds by that, however little answers vary
ROWS = 1024  # images compared at a time


def compare(answers: Array, expected: Array) -> Parity:
    """Compare two sets of answers [n, ...] as vectors, an image each.

    A file that answers with NaN agrees with nothing. No top-1: what is largest means something to classes alone.
    """
    count, sums = len(answers), _Sums()
    answers, expected = (values.reshape(count, -1) for values in (answers, expected))
    centre = expected.mean(0, dtype=np.float64)  # [values]
    finite = bool(np.isfinite(answers).all())
    for start in range(0, count, ROWS):
        a, b = (values[start : start + ROWS].astype(np.float64) for values in (answers, expected))
        sums.add_reference(b, centre)
        if finite:
            sums.add(a, b, centre)
    spread = math.sqrt(sums.varied / sums.whole) if sums.whole else 0.0
    flat = spread < FLAT
    span = sums.largest if flat else max(sums.farthest, LEAST_SPAN * sums.largest)
    if not finite:
        return Parity(math.inf, 0.0, 0.0, None, count, None, None if flat else 0.0, spread, span)
    cosines = np.concatenate(sums.cosines)
    product = math.sqrt(sums.file_varied * sums.varied)
    centred = sums.together / product if product else 0.0
    return Parity(
        sums.max_abs, float(cosines.min()), float(cosines.mean()), None, count, None, None if flat else centred,
        spread, span,
    )  # fmt: skip


@dataclass
class _Sums:
    """What compare gathers over parts of the images, so that no copy of all answers is made."""

    whole: float = 0.0  # PyTorch's answers squared
    varied: float = 0.0  # the same, about their mean over the images
    file_varied: float = 0.0  # the file's, about the same mean
    together: float = 0.0  # one times the other, both about it
    largest: float = 0.0
    farthest: float = 0.0
    max_abs: float = 0.0
    cosines: list[NDArray[np.float64]] = field(default_factory=list)

    def add_reference(self, b: NDArray[np.float64], centre: NDArray[np.float64]) -> None:
        self.whole += float((b * b).sum())
        self.varied += float(((b - centre) ** 2).sum())
        self.largest = max(self.largest, float(np.abs(b).max()))
        self.farthest = max(self.farthest, float(np.abs(b - centre).max()))

    def add(self, a: NDArray[np.float64], b: NDArray[np.float64], centre: NDArray[np.float64]) -> None:
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        alike = np.asarray(~a.any(1) & ~b.any(1), np.float64)  # two zeros are equal, one is not
        self.cosines.append(np.divide((a * b).sum(1), norms, out=alike, where=norms > 0))
        self.max_abs = max(self.max_abs, float(np.abs(a - b).max()))
        self.file_varied += float(((a - centre) ** 2).sum())
        self.together += float(((a - centre) * (b - centre)).sum())


def name_standard(precision: str, method: Method) -> str:
    """Name what an entry point is judged as.

    That is its file's precision, or CONVOLVED.
    """
    return CONVOLVED if precision == FULL or (method.conversions and precision != "int4") else precision


def choose_slack(precision: str, limits: Limits, keep: float | None) -> float:
    """Choose how many times as large departures may be."""
    return limits.low_keep_slack if precision != "fp32" and keep is not None and keep < LOW_KEEP else 1


def measure_hidden(spread: float, precision: str) -> float:
    """Measure by how much rounding enlarges what answers vary by.

    That is, the two together over the first.
    """
    return math.hypot(1, ROUNDING[precision] / max(spread, FLAT))


def bound_centred(
    parity: Parity, precision: str, limits: Limits, keep: float | None = None
) -> tuple[float | None, str | None]:
    """Bound the centred cosine that a file is to reach.

    It is to reach its limit, less as rounding hides more of the little by which PyTorch's answers vary. Also returns,
    in words, what of the file stays unseen all the same. None instead of the cosine where files with features of other
    images could reach it too, which no slack makes of a limit above that.
    """
    if parity.centred_cosine is None or parity.spread is None:
        return None, None
    limit, slack = getattr(limits, CENTRED[precision]), choose_slack(precision, limits, keep)
    hidden = measure_hidden(parity.spread, precision)
    lowest = max((1 - (1 - limit) * slack) / hidden, min(CHANCE, limit / hidden))
    if (limit if limit >= CHANCE else 1) / hidden >= CHANCE:  # a lower one is the user's own wish
        return lowest, None
    doubt = (
        f"PyTorch's answers vary over the images by {parity.spread:.1g} of their size, which the rounding of "
        f"{precision} hides: whether features are right is not seen"
    )
    return (lowest if limit < CHANCE else None), doubt


def explain_reference(parity: Parity, precision: str, limits: Limits, keep: float | None = None) -> str | None:
    """Explain what PyTorch's own answers leave unsaid about a file.

    None if nothing.
    """
    if parity.span is None or parity.spread is None:  # of a manifest that did not measure it
        return None
    if parity.span == 0:
        return "PyTorch's answers are all zero: only the largest difference says anything"
    if parity.images == 1:
        return "one image: a file that gives the same answer to every image cannot be told from a right one"
    if parity.centred_cosine is None:
        return f"PyTorch's answers are the same for all {parity.images} images: whether features are right is not seen"
    return bound_centred(parity, precision, limits, keep)[1]


def judge_centred(parity: Parity, precision: str, limits: Limits, keep: float | None = None) -> list[str]:
    """List in words where the centred cosine falls short."""
    lowest, _ = bound_centred(parity, precision, limits, keep)
    if lowest is None or parity.centred_cosine is None or parity.centred_cosine >= lowest:
        return []
    named = name_limits(CENTRED[precision], choose_slack(precision, limits, keep))
    return [f"centred cosine {parity.centred_cosine:.5f}, limit {lowest:.4g} ({named})"]


def list_cells(parity: Parity) -> tuple[str, str, str]:
    """List the cells of a table: the cosines, mean, smallest and centred."""
    centred = "–" if parity.centred_cosine is None else f"{parity.centred_cosine:.5f}"
    return f"{parity.cosine_mean:.5f}", f"{parity.cosine_min:.5f}", centred


def name_limits(name: str, slack: float) -> str:
    """Name the limits that a figure was held to."""
    return f"limits.{name}" + (", limits.low_keep_slack" if slack != 1 else "")
