"""The ops that torchvision describes on import, for where its compiled extension does not load."""

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import library

SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
kept: list[library.Library] = []  # what a Library defined goes when it does


def define_torchvision_ops() -> None:
    """Let torchvision be imported where its compiled extension does not load (its wheel is made for another build of
    PyTorch): it describes two ops on import, which must exist by then. No model here uses them.
    """
    spec = find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations or kept:
        return
    for extension in Path(spec.submodule_search_locations[0]).glob("_C*"):
        try:
            torch.ops.load_library(str(extension))  # type: ignore[no-untyped-call]
            return
        except OSError:
            continue
    ops = library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for op in ("nms", "qnms"):
        ops.define(op + SCHEMA)  # type: ignore[no-untyped-call]
    kept.append(ops)
