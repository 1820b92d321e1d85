"""Our own rewrites against eager PyTorch, without a format: `python -m tests.conformance --scan`."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from multiprocessing import get_context

import torch
from torch import Tensor, nn

from bigvit_edge.export.convert import capture, rewrite
from bigvit_edge.export.functionalization import writes
from tests.conformance.models import build

LIMIT = 1e-5  # of the spread of the logits
IMAGES = 2
WATCHED = ("batch_norm", "dropout", "roll", "alias", "_assert_tensor_metadata")  # what rewrites are there to remove


@dataclass(frozen=True)
class Scan:
    """What the rewrites make of a model. error: the largest difference between its logits and the rewritten graph's, in
    standard deviations of the logits; rounding: what PyTorch's own differ by from those in float64, looked at where the
    error is large; left: ops that the rewrites are there to remove and did not, in-place ones
    included, by name; reason: why there is no answer to compare.
    """

    error: float = float("nan")
    rounding: float = 0.0
    left: Mapping[str, int] | None = None
    reason: str = ""

    @property
    def right(self) -> bool:
        return self.error <= max(LIMIT, 3 * self.rounding)


def scan(module: nn.Module, image_size: int) -> Scan:
    """Capture, rewrite, run by torch, and compare with the module itself on noise images [2, 3, S, S]."""
    try:
        program = rewrite(capture(module, image_size)).exported
        images = torch.randn(IMAGES, 3, image_size, image_size, generator=torch.Generator().manual_seed(2))
        run = program.module(check_guards=False)
        with torch.no_grad():
            expected, found = (torch.cat([f(image[None].clone()) for image in images]) for f in (module, run))
    except Exception as e:
        return Scan(reason=f"{type(e).__name__}: {' '.join(str(e).split())[:300]}")
    ops = [node for node in program.graph.nodes if node.op == "call_function"]
    names = (str(getattr(node.target, "_opname", node.target)) for node in ops)
    left = Counter(name for node, name in zip(ops, names, strict=True) if name in WATCHED or writes(node))
    error = float((found - expected).abs().max() / expected.std())
    return Scan(error, measure_rounding(module, images, expected) if error > LIMIT else 0.0, left)


def measure_rounding(module: nn.Module, images: Tensor, expected: Tensor) -> float:
    """How far the module's logits are from its own in float64; 0 where it has no such."""
    try:
        with torch.no_grad():
            exact = torch.cat([deepcopy(module).double()(image[None].double()) for image in images])
    except RuntimeError:
        return 0.0
    return float((exact - expected).abs().max() / exact.std())


def scan_model(name: str) -> tuple[str, Scan]:
    torch.set_num_threads(1)
    model = build(name)
    return name, scan(model, model.image_size)  # type: ignore[arg-type]


def scan_models(names: list[str]) -> Iterator[tuple[str, Scan]]:
    """Each model's, in the order given, as many at a time as there are cores."""
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        yield from pool.map(scan_model, names)


def describe(name: str, found: Scan) -> str:
    """One line of the report."""
    if found.reason:
        return f"{name}: {found.reason}"
    left = ", ".join(f"{count} {op}" for op, count in (found.left or {}).items())
    return f"{name}: {found.error:.1e}" + ("" if found.right else ", WRONG") + (f"; left: {left}" if left else "")
