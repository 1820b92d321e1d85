"""Multiply-accumulates of what multiplies matrices, from shapes; nothing else counts, as in the papers.

Whoever reads a format names the shapes; what follows from them is here.
"""

from collections.abc import Sequence
from math import prod

Shape = Sequence[int]


def count_linear(made: Shape, inputs: int) -> int:
    """Count those of a Linear.

    made: [..., outputs].
    """
    return prod(made) * inputs


def count_convolution(made: Shape, kernel: Shape) -> int:
    """Count those of a convolution.

    made: its output, of a transposed one its input; kernel: what each number of that is multiplied by, the inputs of a
    group and the sides, in any order.
    """
    return prod(made) * prod(kernel)


def count_matmul(left: Shape, made: Shape) -> int:
    """Count those of a product of matrices.

    left: [..., m, k], turned, [..., k, m], or [k]; made: [..., m, n], or [..., m] by a vector.
    """
    if len(left) < 2 or len(made) < len(left):
        return prod(made) * left[-1]
    return prod(made) * (prod(left[-2:]) // max(1, made[-2]))


def count_attention(queries: Shape, keys: int, width: int) -> int:
    """Count those of attention: scores, and what they mix.

    queries: [..., m, d]; keys: how many each attends to; width: of the values.
    """
    *rows, depth = queries
    return count_linear((*rows, keys), depth) + count_linear((*rows, width), keys)
