"""Queries, keys and values side by side, and Linears that become one."""

import pytest

from bigvit_edge.export.core.ir import Attention, Body, Gelu, Linear, Op, RowSet, Value, View
from bigvit_edge.export.core.layout import join_names, lay_out_attention, merge_linears, name_parent
from tests.export.core.bodies import make_body, make_linear, make_op


def make_attention(**precisions: str) -> tuple[Body, Value, Op]:
    """Attention of 5 rows of 16 columns, behind a Linear for each of its reads."""
    x, out = Value(5, 32), Value(5, 16)
    parts = {name: Value(5, 16) for name in ("q", "k", "v")}
    linears = [
        make_linear(f"layers.0.attn.{name}", x, value, precisions.get(name, "fp32")) for name, value in parts.items()
    ]
    q, k, v = parts.values()
    attention = make_op(Attention(2), out, src=q, key=k, value=v)
    return make_body(out, *linears, attention), x, attention


def test_linears_write_queries_keys_and_values_side_by_side() -> None:
    body, _, attention = make_attention()
    lay_out_attention(body)
    (together,) = {op.view.value for op in body.ops[:3]}
    assert (together.rows, together.columns) == (5, 48)
    expected = [View(together, RowSet(5), column, 16) for column in (0, 16, 32)]
    assert [op.view for op in body.ops[:3]] == [view for (view,) in attention.reads.values()] == expected
    assert attention.layer == "layers.0.attn"


def test_what_no_linear_makes_stays_where_it_is() -> None:
    body, _, attention = make_attention()
    made = body.ops[1].view.value
    body.ops[1] = make_op(Gelu(), made, src=Value(5, 16))
    before = dict(attention.reads)
    lay_out_attention(body)
    assert attention.reads == before


def test_a_value_that_is_read_for_two_stays_where_it_is() -> None:
    body, _, attention = make_attention()
    attention.reads["key"] = attention.reads["src"]
    before = dict(attention.reads)
    lay_out_attention(body)
    assert attention.reads == before


def test_keys_and_values_of_one_linear_lie_behind_the_queries() -> None:
    body, _, attention = make_attention()
    both = Value(5, 32)
    body.ops[1:3] = [make_linear("layers.0.attn.kv", Value(5, 32), both)]
    attention.reads |= {name: (View(both, RowSet(5), at, 16),) for name, at in (("key", 0), ("value", 16))}
    lay_out_attention(body)
    together = attention.reads["src"][0].value
    assert [op.view for op in body.ops[:2]] == [View(together, RowSet(5), 0, 16), View(together, RowSet(5), 16, 32)]
    assert attention.reads["value"] == (View(together, RowSet(5), 32, 16),)


def test_linears_side_by_side_become_one() -> None:
    body, x, _ = make_attention()
    lay_out_attention(body)
    merge_linears(body)
    (linear, _) = body.ops
    assert isinstance(linear.kind, Linear)
    assert [part.layer[-1] for part in linear.kind.weights] == ["q", "k", "v"]
    assert (linear.kind.columns, linear.view.columns, linear.view.is_whole) == (48, 48, True)
    assert linear.reads["src"][0].value is x
    assert linear.layer == "layers.0.attn.qkv"


def test_linears_of_another_precision_stay_apart() -> None:
    body, _, _ = make_attention(q="int8")
    lay_out_attention(body)
    merge_linears(body)
    assert [op.layer for op in body.ops[:-1]] == ["layers.0.attn.q", "layers.0.attn.kv"]


def test_linears_whose_rows_change_in_between_stay_apart() -> None:
    body, x, _ = make_attention()
    lay_out_attention(body)
    body.ops.insert(1, make_linear("change", Value(5, 8), x, accumulates=True))
    merge_linears(body)
    assert [op.layer for op in body.ops] == [
        "layers.0.attn.q", "change", "layers.0.attn.k", "layers.0.attn.v", "layers.0.attn",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("names", "joined"),
    [
        (["a.q"], "a.q"),
        (["a.q", "a.k", "a.v"], "a.qkv"),
        (["a.q_proj", "a.k_proj"], "a.qk_proj"),
        (["a.b.q.w", "a.b.k.w"], "a.b.qk.w"),
    ],
)
def test_names_are_joined_but_for_what_they_share(names: list[str], joined: str) -> None:
    assert join_names(names) == joined


def test_a_layer_outside_any_module_is_its_own_parent() -> None:
    assert [name_parent("layers.0.mlp.fc1"), name_parent("head")] == ["layers.0.mlp", "head"]
