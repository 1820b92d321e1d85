"""Does a file say what PyTorch says? The comparison of their logits, and the verdict."""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bigvit_edge.artifact import Array, Method
from bigvit_edge.measures import Parity, bound_share
from bigvit_edge.target import FULL, Limits

LOW_KEEP = 0.5
CONVOLVED = "convolved"  # what a file with convolutions in int8 is judged as, whatever its precision is called

# Which limit the mean cosine of a precision is held to, and its share of equal top-1 if not top1_agreement.
COSINES = {
    "fp16": "fp16_cosine",
    "int8": "int8_cosine",
    "int8-static": "static_cosine",
    CONVOLVED: "convolved_cosine",
    "int4": "int4_cosine",
    "mixed": "mixed_cosine",
}
CENTRED = {
    "fp32": "fp32_centred",
    "fp16": "fp16_centred",
    "int8": "int8_centred",
    "int8-static": "static_centred",
    CONVOLVED: "convolved_centred",
    "int4": "int4_centred",
    "mixed": "mixed_centred",
}
AGREEMENTS = {"int8-static": "static_agreement", CONVOLVED: "convolved_agreement", "int4": "int4_agreement"}

# What rounding in a precision adds to the logits, by their size: measured, docs/parity.md. Where PyTorch's logits vary
# less than that over the images, the centred cosine of a right file falls.
ROUNDING = {
    "fp32": 3e-6, "fp16": 1e-3, "int8": 1.4e-2, "int8-static": 3e-2, CONVOLVED: 3e-2, "int4": 0.1, "mixed": 0.1,
}  # fmt: skip
CHANCE = 0.2  # of a centred cosine: what files with the features of other images stay below
FLAT = 1e-6  # spread of logits that do not vary: less than float32 can say
LEAST_SPAN = 0.01  # of the largest logit: float32 rounds by that, however little logits vary
ROWS = 1024  # images compared at a time


def compare(logits: Array, expected: Array) -> Parity:
    """Compare two sets of logits [n, classes].

    A file that answers with NaN agrees with nothing.
    """
    count, sums = len(logits), _Sums()
    centre = expected.mean(0, dtype=np.float64)  # [classes]
    finite = bool(np.isfinite(logits).all())
    for start in range(0, count, ROWS):
        a, b = (values[start : start + ROWS].astype(np.float64) for values in (logits, expected))
        sums.add_reference(b, centre)
        if finite:
            sums.add(a, b, centre)
    spread = math.sqrt(sums.varied / sums.whole) if sums.whole else 0.0
    flat = spread < FLAT
    span = sums.largest if flat else max(sums.farthest, LEAST_SPAN * sums.largest)
    if not finite:
        return Parity(math.inf, 0.0, 0.0, 0.0, count, bound_share(0, count), None if flat else 0.0, spread, span)
    cosines, agreement = np.concatenate(sums.cosines), sums.agreed / count
    product = math.sqrt(sums.file_varied * sums.varied)
    centred = sums.together / product if product else 0.0
    return Parity(
        sums.max_abs, float(cosines.min()), float(cosines.mean()), agreement, count, bound_share(agreement, count),
        None if flat else centred, spread, span,
    )  # fmt: skip


@dataclass
class _Sums:
    """What compare gathers over parts of the images, so that no copy of all logits is made."""

    whole: float = 0.0  # PyTorch's logits squared
    varied: float = 0.0  # the same, about their mean over the images
    file_varied: float = 0.0  # the file's, about the same mean
    together: float = 0.0  # one times the other, both about it
    largest: float = 0.0
    farthest: float = 0.0
    max_abs: float = 0.0
    agreed: int = 0
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
        self.agreed += int((a.argmax(1) == b.argmax(1)).sum())
        self.max_abs = max(self.max_abs, float(np.abs(a - b).max()))
        self.file_varied += float(((a - centre) ** 2).sum())
        self.together += float(((a - centre) * (b - centre)).sum())


def name_standard(precision: str, method: Method) -> str:
    """Name what an entry point is judged as.

    That is its file's precision, or CONVOLVED.
    """
    return CONVOLVED if precision == FULL or (method.conversions and precision != "int4") else precision


