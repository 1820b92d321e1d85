"""What a model of others must do: take an image and answer with logits."""

import torch
from torch import nn

from bigvit_edge.errors import UserError
from bigvit_edge.models.traces import find_line


def count_classes(model: nn.Module, image_size: int, source: str) -> int:
    """Classes that the model answers with, by running it once. UserError unless it takes images [1, 3, S, S] and gives
    logits [1, classes].
    """
    try:
        with torch.no_grad():
            logits = model.eval()(torch.zeros(1, 3, image_size, image_size))
    except (Exception, SystemExit) as e:
        raise explain_failure(e, f"{source} on an image [1, 3, {image_size}, {image_size}]") from e
    if not isinstance(logits, torch.Tensor) or logits.dim() != 2 or len(logits) != 1 or not logits.numel():
        met = f"a tensor {list(logits.shape)}" if isinstance(logits, torch.Tensor) else f"a {type(logits).__name__}"
        raise UserError(f"{source} answers one image with {met}", "logits [1, classes]", "wrap it in such a module")
    return logits.shape[1]


def explain_failure(e: BaseException, doing: str) -> UserError:
    """A UserError that names what was done, the error and the line in the user's source."""
    line = find_line(e)
    where = f" at {line}" if line else ""
    return UserError(f"{doing} raised {first_line(e)}{where}", "a model", "correct the source")


def first_line(e: BaseException) -> str:
    """The kind of error and its first words."""
    text = str(e).strip()
    return f"{type(e).__name__}: {text.splitlines()[0][:160]}" if text else type(e).__name__
