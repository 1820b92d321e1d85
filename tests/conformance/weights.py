"""Weights as if trained: what a random start leaves idle (LayerScale, zero gains, running statistics, tiny positions)
is given sizes at which an error in it shows in the answer."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from bigvit_edge.demo.digits import make_batch

GAIN = 1.0  # of a product's output over its input: signals reach the end, and attention does not choose one token alone
NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)
IMAGES, SEED = 16, 77  # the demo's pictures that statistics are taken from, none of those that are compared


def pretend_training(model: nn.Module, image_size: int) -> None:
    """Draw every weight anew, and take BatchNorm's statistics from pictures like those that follow. In eval mode."""
    generator = torch.Generator().manual_seed(1)
    norms = {id(p) for module in model.modules() if is_norm(module) for p in module.parameters(recurse=False)}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            draw(name, parameter, id(parameter) in norms, generator)
        take_statistics(model, image_size)
    model.eval()


def is_norm(module: nn.Module) -> bool:
    return isinstance(module, NORMS) or type(module).__name__.endswith(("Norm", "Norm2d", "LayerNorm"))


def draw(name: str, parameter: Tensor, is_gain: bool, generator: torch.Generator) -> None:
    """A matrix or kernel by its number of inputs; a gain around 1; one that starts at 0 (the end of a residual branch),
    and LayerScale, below it; the rest small."""
    if not parameter.is_floating_point():
        return
    scale_like = any(word in name for word in ("gamma", "layer_scale", ".ls", "scale"))
    if parameter.dim() <= 1 and (is_gain or scale_like) and not name.endswith("bias"):
        low, high = (0.7, 1.3) if is_gain and parameter.any() else (0.1, 0.3)
        parameter.uniform_(low, high, generator=generator)
    elif parameter.dim() <= 1 or parameter.shape[0] == 1 or "pos" in name or "token" in name:
        parameter.normal_(0, 0.1, generator=generator)
    else:
        fan_in = math.prod(parameter.shape[1:])
        parameter.normal_(0, GAIN / math.sqrt(fan_in), generator=generator)


def take_statistics(model: nn.Module, image_size: int) -> None:
    """Of noise instead, they would leave activations of pictures so large that float32 itself loses the answer."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    model.eval()
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches
    if norms:
        images = make_batch("train", IMAGES, SEED).images
        model((interpolate(images, size=image_size, mode="bilinear", antialias=True) - 0.45) / 0.225)
    for norm in norms:  # of so few images, a channel that hardly varies would be blown up
        norm.running_var.clamp_(min=float(norm.running_var.mean()) / 10)
