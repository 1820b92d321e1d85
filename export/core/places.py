"""Where the elements of a graph's tensors lie: each element of each value has a number.

What moves elements and computes nothing (reshape, permute, slice, cat, expand) is run on their numbers; where these are
afterwards says which rows and columns a later op reads. So no such op needs a reader of its own.
"""

from bisect import bisect_right
from collections.abc import Iterator
from itertools import pairwise
from math import prod

import torch
from torch import Tensor

from bigvit_edge.export.core.ir import RowSet, Value, View, Views


class Elsewhere(ValueError):
    """Elements that do not lie in rows."""


class Places:
    """The numbers of all values' elements."""

    def __init__(self) -> None:
        self.values: list[Value] = []
        self.starts: list[int] = []
        self.end = 0

    def add(self, value: Value) -> Tensor:
        """Number a value's elements; returns the numbers [rows, columns]."""
        self.values.append(value)
        self.starts.append(self.end)
        self.end += value.rows * value.columns
        return torch.arange(self.starts[-1], self.end).view(value.rows, value.columns)

    def find_value(self, number: int) -> Value:
        """Find the value whose element has a number."""
        return self.values[self._find(number)]

    def _find(self, number: int) -> int:
        return bisect_right(self.starts, number) - 1

    def find_views(self, numbers: Tensor) -> Views:
        """Find the views whose rows have these numbers.

        numbers: [rows, columns]. Elsewhere if there are none.
        """
        firsts, columns = numbers[:, 0].contiguous(), numbers.shape[1]
        if not torch.equal(numbers, firsts[:, None] + torch.arange(columns)):
            raise Elsewhere
        some = slice(self._find(int(firsts.min())), self._find(int(firsts.max())) + 1)
        values, starts = self.values[some], torch.tensor(self.starts[some])
        which = torch.searchsorted(starts, firsts, right=True) - 1
        widths = torch.tensor([value.columns for value in values])[which]
        places = firsts - starts[which]
        lines, offsets = places // widths, places % widths
        if (offsets + columns > widths).any():
            raise Elsewhere
        follows = (which[1:] == which[:-1]) & (lines[1:] == lines[:-1] + 1) & (offsets[1:] == offsets[:-1])
        begins = [0, *(torch.nonzero(~follows).flatten() + 1).tolist()]
        return tuple(
            View(values[which[begin]], RowSet(end - begin, int(lines[begin])), int(offsets[begin]), columns)
            for begin, end in pairwise([*begins, len(firsts)])
        )

    def arrange(self, *operands: Tensor) -> tuple[Tensor, tuple[Views, ...]]:
        """Find rows for what works on each element alone.

        operands: numbers of one shape. Tried are the rows as they stand and, where these are not one view each, those
        of the first operand's values: the fewest views win. Returns the order of the elements in these rows, and each
        operand's views; Elsewhere if there are none.
        """
        flat, found = [numbers.flatten() for numbers in operands], []
        for order, columns in self._list_orders(operands[0]):
            try:
                views = tuple(self.find_views(numbers[order].view(-1, columns)) for numbers in flat)
            except Elsewhere:
                continue
            found.append((sum(map(len, views)), order, views))
            if found[-1][0] == len(operands):
                break
        if not found:
            raise Elsewhere
        _, order, views = min(found, key=lambda tried: tried[0])
        return order, views

    def _list_orders(self, numbers: Tensor) -> Iterator[tuple[Tensor, int]]:
        """Orders of the elements, and how many are a row."""
        flat = numbers.flatten()
        yield torch.arange(flat.numel()), numbers.shape[-1] if numbers.dim() else 1
        order = flat.argsort()
        number = self._find(int(flat[order[0]]))
        columns = (flat - self.starts[number]) % self.values[number].columns
        width = int(columns.max() - columns.min()) + 1
        if flat.numel() % width == 0:
            yield order, width


def invert(order: Tensor, numbers: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Give elements in rows the shape they had before."""
    placed = torch.empty_like(order)
    placed[order] = numbers.flatten()
    return placed.view(shape)


def to_rows(numbers: Tensor) -> Tensor:
    """[..., columns] -> [rows, columns]."""
    return numbers.reshape(prod(numbers.shape[:-1]), numbers.shape[-1] if numbers.dim() else 1)
