"""What our core runs, lowered once for all the files that carry it."""

from dataclasses import replace

import numpy as np
import pytest

from bigvit_edge.export.convert import capture, rewrite
from bigvit_edge.export.graph import Graph
from bigvit_edge.export.native import describe_entry, lower_native
from bigvit_edge.export.program import from_bytes
from bigvit_edge.models.blvit import BLViT
from bigvit_edge.target import Quant, load_target

HOST = load_target("host")


@pytest.fixture(scope="module")
def graph() -> Graph:
    model = BLViT(
        image_size=16, patch=8, dim=32, little_dim=16, depth=1, head_dim=16, little_head_dim=16, num_classes=3
    )
    return replace(rewrite(capture(model, 16, 0.5)), precision="int8", layers={"head": "int8"})


def test_formats_share_what_was_lowered(graph: Graph) -> None:
    first = lower_native([graph], HOST, {"model": "m"})
    assert lower_native([replace(graph)], HOST, {"model": "m"}) is first
    assert from_bytes(first.data).metadata == {"model": "m"}
    assert first.layers == {"embedding.patches": "int8"}


def test_what_was_asked_otherwise_is_lowered_anew(graph: Graph) -> None:
    seen = np.random.default_rng(0).standard_normal((2, 3, 16, 16), dtype=np.float32)
    others = [
        ([graph], replace(HOST, packing="i8mm"), {"model": "m"}),
        ([graph], HOST, {"model": "other"}),
        ([graph], replace(HOST, quant=Quant(keep_float=("router", "patches"))), {"model": "m"}),
        ([replace(graph, layers={})], HOST, {"model": "m"}),
        ([replace(graph, precision="fp32", layers={})], HOST, {"model": "m"}),
        ([replace(graph, calibration=seen)], HOST, {"model": "m"}),
        ([replace(graph, calibration=seen + 1)], HOST, {"model": "m"}),
    ]
    files = [lower_native([graph], HOST, {"model": "m"}).data]
    files += [lower_native(graphs, target, words).data for graphs, target, words in others]
    assert len(set(files)) == len(files)


def test_an_entry_point_is_one_piece_whatever_its_name(graph: Graph) -> None:
    (entry,) = lower_native([graph], HOST, {}).entries
    method = describe_entry(entry, "forward")
    assert (method.name, method.keep, method.delegates, method.leftovers) == ("forward", 0.5, 1, ())
    assert method.fragments == dict.fromkeys(("embedding", "little", "layers.0", "up", "head"), 1)
