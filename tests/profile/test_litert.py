"""What LiteRT tells of its ops, read: XNNPACK's products are matched with the file's."""

import pytest

from bigvit_edge.profile.litert import read_events
from bigvit_edge.profile.litert_library import GENERAL, NODE, Told
from bigvit_edge.profile.records import Span, check_profile
from bigvit_edge.runtime.tflite import Node, Tensor

INSIDE = 8
FC, CONV, DEPTHWISE, BMM, ADD, TOPK = 9, 3, 4, 126, 0, 48


def tensor(name: str, *shape: int) -> Tensor:
    size = 4
    for side in shape:
        size *= side
    return Tensor(name, shape, size)


NODES = [
    Node(CONV, (tensor("image", 1, 8, 8, 3), tensor("w", 16, 3, 3, 3)), (tensor("_stem;1", 1, 4, 4, 16),)),
    Node(CONV, (tensor("a", 1, 4, 4, 16), tensor("w", 32, 1, 1, 16)), (tensor("_blocks/0/pw;1", 1, 4, 4, 32),)),
    Node(DEPTHWISE, (tensor("b", 1, 4, 4, 32), tensor("w", 1, 3, 3, 32)), (tensor("_blocks/0/dw;2", 1, 4, 4, 32),)),
    Node(ADD, (tensor("c", 1, 4, 4, 32),), (tensor("_blocks/0;3", 1, 4, 4, 32),)),
    Node(TOPK, (tensor("d", 1, 16),), (tensor("_blocks/1;4", 1, 16), tensor("x", 1, 16))),
    Node(BMM, (tensor("e", 2, 5, 7), tensor("f", 2, 7, 3)), (tensor("_blocks/1/attn;5", 2, 5, 3),)),
    Node(FC, (tensor("g", 1, 15), tensor("w", 10, 15)), (tensor("serving_default_logits", 1, 10),)),
]
MACS = [4 * 4 * 16 * 27, 4 * 4 * 32 * 16, 4 * 4 * 32 * 9, 2 * 5 * 3 * 7, 150]
TAGS = [
    "Convolution (NHWC, F32) IGEMM", "Fully Connected (NC, F32) GEMM", "Convolution (NHWC, F32) DWConv", "Add (ND)",
    "TOPK_V2", "Batch Matrix Multiply (NC, F32) GEMM", "Fully Connected (NC, QDU8, F32, QC8W) GEMM",
]  # fmt: skip


def tell(tags: list[str]) -> list[Told]:
    events = [Told("Invoke", GENERAL, 1000, 100, 0), Told("Invoke", GENERAL, 1000, 2**32, 0)]
    for number, tag in enumerate(tags):
        is_node = tag == "TOPK_V2"
        events.append(Told(tag, NODE, 1050, 5, 4) if is_node else Told(tag, INSIDE, 0, 10, number))
    return events


def test_products_have_the_layers_and_the_work_of_the_files_nodes() -> None:
    traced = read_events([tell(TAGS)], [Span(0, 200)], 900, NODES)
    check_profile(traced)
    products = [op for op in traced.ops if op.macs]
    assert [op.macs for op in products] == MACS
    assert [op.layer for op in traced.ops] == [
        "stem", "blocks.0", "blocks.0", "blocks.0", "blocks.1", "blocks.1", "blocks.1"
    ]  # fmt: skip
    assert [op.kind for op in products] == ["convolution"] * 3 + ["matrix product", "linear"]
    assert [op.type for op in products] == ["f32"] * 4 + ["qd8"]
    assert [op.unit for op in traced.ops] == ["XNNPACK"] * 4 + ["LiteRT"] + ["XNNPACK"] * 2
    assert [event.start_us for event in traced.events] == [100, 110, 120, 130, 150, 155, 165]
    assert [event.placed for event in traced.events] == [True] * 4 + [False] + [True] * 2
    assert traced.runs == (Span(100, 100),)


@pytest.mark.parametrize("tags", [TAGS[1:], [*TAGS[:3], TAGS[0], *TAGS[3:]], [TAGS[5], *TAGS[1:]]])
def test_products_that_do_not_match_have_no_layer(tags: list[str]) -> None:
    traced = read_events([tell(tags)], [Span(0, 200)], 900, NODES)
    inside = [op for op in traced.ops if op.unit == "XNNPACK"]
    assert {op.layer for op in inside[:3]} == {"model"}
    assert {op.macs for op in inside[:3]} == {None}
    assert any("so that its ops have no layer" in note for note in traced.notes)
    assert [op.macs for op in inside[-2:]] == MACS[3:]  # the other piece's match


def test_what_outlasts_its_run_is_cut_there() -> None:
    events = [event._replace(duration_us=60) if event.kind == INSIDE else event for event in tell(TAGS)]
    check_profile(read_events([events], [Span(0, 200)], 900, NODES))
