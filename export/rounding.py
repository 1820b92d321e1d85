"""Which integers stand for a layer's weights: the nearest, or those that together change its outputs least.

The second is GPTQ (Frantar et al. 2023, arXiv 2210.17323, section 3): one input's weights are rounded after the other,
and what that changes in the outputs is made up for by the inputs that are still to come, as far as these vary with it.
"""

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor
from torch.fx import Node

from bigvit_edge.artifact import Array
from bigvit_edge.errors import UserError
from bigvit_edge.export.calibration import visit_layers
from bigvit_edge.export.graph import Graph, name_layer, read_constants
from bigvit_edge.export.integers import Range, Rounded
from bigvit_edge.export.products import list_options
from bigvit_edge.export.quantization import CHANNEL, LEAST, MOST_BIAS, choose_scale, quantize_rows_weight

DAMPING = (
    0.01  # of the mean second moment, added to each: what hardly varied in calibration may elsewhere (section 3.3)
)
FEW = 16  # images whose inputs choose a Linear's integers in int8-full
TINY = 1e-30  # of a mean moment: inputs that are always zero have an inverse too
BLOCK = 128  # inputs whose errors are gathered before they reach the inputs behind them: the same result, sooner


def measure_moments(graphs: Sequence[Graph], layers: Collection[str], images: Array) -> dict[str, Tensor]:
    """Measure the second moments of each Linear's inputs.

    Sum of x x^T over all rows met at every keep ratio: [in, in], float64. UserError if one is not finite.
    """
    moments: dict[str, Tensor] = {}

    def add(layer: str, node: Node, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        if layer in layers:
            rows = arguments[0].flatten(0, -2)  # [rows, in]
            moments[layer] = moments.get(layer, torch.zeros((), dtype=torch.double)) + rows.T @ rows

    for graph in graphs:
        visit_layers(graph.exported, images, add)
    for layer, moment in moments.items():
        if not moment.isfinite().all():
            met = f"{layer} meets NaN or infinity on calibration images"
            raise UserError(met, "finite numbers", "check the weights, or calibrate on other images")
    return moments


def round_weight(weight: Tensor, moment: Tensor | None) -> tuple[Tensor, Tensor]:
    """Round a weight to int8 for the inputs that it meets.

    int8 of the same shape [out, in], in -127..127, and a scale for each output channel [out], the same whatever the
    moment [in, in] of the inputs; without one the nearest integers.
    """
    nearest, scale = quantize_rows_weight(weight)
    if moment is None or not moment.diagonal().any():
        return nearest, scale
    return round_rows(weight / scale.unsqueeze(1), moment).to(torch.int8), scale


def round_rows(rest: Tensor, moment: Tensor) -> Tensor:
    """Round rows of weights, in steps, one input after the other.

    rest: [..., out, in], which is lost; moment: [..., in, in], of the inputs. Returns whole numbers in -127..127.
    """
    factor, integers = _factor_inverse(moment), torch.empty_like(rest)
    for start in range(0, rest.shape[-1], BLOCK):
        block = slice(start, start + BLOCK)
        errors = _round_block(rest[..., block], integers[..., block], factor[..., block, block])
        rest[..., start + BLOCK :] -= errors @ factor[..., block, start + BLOCK :]
    return integers


def _round_block(rest: Tensor, integers: Tensor, factor: Tensor) -> Tensor:
    """Rounds a block's inputs in turn, in place; returns what each leaves to the inputs behind the block."""
    errors = torch.empty_like(rest)
    for i in range(rest.shape[-1]):
        integers[..., i] = rest[..., i].round().clamp(*CHANNEL[:2])
        errors[..., i] = (rest[..., i] - integers[..., i]) / factor[..., i, i, None]
        rest[..., i:] -= errors[..., i, None] * factor[..., i, None, i:]
    return errors


def _factor_inverse(moment: Tensor) -> Tensor:
    """The upper Cholesky factor of the damped moment's inverse: row i says how the inputs from i on make up for it."""
    damped = moment.double()
    mean = damped.diagonal(dim1=-2, dim2=-1).mean(-1).clamp(min=TINY)[..., None, None]
    damped = damped + DAMPING * mean * torch.eye(damped.shape[-1], dtype=torch.double)
    return torch.linalg.cholesky(torch.linalg.inv(damped), upper=True).float()  # type: ignore[no-any-return]


def round_linears(graph: Graph, ops: Collection[Node], spans: Mapping[str, Range]) -> dict[str, Rounded]:
    """Round the weights of the Linears among the ops.

    By what they see in calibration where the graph has any, else to the nearest integers. A scale is wide enough for
    the bias in steps of int32, of each op that shares the weight.
    """
    constants = read_constants(graph.exported)
    linears = [n for n in ops if n.target is torch.ops.aten.linear.default and n.all_input_nodes[1] in constants]
    layers = {node: name_layer(graph, node) for node in linears}
    moments = {}
    if graph.calibration is not None and linears:
        moments = measure_moments([graph], set(layers.values()) - {""}, graph.calibration[:FEW])
    found: dict[Node, tuple[Tensor, Tensor]] = {}  # a weight -> its integers and scales
    for node in linears:
        value, weight, *_ = node.all_input_nodes
        integers, scale = found.get(weight) or round_weight(constants[weight], moments.get(layers[node]))
        bias = constants.get(list_options(node)[0])
        if bias is not None:
            least = (bias.abs() / (choose_scale(spans[value.name])[0] * MOST_BIAS)).float()
            wide = torch.round(constants[weight] / least.clamp(min=LEAST).unsqueeze(1)).to(torch.int8)
            integers = torch.where((least > scale).unsqueeze(1), wide, integers)
            scale = torch.maximum(scale, least)
        found[weight] = integers, scale
    return {node.name: Rounded(*found[node.all_input_nodes[1]], None) for node in linears}
