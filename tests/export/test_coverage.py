"""What a file's precision covers, against models counted by hand."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import linear, scaled_dot_product_attention

from bigvit_edge.export.assignment import assign_layers
from bigvit_edge.export.convert import capture, lower, rewrite
from bigvit_edge.export.coverage import add_coverage, count_conversions, count_coverage, explain_coverage, share_covered
from bigvit_edge.export.integers import Integers
from bigvit_edge.measures import Coverage
from bigvit_edge.models.load import load
from bigvit_edge.target import load_target


class Counted(nn.Module):
    """8 px: a 3x3 convolution (3 -> 8) to 2x2, attention of 4 tokens at width 8, a Linear 8 -> 6 read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 6)
        self.register_buffer("scale", torch.ones(8))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.stem(images).flatten(2).transpose(1, 2)) * self.scale  # [1, 4, 8]
        x = scaled_dot_product_attention(x, x, x)
        return self.head(x[:, 0]) + linear(x.mean(1), self.head.weight)


MACS = {"convolutions": 4 * 8 * 27, "products of activations": 2 * 4 * 4 * 8, "Linears": 2 * 8 * 6}
BYTES = {"convolutions": 8 * 27 * 4, "Linears": 8 * 6 * 4, "other weights": (8 + 8 + 8 + 6 + 8) * 4}


def test_every_product_is_counted_once_in_its_precision() -> None:
    graph = replace(capture(Counted().eval(), 8), precision="int8")
    found = {(c.precision, c.kind): (c.macs, c.weights) for c in count_coverage(graph, {"head": "int8"}, {})}
    assert set(found) == {("int8", "Linears")} | {("float", kind) for kind in {*MACS, *BYTES} - {"Linears"}}
    for (_, kind), shares in found.items():
        expected = MACS.get(kind, 0) / sum(MACS.values()), BYTES.get(kind, 0) / sum(BYTES.values())
        assert shares == pytest.approx(expected), kind


def test_a_file_mostly_in_float_says_what_is_left_there() -> None:
    coverage = count_coverage(replace(capture(Counted().eval(), 8), precision="int8"), {"head": "int8"}, {})
    share, convolutions = (MACS[kind] / sum(MACS.values()) for kind in ("Linears", "convolutions"))
    assert share_covered(coverage, "int8")[0] == pytest.approx(share)
    said = explain_coverage(coverage, "int8") or ""
    assert f"int8 covers {share:.1%} of the multiply-accumulates" in said
    assert f"in float stay convolutions {convolutions:.1%}" in said
    assert explain_coverage(count_coverage(capture(Counted().eval(), 8), {}, {}), "fp32") is None
    assert explain_coverage((), "int8") is None  # of a manifest that does not tell
    instead = explain_coverage((Coverage("int8", "Linears", 0.9, 1.0), Coverage("int4", "Linears", 0.1, 0.0)), "int4")
    assert instead == "int4 covers 10.0% of the multiply-accumulates; in int8 are 90.0%"


def test_fp16_is_of_the_whole_graph() -> None:
    graph = replace(capture(Counted().eval(), 8), precision="fp16")
    assert {c.precision for c in count_coverage(graph, {}, {})} == {"fp16"}


@pytest.mark.parametrize("name", ["bve", "onnx"])
def test_our_core_covers_attention_and_patches_too(name: str) -> None:
    model = load("vit_demo")
    target = replace(load_target("host"), formats=(name,), precisions=("int8",))
    graph = rewrite(capture(model.module, model.image_size))
    (graph,) = assign_layers([graph], "int8", target, torch.zeros(0).numpy(), False, lambda *_: None)
    artifact = lower([graph], name, target, {})
    (method,) = add_coverage(artifact, [graph], {**graph.layers, **artifact.layers}).methods
    patches, products = 64 * 192 * 96, 5 * 2 * 65 * 65 * 96
    total = patches + products + 96 * 10 + 5 * 65 * 12 * 96**2
    macs, weights = share_covered(method.coverage, "int8")
    assert macs == pytest.approx(1 if name == "bve" else 1 - (patches + products) / total)
    assert 0.9 < weights < 1  # biases and norms


def test_a_conversion_is_counted_once_for_all_that_read_it_so() -> None:
    """The image, the float product back in int8, and what floats read: once each, though it is read three times."""

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return y.exp() + y.cos() + y.sin() + self.conv(y.sinh())

    graph = capture(Mixed().eval(), 8)
    image = next(iter(graph.exported.graph_signature.user_inputs))
    inside = {"conv2d", "conv2d_1"}
    spans = dict.fromkeys((image, "sinh", *inside), (-1.0, 1.0))
    assert count_conversions(replace(graph, integers=Integers(frozenset(inside), spans))) == 4
    assert count_conversions(graph) == 0
