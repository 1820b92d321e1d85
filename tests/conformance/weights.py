"""Weights as if trained: what a random start leaves idle (LayerScale, zero gains, running statistics, tiny positions)
is given sizes at which an error in it shows in the answer."""

import math

import torch
from torch import Tensor, nn

GAIN = 1.3  # of a product's output over its input, so that signals reach the end of a model of random weights
NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)
BATCH, BATCHES = 8, 2


def pretend_training(model: nn.Module, image_size: int) -> None:
    """Draw every weight anew, and take each BatchNorm's statistics from noise images [8, 3, S, S]. In eval mode."""
    generator = torch.Generator().manual_seed(1)
    norms = {id(p) for module in model.modules() if is_norm(module) for p in module.parameters(recurse=False)}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            draw(name, parameter, id(parameter) in norms, generator)
        take_statistics(model, image_size, generator)
    model.eval()


def is_norm(module: nn.Module) -> bool:
    return isinstance(module, NORMS) or type(module).__name__.endswith(("Norm", "Norm2d", "LayerNorm"))


def draw(name: str, parameter: Tensor, is_gain: bool, generator: torch.Generator) -> None:
    """A matrix or kernel by its number of inputs; a gain around 1, or of LayerScale below it; the rest small."""
    if not parameter.is_floating_point():
        return
    scale_like = any(word in name for word in ("gamma", "layer_scale", ".ls", "scale"))
    if parameter.dim() <= 1 and (is_gain or scale_like) and not name.endswith("bias"):
        low, high = (0.7, 1.3) if is_gain else (0.3, 1.0)
        parameter.uniform_(low, high, generator=generator)
    elif parameter.dim() <= 1 or parameter.shape[0] == 1 or "pos" in name or "token" in name:
        parameter.normal_(0, 0.1, generator=generator)
    else:
        fan_in = math.prod(parameter.shape[1:])
        parameter.normal_(0, GAIN / math.sqrt(fan_in), generator=generator)


def take_statistics(model: nn.Module, image_size: int, generator: torch.Generator) -> None:
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    model.eval()
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches
    for _ in range(BATCHES if norms else 0):
        model(torch.randn(BATCH, 3, image_size, image_size, generator=generator))
