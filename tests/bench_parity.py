"""What tells a file with wrong features from one that is rounded: `python tests/bench_parity.py timm:levit_128s ...`.

Each model has random weights. Right files are emulated: the graph in half, or its Linears rounded as their kernels do.
Wrong ones answer with the features of another image, nearly alike for all, with red for blue, with rows for columns,
with the channels before the last Linear shuffled, or without that Linear's bias (--biases draws biases first: most
start at zero). The centred cosine of the right ones, and whole logits' smallest in brackets, beside that of the wrong.
"""

import argparse
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from bigvit_edge import tables
from bigvit_edge.artifact import Array
from bigvit_edge.export.assignment import list_linears
from bigvit_edge.export.calibration import calibrate, visit_layers
from bigvit_edge.export.convert import capture, rewrite
from bigvit_edge.export.graph import Graph
from bigvit_edge.export.half import write_as_half
from bigvit_edge.export.parity import compare
from bigvit_edge.export.references import draw_calibration, make_references
from bigvit_edge.export.sensitivity import STATIC, Rounder
from bigvit_edge.models.load import Loaded, load
from bigvit_edge.target import Quant

PRECISIONS = ("fp16", "int8", STATIC, "int4")
FAULTS = ("other image", "reversed", "blue", "columns", "shuffled", "no bias")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--biases", action="store_true", help="draw every bias")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in options.models:
        model = load(name)
        if options.biases:
            draw_biases(model.module)
        rows.append((name, *measure_model(model, options.images)))
        print("  ".join(rows[-1]), flush=True)
    tables.print_rows(("model", "two images", "spread", *PRECISIONS, *FAULTS), rows)


def draw_biases(module: nn.Module) -> None:
    """Normal, 0.3 of the outputs that inputs of size 1 give."""
    generator = torch.Generator().manual_seed(0)
    for part in module.modules():
        bias, weight = getattr(part, "bias", None), getattr(part, "weight", None)
        if isinstance(bias, nn.Parameter) and isinstance(weight, nn.Parameter):
            size = weight.data.flatten(1).norm(dim=1) if weight.dim() > 1 else 1.0
            bias.data = 0.3 * torch.randn(bias.shape, generator=generator) * size


@torch.no_grad()
def measure_model(model: Loaded, count: int) -> tuple[str, ...]:
    reference = make_references(model, (None,), count)[None]
    images, expected = reference.images, reference.logits
    pairs = compare(np.roll(expected, 1, axis=0), expected)
    graph = rewrite(capture(model.module, model.image_size))
    graph = replace(
        graph, ranges=calibrate(graph.exported, list(list_linears(graph)), draw_calibration(model)[:32], Quant())
    )
    cells = [f"{pairs.cosine_mean:.5f}", f"{pairs.spread:.2g}"]
    for precision in PRECISIONS:
        parity = compare(round_answers(graph, images, precision), expected)
        cells.append(f"{parity.centred_cosine:.4f} ({parity.cosine_min:.4f})")
    for logits in answer_wrongly(model.module, images, expected):
        cells.append("–" if logits is None else f"{compare(logits, expected).centred_cosine:.4f}")
    return tuple(cells)


def round_answers(graph: Graph, images: Array, precision: str) -> Array:
    if precision == "fp16":
        module = write_as_half(graph.exported).module()
        return np.concatenate([module(torch.from_numpy(image[None])).numpy() for image in images])
    rounder = Rounder(graph)

    def visit(layer: str, node: object, args: tuple[Tensor, ...], value: Tensor) -> Tensor:
        if layer in rounder.convolutions:
            return value
        rough = precision == "int4" and args[1].shape[1] % graph.group == 0
        return rounder.round(layer, args, precision if rough or precision == STATIC else "int8")

    return visit_layers(graph.exported, images, visit)


def answer_wrongly(module: nn.Module, images: Array, expected: Array) -> list[Array | None]:
    """In the order of FAULTS; None where a model has not what could be lost."""
    common, x = expected.mean(0), torch.from_numpy(images)
    last = [part for part in module.modules() if isinstance(part, nn.Linear)][-1]
    order = torch.randperm(last.in_features, generator=torch.Generator().manual_seed(0))
    with last.register_forward_pre_hook(lambda _, given: (given[0][..., order],)):
        shuffled = answer(module, x)
    wrong = [np.roll(expected, 1, axis=0), common + 1e-3 * (expected - common)[::-1]]
    wrong += [answer(module, x.flip(1)), answer(module, x.transpose(2, 3)), shuffled]
    if last.bias is None or not last.bias.any():
        return [*wrong, None]
    last.bias.zero_()
    return [*wrong, answer(module, x)]


def answer(module: nn.Module, images: Tensor) -> Array:
    return np.concatenate([module(image[None]).numpy() for image in images])


if __name__ == "__main__":
    main()
