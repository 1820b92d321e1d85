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

from bigvit_edge.export.convert import Subject, capture, quantize, rewrite
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
    ("blvit_demo", "fp32", "float"): "496e85791e6a0713d5987ed8ed0f054bbe9a021da3637f4875a7390f6d603f8a",
    ("blvit_demo", "fp16", "float"): "f9a611edccb8aa9021b73cae9ba040e50ff431c46bd30002c56f569bd7320322",
    ("blvit_demo", "int8", "dot"): "0847349fbb9abc7c45c502bcf2c84dad8d0a6f7405a2de3c0a63e19662d0cceb",
    ("blvit_demo", "int8", "i8mm"): "795c52e758c4e99f58927dc74b08b1d03259a4548613544e357c044e978198e9",
    ("vit_demo", "fp32", "float"): "57ff9002b17c7c24c3d34e36e64a74505f30507371f4910dbc8a15d0c07a2959",
    ("vit_demo", "fp16", "float"): "c7619b805c0092ee9bc4f4a6fde34c7e2eb5e24974f17401a4b2ddd886beedb6",
    ("vit_demo", "int8", "dot"): "b007e57db8690f720d7b2397e587fafa5be8a84808e8f6c9784f481687dfff5e",
    ("vit_demo", "int8", "i8mm"): "7895ea4dad3ac58bb933a7230a4b61b273f9b6d343258542ae7de9c45cbe6c0d",
    ("tiny_blvit", "fp32", "float"): "dbbd6a2f629ab141ea59ccfd97361b085d443e9232ec42388b72c436f204006c",
    ("tiny_blvit", "fp16", "float"): "0e20efa43aaf5ff1c879c983e0025ea4cdff8ea9b091a4039fd54fbacb7b75c9",
    ("tiny_blvit", "int8", "dot"): "f301ed2c7487dac3feeb514725c0d3f21ec9f1a650115a18453f05dfb88aab78",
    ("tiny_blvit", "int8", "i8mm"): "9c34f7314b14e4efd3f46a5b12bcde6e1365be2555630bc5a7c2f8997165347a",
    ("tiny_vit", "fp32", "float"): "b17853ddb462bf481fd0e0ec4571adbd531598ae3019228ed23609553a324e26",
    ("tiny_vit", "fp16", "float"): "7fc1890768ceb502d8593b5f7bbdf02163db657aa720a4ba71eff70731611074",
    ("tiny_vit", "int8", "dot"): "c6c46d8f87c7b9af66a44a133c0c479c5f17e26ddc53dae5a2e39fdf31ba7c6e",
    ("tiny_vit", "int8", "i8mm"): "7413ec11d34f77881d87f7f5d6a5ddbfbaeb33db1905bc2432bc0184d7be5ff7",
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
    return subject, [rewrite(capture(module, size, keep)) for keep in KEEPS[name]]


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
