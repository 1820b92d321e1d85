"""What a model takes and gives, as data: named tensors of any rank; a run goes from the ones to the others."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigvit_edge.preprocessing import FLOAT32

Array = NDArray[np.float32]
Run = Callable[[Mapping[str, NDArray[Any]]], Mapping[str, Array]]  # inputs by name -> outputs by name

IMAGE = "image"  # the name of an input that is a picture


@dataclass(frozen=True)
class Tensor:
    """The specification of an input or output.

    shape is in elements, -1 in a place that a file leaves open.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = FLOAT32

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} {list(self.shape)}"


@dataclass(frozen=True)
class Signature:
    """What a model, an entry point or a file takes and gives.

    In the order of its arguments and answers.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def __str__(self) -> str:
        return " -> ".join(", ".join(map(str, side)) for side in (self.inputs, self.outputs))
