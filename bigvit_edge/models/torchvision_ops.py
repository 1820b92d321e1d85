"""What of torchvision stands in the way: ops of a compiled extension that does not load, a branch in its Normalize."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor, library

SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
kept: list[library.Library] = []  # what a Library defined goes when it does


def define_torchvision_ops() -> None:
    """Let torchvision be imported without its compiled extension.

    That does not load where the wheel is made for another build of PyTorch. torchvision describes two ops on import,
    which must exist by then. No model here uses them.
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


@contextmanager
def normalizing_without_branch() -> Iterator[None]:
    """Let torch.export read torchvision's Normalize while the block runs.

    Normalize has an `if` on a tensor, which torch.export cannot follow.
    """
    module = sys.modules.get("torchvision.transforms._functional_tensor")
    if module is None:
        yield
    else:
        with patch.object(module, "normalize", _normalize):
            yield


def _normalize(tensor: Tensor, mean: Sequence[float], std: Sequence[float], inplace: bool = False) -> Tensor:
    numbers = (torch.as_tensor(values, dtype=tensor.dtype, device=tensor.device) for values in (mean, std))
    means, stds = (values.view(-1, 1, 1) if values.ndim == 1 else values for values in numbers)
    return tensor.sub_(means).div_(stds) if inplace else (tensor - means) / stds
