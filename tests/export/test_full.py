"""int8-full: every op in integers, each value's range listed with what bounds it, files as the emulation."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bigvit_edge.export.convert import capture, rewrite
from bigvit_edge.export.coverage import add_coverage, count_conversions
from bigvit_edge.export.full import CALIBRATED, CONSTANT, describe_spans, list_whole, write_whole
from bigvit_edge.export.graph import Graph
from bigvit_edge.models.vit import ViT
from bigvit_edge.target import FULL
from tests.export.convolutional import (
    FORMATS,
    SIZE,
    Between,
    Squeeze,
    aim,
    answer,
    draw,
    emulate,
    measure,
    quantized,
    randomize,
    run,
)

aten = torch.ops.aten
TARGET = aim(*FORMATS, precision=FULL)


def build_vit() -> nn.Module:
    return randomize(ViT(image_size=SIZE, patch=8, dim=16, depth=1, head_dim=8, num_classes=5))


def build_convolutional() -> nn.Module:
    parts = nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU6(), nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.SiLU(), Squeeze(8)
    return randomize(nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)))


BUILT = {"vit": build_vit, "convolutional": build_convolutional}


@pytest.fixture(scope="module", params=BUILT)
def made(request: pytest.FixtureRequest) -> tuple[nn.Module, Mapping[str, Graph]]:
    model = BUILT[request.param]()
    return model, quantized(model, TARGET)


def test_every_op_is_in_integers_and_every_span_is_told(made: tuple[nn.Module, Mapping[str, Graph]]) -> None:
    model, graph = made[0], made[1]["onnx"]
    floats = {n.name for n in graph.exported.graph.nodes if n.op == "call_function"} - graph.integers.ops
    assert floats == set()
    assert count_conversions(graph) == 2  # the image, and the logits
    spans = list(describe_spans(graph))
    assert len(spans) == len(graph.integers.spans)
    assert {span.bound for span in spans} >= {CALIBRATED}
    for span in spans:
        assert np.isfinite([span.low, span.high]).all()
        assert span.low <= span.high
    bounded = {span.bound for span in spans} - {CALIBRATED, CONSTANT}
    assert bounded == ({"softmax"} if isinstance(model, ViT) else {"hardtanh", "sigmoid"})
    for rounded in graph.integers.weights.values():
        assert int(rounded.integers.min()) >= -127


@pytest.mark.parametrize(
    ("made", "name"),
    [("convolutional", "executorch"), ("convolutional", "litert"), *(("vit", name) for name in FORMATS)],
    indirect=["made"],
)
def test_files_answer_as_the_emulation(name: str, made: tuple[nn.Module, Mapping[str, Graph]], tmp_path: Path) -> None:
    model, graph = made[0], made[1][name]
    images = draw()
    artifact, got = run(graph, name, TARGET, tmp_path, images)
    expected, exact = emulate(graph, images), answer(model, images)
    rounding = measure(expected - exact)
    assert 0 < rounding < 0.25 * measure(exact)
    assert measure(got - expected) < 0.6 * rounding
    (method,) = add_coverage(artifact, [graph], {**graph.layers, **artifact.layers}).methods
    assert method.conversions is not None
    assert len(method.spans) == len(graph.integers.spans)
    if name != "litert":  # whose delegate leaves some products of activations to the interpreter
        assert (method.leftovers, method.conversions) == ((), 2)


def test_attention_and_norms_are_written_as_ops_that_each_have_a_range() -> None:
    class Attention(nn.Module):
        def __init__(self, **options: object) -> None:
            super().__init__()
            self.options, self.norm = options, nn.LayerNorm(8)
            self.plain = nn.LayerNorm(8, elementwise_affine=False, eps=1e-3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q = self.norm(x.flatten(1)[:, :48].view(1, 2, 3, 8))
            return F.scaled_dot_product_attention(q, self.plain(q) * 2, q + 1, **self.options)  # type: ignore[arg-type]

    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, 4, 4, generator=generator)
    mask = torch.randn(3, 3, generator=generator)
    for options, whole in (
        ({}, True),
        ({"scale": 0.3}, True),
        ({"attn_mask": mask}, True),
        ({"is_causal": True}, False),
    ):
        model = randomize(Attention(**options), 4)
        graph = rewrite(capture(model, 4))
        written = write_whole(graph.exported)
        torch.testing.assert_close(written.module()(image), model(image), atol=1e-5, rtol=1e-5)
        targets = {node.target for node in written.graph.nodes}
        assert aten.layer_norm.default not in targets
        assert (aten.scaled_dot_product_attention.default not in targets) is whole


def test_what_reads_no_image_and_what_is_no_float_is_no_op() -> None:
    graph = rewrite(capture(randomize(Between(lambda x: x * (x > 0).float() + x.argmax(1, True).float())), SIZE))
    names = {node.name for node in list_whole(graph.exported)}
    assert {"conv2d", "conv2d_1", "mul"} <= names
    assert not {name for name in names if name.startswith(("gt", "argmax", "p_"))}
