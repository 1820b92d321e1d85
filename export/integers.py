"""The part of a graph that computes in int8 on calibrated ranges: its ops, what their values span, their weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

Range = tuple[float, float]  # smallest and largest value


@dataclass(frozen=True)
class Rounded:
    """A weight in int8, and the bias that goes with it.

    integers: int8 in the weight's shape, in -127..127; scale: [out], of each output channel, of a transposed
    convolution [out / groups]; their product is the weight. bias: [out] in float, in place of the graph's own; None:
    that stays.
    """

    integers: Tensor
    scale: Tensor
    bias: Tensor | None


@dataclass(frozen=True)
class Integers:
    """The ops of a graph that compute in int8.

    All are given by their nodes' names.

    ops: those that do; spans: what each value that is held in int8 spans, by the node that makes it (a constant's by
    its placeholder); weights: of the convolutions and Linears among the ops.

    An op reads each value in int8, and gives its own so. Where one of the ops has no span, its value is never rounded:
    it is one kernel with the op that reads it, a convolution with the activation behind it or a padding with the
    convolution behind it. Ops that only move numbers, and poolings and concatenations, have the span of what they read.
    """

    ops: frozenset[str] = frozenset()
    spans: Mapping[str, Range] = field(default_factory=dict)
    weights: Mapping[str, Rounded] = field(default_factory=dict)


NONE = Integers()
