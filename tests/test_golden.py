"""The bytes of programs, by their SHA-256: what is written changes only where somebody means it to.

Weights are powers of two times small integers, or shipped, and what becomes of them on the way is exact or rounded once
in each number, as IEEE 754 says: so the bytes are the same on every machine. int8 is without calibration, since the
sums of products that GPTQ chooses integers by end in other bits on another CPU.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from hashlib import sha256

import numpy as np
import pytest
import torch

from bigvit_edge.export.convert import Subject, capture_graphs, quantize, rewrite
from bigvit_edge.export.graph import Graph
from bigvit_edge.export.native import lower_native
from bigvit_edge.models.blvit import BLViT
from bigvit_edge.models.loading import load
from bigvit_edge.models.vit import ViT
from bigvit_edge.target import load_target

HOST = load_target("host")
KEEPS: Mapping[str, Sequence[float | None]] = {
    "blvit_demo": (0.5, 0.25), "vit_demo": (None,), "tiny_blvit": (1.0, 0.5), "tiny_vit": (None,),
}  # fmt: skip
HOW = json.dumps({"size": 16, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]})
GOLDEN = {
    ("blvit_demo", "fp32", "float"): "859d492def3e9bf5ad75e7694c15ed175b1fe94d944f05efa75fa8f349b2aa3c",
    ("blvit_demo", "fp16", "float"): "58f002e1055e98088e99895f6098a94bbeaab18e2ab6d868e821f0317dd35dfd",
    ("blvit_demo", "int8", "dot"): "8cc36771b3db312ef544c8ba34a80b020cd6d2f3fd619f120bab79e13ab4ca24",
    ("blvit_demo", "int8", "i8mm"): "8a5291ccb571ca2eb5f1b3486eeb69bdb901543ca6b0a18ee0b1002b60c684bf",
    ("vit_demo", "fp32", "float"): "e0f00ed6f84714114ab500a15f3e67eacca0f5a5fc64d6d2acad35913eb794a7",
    ("vit_demo", "fp16", "float"): "113be29bdacba4803efb4f81b4610f24727bc49004ec8590724829bd888dedb7",
    ("vit_demo", "int8", "dot"): "c7e0d90b5d8b40c5c70cb2befb5450791f43184cadfa5ffe64a8bdc667c2c5b0",
    ("vit_demo", "int8", "i8mm"): "07cabdea468aab8ef3f54fd97803608cbdc4911d6ccd5dfad9cdb3ebd5c13b72",
    ("tiny_blvit", "fp32", "float"): "d43cf484179cb780e307205dbe6127528884168b46de1cd61e3fd98fb59397e1",
    ("tiny_blvit", "fp16", "float"): "aaa9b2743f8b107a5278e92b09bae1d31a0f789a9fd7764015b5b804d2ebfbfb",
    ("tiny_blvit", "int8", "dot"): "4c3b66a77c2ed292329103c7bb7ee2ef18b22aa76130a9ea00819710ddb3598a",
    ("tiny_blvit", "int8", "i8mm"): "e75cdc5c465fc298b0837391a98222d3fa21dff4d1108ac1aad392dc5b735a31",
    ("tiny_vit", "fp32", "float"): "0233368ec30b5c0fdcb0112296ef20b20a306dfeeb080d3687d06e75bf8f04a1",
    ("tiny_vit", "fp16", "float"): "b48c9579e1a03537318828de85183b81158863102920efbaa24513040822b56a",
    ("tiny_vit", "int8", "dot"): "c00ec7dbb6e287157a1d75440310887a40aced759c650a61e7d80a33890d3d2f",
    ("tiny_vit", "int8", "i8mm"): "ea53031e3ad91eef64dbe3c7459c9b442f4536ac2ddd4bdc1d42c39983e6ba21",
}


def build_tiny(name: str) -> ViT | BLViT:
    """16 px, patches of 8 px, two layers of width 16."""
    shape = dict(image_size=16, patch=8, dim=16, depth=2, head_dim=8, num_classes=5)
    model = ViT(**shape) if name == "tiny_vit" else BLViT(**shape, little_dim=8, little_head_dim=8)
    draw = np.random.default_rng(0)
    for parameter in model.parameters():
        parameter.data = torch.from_numpy(draw.integers(-64, 65, parameter.shape).astype(np.float32) / 128)
    return model.eval()


@cache
def capture_once(name: str) -> tuple[Subject, list[Graph]]:
    if name in ("tiny_vit", "tiny_blvit"):
        module, size = build_tiny(name), 16
    else:
        loaded = load(name)
        module, size = loaded.module, loaded.image_size
    images = np.zeros((1, 3, size, size), np.float32)
    subject = Subject(module, size, KEEPS[name], images, False, {})
    return subject, [rewrite(graph) for graph in capture_graphs(subject, HOST)]


def write_program(name: str, precision: str, packing: str) -> bytes:
    subject, graphs = capture_once(name)
    target = replace(HOST, packing=packing)
    metadata = {"model": name, "preprocessing": HOW} if name.startswith("tiny") else {"model": name}
    quantized = quantize(graphs, precision, target, subject, lambda *_: None)
    return lower_native(quantized, target, metadata).data


@pytest.mark.parametrize("packing", ["dot", "i8mm"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("name", KEEPS)
def test_bytes_are_as_they_were(name: str, precision: str, packing: str) -> None:
    data = write_program(name, precision, packing)
    kind = packing if precision == "int8" else "float"
    assert sha256(data).hexdigest() == GOLDEN[name, precision, kind]
