"""Weights in fewer bits: int8 with a scale a channel, and palettes of 16 values with an index for each weight."""

from typing import TYPE_CHECKING, Any

import numpy as np

from bigvit_edge.console import silenced
from bigvit_edge.export.graph import Graph

if TYPE_CHECKING:
    from bigvit_edge.target import Target

with silenced():
    from coremltools._deps import _kmeans1d
    from coremltools.optimize import coreml as compression

PRODUCTS = ("linear", "conv", "conv_transpose")
PALETTE = 16  # values that 4 bits choose from

Palettes = dict[bytes, tuple[Any, Any]]  # a weight's bytes -> its palette and indices


def compress_weights(model: Any, graph: Graph, layers: dict[str, str], target: "Target", palettes: Palettes) -> Any:
    """Compress the weights of the int8 and int4 Linears in graph.layers.

    layers: the Linear that an op is, by its output; palettes: those found before, which grows: entry points share
    weights, and k-means takes time.
    """
    rounded, palettized = {}, {}
    for op in model._mil_program.functions["main"].operations:
        how = graph.layers.get(layers.get(op.outputs[0].name, "")) if op.op_type in PRODUCTS else None
        if op.op_type in PRODUCTS and op.weight.op.op_type.startswith("constexpr_"):
            continue
        # coremltools wants to be told by the name of the constant
        if how == "int8":
            rounded[op.weight.op.name] = compression.OpLinearQuantizerConfig(
                mode="linear_symmetric", dtype="int8", granularity="per_channel", weight_threshold=0
            )
        elif how == "int4":
            palettized[op.weight.op.name] = _choose_palettes(op.weight.shape[0], graph.group, target, palettes)
    if rounded:
        model = compression.linear_quantize_weights(model, compression.OptimizationConfig(op_name_configs=rounded))
    if palettized:
        model = compression.palettize_weights(model, compression.OptimizationConfig(op_name_configs=palettized))
    return model


def _choose_palettes(channels: int, group: int, target: "Target", palettes: Palettes) -> Any:
    grouped = target.deployment >= "iOS18" and channels % group == 0
    return compression.OpPalettizerConfig(
        mode="custom",
        lut_function=lambda weight: _find_palette(weight, palettes),
        granularity="per_grouped_channel" if grouped else "per_tensor",
        group_size=group,
        weight_threshold=0,
    )


def _find_palette(weight: Any, palettes: Palettes) -> tuple[Any, Any]:
    """The 16 values with the smallest squared error (k-means in one dimension, exact), and an index for each weight."""
    key = weight.tobytes()
    if key not in palettes:
        values, places, counts = np.unique(weight, return_inverse=True, return_counts=True)
        clusters = _kmeans1d.cluster(values, min(PALETTE, len(values)), weights=counts)
        palette = np.zeros(PALETTE, weight.dtype)
        palette[: len(clusters.centroids)] = clusters.centroids
        palettes[key] = palette, np.array(clusters.clusters, np.uint8)[places.reshape(-1)]
    return palettes[key]
