"""bigvit-edge: big.LITTLE Vision Transformers from PyTorch to phones and boards, verified and measured."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def load_model(
    name: str,
    keep: float | None = None,
    weights: str | Path | None = None,
    image_size: int | None = None,
    num_classes: int | None = None,
    *,
    weights_key: str | None = None,
    heads: int | None = None,
) -> "nn.Module":
    """Build a model as bigvit_edge.models.load.load_model does.

    That is imported here on the first call, so that the command line starts without PyTorch. UserError if that is not
    installed.
    """
    from bigvit_edge.extras import require

    require()
    from bigvit_edge.models.load import load_model as load

    return load(name, keep, weights, image_size, num_classes, weights_key=weights_key, heads=heads)
