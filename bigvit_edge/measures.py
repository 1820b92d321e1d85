"""What is measured of a file: agreement with PyTorch, accuracy, and what of it is quantised."""

import math
from dataclasses import dataclass

Interval = tuple[float, float]  # both ends in 0..1

FLOAT = "float"  # the precision of what is not quantised
Z = 1.959964  # of a normal distribution, 95 % lie within so many standard deviations


@dataclass(frozen=True)
class Parity:
    """A comparison of a file's logits with PyTorch's on the same images.

    Largest difference of any logit; cosine of the two logit vectors, the smallest and the mean; share of equal top-1,
    with its interval; number of images.

    centred_cosine: of the logits of all images as one vector, both sides less PyTorch's mean over the images, so that
    what all images have in common counts for nothing; None where PyTorch's do not vary. spread: root mean square of
    PyTorch's logits about that mean over root mean square of the logits, in 0..1; span: what max_abs is measured by,
    the largest of PyTorch's logits about their mean (of the logits themselves where they do not vary), 0 if all are
    zero. All are None in a manifest of version 2.
    """

    max_abs: float
    cosine_min: float
    cosine_mean: float
    top1_agreement: float
    images: int
    top1_interval: Interval | None = None
    centred_cosine: float | None = None
    spread: float | None = None
    span: float | None = None


@dataclass(frozen=True)
class Accuracy:
    """The share of held-out images classified rightly.

    Given are the file's share and its interval, PyTorch's share, and the number of images.
    """

    top1: float
    pytorch_top1: float
    images: int
    top1_interval: Interval | None = None


@dataclass(frozen=True)
class Confusion:
    """A class of which a file takes pictures for another.

    Given are how many there are, how many it has right, and the class that it takes most of the others for, with how
    many.
    """

    label: str
    images: int
    right: int
    taken_for: str
    times: int


@dataclass(frozen=True)
class Evaluated:
    """The user's own pictures behind a bundle's figures.

    Given are how many were evaluated on, of how many of these the model knows the class, and how many others it was
    calibrated on.
    """

    evaluation: int
    labelled: int
    calibration: int


@dataclass(frozen=True)
class Span:
    """The range of a value that is held in int8.

    Given are the op that makes it and its module, the smallest and largest value that int8 stands for, and what bounds
    it: the op itself, by its name, 'constant', or 'calibration'.
    """

    op: str
    layer: str
    low: float
    high: float
    bound: str


@dataclass(frozen=True)
class Coverage:
    """The share of a model in one kind of op and precision.

    The precision 'float' means not quantised. Shares, in 0..1, are of the multiply-accumulates and of the weights,
    these by their bytes in float.
    """

    precision: str
    kind: str
    macs: float
    weights: float


def bound_share(share: float, count: int) -> Interval:
    """Bound a true share, met in `count` independent trials.

    It lies in these bounds with 95 % confidence. Wilson's interval (1927): unlike share +- 2 standard errors it stays
    in 0..1 and does not vanish at 0 and 1.
    """
    if not count:
        return 0.0, 1.0
    middle = share + Z**2 / (2 * count)
    half = Z * math.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2))
    low, high = ((middle + sign * half) / (1 + Z**2 / count) for sign in (-1, 1))
    return max(0.0, min(low, share)), min(1.0, max(high, share))
