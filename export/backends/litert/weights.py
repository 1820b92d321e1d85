"""Weights of convolutions and Linears as a .tflite lays them out, in float and in int8."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from bigvit_edge.artifact import Array
from bigvit_edge.export.backends.litert.quantization import find_factor
from bigvit_edge.export.integers import Range, Rounded
from bigvit_edge.export.quantization import LEAST, MOST_BIAS

aten = torch.ops.aten

PLACES = {  # of input, weight and bias among an op's inputs
    "CONV_2D": (0, 1, 2),
    "DEPTHWISE_CONV_2D": (0, 1, 2),
    "FULLY_CONNECTED": (0, 1, 2),
    "TRANSPOSE_CONV": (2, 1, 3),
}
NOISE = 1e-5  # of a bias, by which float arithmetic changes it
CHANNELS = {"DEPTHWISE_CONV_2D": 3}  # the dimension of output channels, where it is not the first


@dataclass(frozen=True)
class Weight:
    """The weight of a node in an op of a file.

    node: the convolution or Linear. Constants around it may be multiplied into it: factor [O], the file's weight over
    the node's; into: the file's input over the node's; bias: [O], the file's; own: the node's, 0 without one.
    """

    node: Node
    factor: Array
    bias: Array
    into: float
    own: Any

    def convert_span(self, span: Range) -> Range:
        """Convert what the node's value spans to what the file's does.

        Before an activation that is in the same op.
        """
        factor = self.factor * self.into
        shift = self.bias - factor * self.own
        shift = np.where(np.abs(shift) > NOISE * np.abs(self.bias), shift, 0)
        ends = [factor * end + shift for end in span]
        return float(np.minimum(*ends).min()), float(np.maximum(*ends).max())

    def round(self, rounded: Rounded, name: str, step: float) -> tuple[Array, Array, Array, Array]:
        """Give weight and bias in integers, each with its scales [O].

        name: the op's; step: its input's scale. int8 as the file lays it out, int32 [O] in steps of input times weight.
        """
        integers = _turn(rounded.integers.numpy(), self.node)  # [O, I, h, w]
        scale = np.maximum(np.abs(self.factor) * rounded.scale.numpy(), LEAST)
        bias = self.bias
        if rounded.bias is not None:
            bias = bias + self.factor * self.into * (rounded.bias.numpy() - self.own)
        # a channel of weights so small, or all zero, that its bias would not fit an int32 takes wider steps
        wide = np.maximum(scale, np.abs(bias) / (step * MOST_BIAS)).astype(np.float32)
        integers = np.round(integers * (np.sign(self.factor) * scale / wide)[:, None, None, None]).astype(np.int8)
        steps = (step * wide).astype(np.float32)
        return _lay_out(integers, name), wide, np.round(bias / steps.astype(np.float64)).astype(np.int32), steps


def match_weight(node: Node, own: Array, found: Array, name: str) -> Array | None:
    """Find what multiple of a node's weight an op's is.

    own: as PyTorch has it; found: as the file does; name: of the op. [O], a factor a channel; None if it is none.
    """
    placed = _lay_out(_turn(own, node), name)
    if placed.shape != found.shape:
        return None
    channels = CHANNELS.get(name, 0)
    rows, known = (np.moveaxis(w, channels, 0).reshape(w.shape[channels], -1) for w in (found, placed))
    return find_factor(known, rows) if rows.any() else np.where(known.any(1), np.float32(0), np.float32(1))


def _turn(weight: Array, node: Node) -> Array:
    """[O, I, h, w] of what PyTorch has [O, I] in a Linear, [I, O, h, w] in a transposed convolution."""
    if weight.ndim == 2:
        return weight[:, :, None, None]
    return weight.swapaxes(0, 1) if node.target is aten.conv_transpose2d.input else weight


def _lay_out(weight: Array, name: str) -> Array:
    """[O, I, h, w] as the op has it."""
    if name == "FULLY_CONNECTED":
        return weight.reshape(len(weight), -1)
    return weight.transpose((1, 2, 3, 0) if name in CHANNELS else (0, 2, 3, 1))
