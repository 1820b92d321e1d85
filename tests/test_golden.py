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
    ("blvit_demo", "fp32", "float"): "b7802e5dd4c48aee0d197fd2315749b640b6b9709274d498ae326b5f0f0c06ed",
    ("blvit_demo", "fp16", "float"): "a4817cf9a498af4d35ead9536a07df709195cf8988dcd391a1267d378a899b8c",
    ("blvit_demo", "int8", "dot"): "ad23c98c71f1ee2a33e7b1ffe70ecf1b0cc97c5ebd35ad0948a78080c26e4619",
    ("blvit_demo", "int8", "i8mm"): "09b7fcad58b617e919337ba4946194f0cc9e18d95f31365f3cfe89b2f8ee4212",
    ("vit_demo", "fp32", "float"): "d182dbf2178f5e84bc6144d1e908a21f76afcab1189cd1e718c48a83b9c6336e",
    ("vit_demo", "fp16", "float"): "b7004e00c65e3e0f48ad4397a70ee025dbad65e2c796d5ff30657b3e60ac3839",
    ("vit_demo", "int8", "dot"): "18aa0ba82a69b491d8e8eb6caaed50f07eb85f57ecaca4b023fc44f0bd73d2e3",
    ("vit_demo", "int8", "i8mm"): "3ae086afd8b2d0240194a72cebe77af0607adb76e9a1b9ef221d8d03836e4e6b",
    ("tiny_blvit", "fp32", "float"): "6e530756dc6d6b4b009230e94517db42da08ef781c03fddd5db257a7682cf4a8",
    ("tiny_blvit", "fp16", "float"): "a781cbf94e070ff071c15874a782c551bc036c419a75b833929bd1da41d030ee",
    ("tiny_blvit", "int8", "dot"): "feccb5e78bb59b107e5cbbe2bfdf06591aefa44123ecafdba7578b2a3c4775fe",
    ("tiny_blvit", "int8", "i8mm"): "2d65df9b6ff166a613c084a5b19b24ef05e018ce6da3a9fab4240318e268bfd6",
    ("tiny_vit", "fp32", "float"): "d3f046295c402f976b87267058559b974e235eddcb40504a7cb0637392304458",
    ("tiny_vit", "fp16", "float"): "f3a620849659f689730ed554d928868c3da21214d2e231014716fb57464a7187",
    ("tiny_vit", "int8", "dot"): "d3b08adf4ba48bf3c010d157e8bc9d97e8697d955c0f302eb81406bd9b985b70",
    ("tiny_vit", "int8", "i8mm"): "5951af730e0fe2c95e432095dfe6debc1d44c5388eacfdd83ec6bf56e1ddd85a",
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
