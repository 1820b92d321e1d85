"""Multiply-accumulates by shapes are those that a plain loop would do."""

import numpy as np
import pytest

from bigvit_edge.macs import count_attention, count_convolution, count_linear, count_matmul


def test_products_of_weights() -> None:
    assert count_linear((1, 5, 7), 3) == 5 * 7 * 3
    assert count_convolution((1, 8, 4, 4), (3, 2, 2)) == 8 * 16 * 12
    assert count_convolution((1, 4, 4, 8), (2, 2)) == 8 * 16 * 4  # one input a group


@pytest.mark.parametrize(
    ("left", "right", "inner"),
    [
        ((2, 5, 3), (2, 3, 7), 3),
        ((5, 3), (2, 3, 7), 3),
        ((2, 5, 3), (3, 7), 3),
        ((5, 3), (3,), 3),
        ((2, 5, 3), (3,), 3),
        ((3,), (3, 7), 3),
        ((3,), (2, 3, 7), 3),
    ],
)
def test_products_of_matrices_and_vectors(left: tuple[int, ...], right: tuple[int, ...], inner: int) -> None:
    made = np.matmul(np.zeros(left), np.zeros(right))
    assert count_matmul(left, made.shape) == made.size * inner


def test_the_left_matrix_may_be_turned() -> None:
    assert count_matmul((2, 3, 5), (2, 5, 7)) == count_matmul((2, 5, 3), (2, 5, 7)) == 2 * 5 * 3 * 7


def test_attention_is_its_two_products() -> None:
    scores = count_matmul((2, 5, 4), (2, 5, 9))
    assert count_attention((2, 5, 4), 9, 6) == scores + count_matmul((2, 5, 9), (2, 5, 6))
