"""The fallback gate names what falls back, where, why and how much of it."""

from dataclasses import replace

from bigvit_edge.artifact import Leftover
from bigvit_edge.export.gate import list_fallbacks
from bigvit_edge.target import Limits
from tests.test_artifact import ENTRY

METHOD = ENTRY.methods[0]
TOPK = Leftover("topk", "layers.0.router", 0.0, "XNNPACK has no top-k")
BMM = Leftover("bmm", "layers.1.p.attn", 0.04, "rank 5")
CONV = Leftover("conv2d", "stem", 0.03, "dilated")


def gate(limits: Limits, *leftovers: Leftover, **fragments: int) -> list[str]:
    layers = {name.replace("_", "."): n for name, n in fragments.items()}
    method = replace(METHOD, leftovers=leftovers, fragments=layers)
    return list_fallbacks(replace(ENTRY, methods=(method,)), limits)


def test_ops_without_arithmetic_do_not_count() -> None:
    assert gate(Limits(max_fallback=0.0), TOPK) == []


def test_at_the_limit_is_within_it() -> None:
    assert gate(Limits(max_fallback=0.04), TOPK, BMM) == []


def test_past_the_limit_every_op_is_named_heaviest_first() -> None:
    head, *lines = gate(Limits(max_fallback=0.05), TOPK, CONV, BMM)
    assert head == "m_int8.tflite: 7.0% of the multiply-accumulates fall back, limit 5.0% (limits.max_fallback):"
    assert lines == ["  bmm in layers.1.p.attn: 4.00%; rank 5", "  conv2d in stem: 3.00%; dilated"]


def test_a_shattered_layer_is_named_with_what_cuts_it() -> None:
    head, *lines = gate(Limits(max_fragments=3), TOPK, layers_0=5, layers_1=3)
    assert "layers in more than 3 pieces (limits.max_fragments)" in head
    assert lines == ["  layers.0 in 5 pieces, cut by topk (XNNPACK has no top-k)"]


def test_layers_whose_names_begin_alike_are_told_apart() -> None:
    eleven = replace(TOPK, layer="layers.11.router")
    _, line = gate(Limits(max_fragments=3), eleven, layers_1=4)
    assert line == "  layers.1 in 4 pieces"


def test_a_long_list_is_cut_and_counted() -> None:
    lines = gate(Limits(), *(replace(BMM, layer=f"layers.{i}") for i in range(20)))
    assert lines[-1] == "  and 8 more"
    assert len(lines) == 1 + 12 + 1
