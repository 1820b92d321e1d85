"""Where the elements of tensors lie, after they were moved about."""

import pytest
import torch

from bigvit_edge.export.core.ir import RowSet, Value, View, view_of
from bigvit_edge.export.core.places import Elsewhere, Places, invert, to_rows


def test_rows_and_columns_that_were_cut_out_are_found() -> None:
    places, value = Places(), Value(5, 8)
    places.add(Value(3, 3))
    numbers = places.add(value)
    assert places.find_views(numbers) == (view_of(value),)
    assert places.find_views(numbers[1:4, 2:6]) == (View(value, RowSet(3, 1), 2, 4),)
    assert places.find_views(to_rows(numbers.view(1, 5, 2, 4)[:, :, 1])) == (View(value, RowSet(5), 4, 4),)


def test_rows_of_several_values_are_a_view_each() -> None:
    places, first, second = Places(), Value(2, 4), Value(3, 6)
    a, b = places.add(first), places.add(second)
    expected = View(second, RowSet(2, 1), 2, 4), view_of(first), View(second, RowSet(1), 2, 4)
    assert places.find_views(torch.cat([b[1:, 2:], a, b[:1, 2:]])) == expected


def test_rows_out_of_order_are_a_view_each() -> None:
    places, value = Places(), Value(3, 2)
    found = places.find_views(places.add(value).flip(0))
    assert [(view.rows.first, view.rows.count) for view in found] == [(2, 1), (1, 1), (0, 1)]


def test_what_does_not_lie_in_rows_is_refused() -> None:
    places = Places()
    numbers = places.add(Value(4, 6))
    places.add(Value(4, 6))
    behind_the_end = torch.arange(22, 26)[None]  # of the first value and of the next
    for moved in (numbers.T, numbers.view(2, 12), numbers[:, ::2], numbers[:1].expand(4, 6).T, behind_the_end):
        with pytest.raises(Elsewhere):
            places.find_views(moved)


def test_an_element_is_of_the_value_that_it_was_numbered_in() -> None:
    places, values = Places(), [Value(2, 3), Value(1, 1), Value(4, 2)]
    for value in values:
        places.add(value)
    assert [places.find_value(number) for number in (0, 5, 6, 7, 14)] == [values[i] for i in (0, 0, 1, 2, 2)]


def test_heads_are_arranged_as_the_rows_that_they_are_of() -> None:
    places, value = Places(), Value(5, 8)
    numbers = places.add(value)
    heads = numbers.view(5, 2, 4).transpose(0, 1)  # [heads, rows, width]: two views as they stand
    order, views = places.arrange(heads)
    assert views == ((view_of(value),),)
    assert torch.equal(heads.flatten()[order].view(5, 8), numbers)
    assert torch.equal(invert(order, numbers, (2, 5, 4)), heads)


def test_rows_that_are_one_view_stay_as_they_stand() -> None:
    places, value, other = Places(), Value(4, 6), Value(4, 6)
    a, b = places.add(value), places.add(other)
    order, views = places.arrange(a[1:3], b[2:])
    assert order.tolist() == list(range(12))
    assert views == ((View(value, RowSet(2, 1), 0, 6),), (View(other, RowSet(2, 2), 0, 6),))


def test_operands_that_no_order_puts_in_rows_are_refused() -> None:
    places = Places()
    a, b = places.add(Value(4, 6)), places.add(Value(6, 4))
    with pytest.raises(Elsewhere):
        places.arrange(a, b.T)