def judge(parity: Parity, precision: str, limits: Limits, trained: bool = True, keep: float | None = None) -> list[str]:
    """List where a file falls short of its limits, in words.

    Empty if it does not. trained: its weights are not random.
    """
    slack = _choose_slack(precision, limits, keep)
    faults = []
    for what, value, name in () if parity.span == 0 else _list_cosines(parity, precision, trained):
        least = 1 - (1 - getattr(limits, name)) * slack
        if value < least:
            faults.append(f"{what} {value:.5f}, limit {least:g} ({_name_limits(name, slack)})")
    lowest, _ = bound_centred(parity, precision, limits, keep)
    if lowest is not None and parity.centred_cosine is not None and parity.centred_cosine < lowest:
        named = _name_limits(CENTRED[precision], slack)
        faults.append(f"centred cosine {parity.centred_cosine:.5f}, limit {lowest:.4g} ({named})")
    if trained and parity.centred_cosine is not None:
        name = AGREEMENTS.get(precision, "top1_agreement")
        least, (_, high) = 1 - (1 - getattr(limits, name)) * slack, bound_share(parity.top1_agreement, parity.images)
        if high < least:
            share = f"{parity.top1_agreement:.1%}, at most {high:.1%} with 95 % confidence"
            faults.append(f"top-1 agreement {share}, limit {least:.1%} ({_name_limits(name, slack)})")
    if (precision == "fp32" or parity.span == 0) and parity.max_abs > limits.fp32_max_abs * (parity.span or 1):
        faults.append(_explain_difference(parity, limits))
    return faults


def _choose_slack(precision: str, limits: Limits, keep: float | None) -> float:
    """How many times as large departures may be."""
    return limits.low_keep_slack if precision != "fp32" and keep is not None and keep < LOW_KEEP else 1


def _list_cosines(parity: Parity, precision: str, trained: bool) -> list[tuple[str, float, str]]:
    """The cosines of whole logits that a file is held to: in words, as met, and by which limit."""
    if precision == "fp32":
        return [("smallest cosine", parity.cosine_min, "fp32_cosine")]
    if not trained:
        name = "untrained_int4_cosine" if precision == "int4" else "untrained_cosine"
        return [("smallest cosine", parity.cosine_min, name)]
    mean = ("mean cosine", parity.cosine_mean, COSINES[precision])
    return [mean] if precision == "int4" else [mean, ("smallest cosine", parity.cosine_min, "cosine_min")]


def bound_centred(
    parity: Parity, precision: str, limits: Limits, keep: float | None = None
) -> tuple[float | None, str | None]:
    """Bound the centred cosine that a file is to reach.

    It is to reach its limit, less as rounding hides more of the little by which PyTorch's logits vary. Also returns, in
    words, what of the file stays unseen all the same. None instead of the cosine where files with features of other
    images could reach it too, which no slack makes of a limit above that.
    """
    if parity.centred_cosine is None or parity.spread is None:
        return None, None
    limit, slack = getattr(limits, CENTRED[precision]), _choose_slack(precision, limits, keep)
    hidden = math.hypot(1, ROUNDING[precision] / parity.spread)
    lowest = max((1 - (1 - limit) * slack) / hidden, min(CHANCE, limit / hidden))
    if (limit if limit >= CHANCE else 1) / hidden >= CHANCE:  # a lower one is the user's own wish
        return lowest, None
    doubt = (
        f"PyTorch's logits vary over the images by {parity.spread:.1g} of their size, which the rounding of "
        f"{precision} hides: whether features are right is not seen"
    )
    return (lowest if limit < CHANCE else None), doubt


def explain_reference(parity: Parity, precision: str, limits: Limits, keep: float | None = None) -> str | None:
    """Explain what PyTorch's own logits leave unsaid about a file.

    None if nothing.
    """
    if parity.span is None or parity.spread is None:  # of a manifest that did not measure it
        return None
    if parity.span == 0:
        return "PyTorch's logits are all zero: only the largest difference says anything"
    if parity.images == 1:
        return "one image: a file that gives the same answer to every image cannot be told from a right one"
    if parity.centred_cosine is None:
        return f"PyTorch's logits are the same for all {parity.images} images: whether features are right is not seen"
    return bound_centred(parity, precision, limits, keep)[1]


def _explain_difference(parity: Parity, limits: Limits) -> str:
    if not parity.span:
        return f"largest difference {parity.max_abs:.2g}, limit {limits.fp32_max_abs:g} (limits.fp32_max_abs)"
    share = f"{parity.max_abs / parity.span:.2g} of the span of PyTorch's logits, {parity.span:.3g}"
    return f"largest difference {parity.max_abs:.2g}, {share}; limit {limits.fp32_max_abs:g} (limits.fp32_max_abs)"


def _name_limits(name: str, slack: float) -> str:
    return f"limits.{name}" + (", limits.low_keep_slack" if slack != 1 else "")
