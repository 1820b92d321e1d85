"""A ViT or big.LITTLE ViT of this package inside a model of others: our core runs that, the framework what is around.

In the graph of the model around it one op, bve::program, stands in its place; a backend writes that as its framework's
call of our core.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, library, nn

from bigvit_edge.artifact import Array
from bigvit_edge.errors import UserError
from bigvit_edge.export.graph import Graph
from bigvit_edge.models.blvit import BLViT
from bigvit_edge.models.load import read_keep
from bigvit_edge.models.vit import ViT

OPS = library.Library("bve", "FRAGMENT")  # type: ignore[no-untyped-call]
OPS.define("program(Tensor image, int classes) -> Tensor")  # type: ignore[no-untyped-call]


@library.register_fake("bve::program")  # type: ignore[untyped-decorator]
def _program(image: Tensor, classes: int) -> Tensor:
    """Its shape alone, [B, 3, S, S] -> [B, classes]: PyTorch does not run it."""
    return image.new_empty(image.shape[0], classes)


PROGRAM = torch.ops.bve.program.default


class StandIn(nn.Module):
    """What the model around it calls in our model's place."""

    def __init__(self, inside: ViT | BLViT) -> None:
        super().__init__()
        self.classes, self.keep = inside.head.out_features, read_keep(inside)

    def forward(self, images: Tensor) -> Tensor:
        return PROGRAM(images, self.classes)  # type: ignore[no-any-return]


def list_inlays(module: nn.Module) -> list[str]:
    """Names of the models of this package inside the module; '' of itself."""
    return [name for name, inside in module.named_modules() if isinstance(inside, ViT | BLViT)]


@contextmanager
def taken_out(module: nn.Module, name: str) -> Iterator[ViT | BLViT]:
    """The model of that name inside the module, which calls a StandIn until the block ends."""
    inside = module.get_submodule(name)
    assert isinstance(inside, ViT | BLViT)
    module.set_submodule(name, StandIn(inside))
    try:
        yield inside
    finally:
        module.set_submodule(name, inside)


def record_images(module: nn.Module, name: str, images: Array) -> Array:
    """What the model of that name inside the module is given when the module is given images [n, 3, S, S], one by one:
    [n, 3, s, s]. UserError if it is not called once for each, with an image of its own size and nothing else."""
    inside, given = module.get_submodule(name), list[object]()
    hook = inside.register_forward_pre_hook(
        lambda _, args, words: given.append(args[0] if len(args) == 1 and not words else None), with_kwargs=True
    )
    try:
        with torch.no_grad():
            for image in images:
                module(torch.from_numpy(image[None]))
    finally:
        hook.remove()
    size = _find_size(inside)
    seen = [g.numpy() for g in given if isinstance(g, Tensor) and g.dtype == torch.float32 and g.shape == (1, 3, *size)]
    if len(seen) != len(given) or len(given) != len(images):
        shapes = [list(g.shape) if isinstance(g, Tensor) else "something else" for g in given[:2]]
        called = f"called {len(given) / len(images):g} times for an image" + (f", with {shapes[0]}" if shapes else "")
        met = f"{name} of {type(module).__name__} is {called}"
        raise UserError(met, f"once, with float32 {[1, 3, *size]}, for our core", "add --set backend=xnnpack")
    return np.concatenate(seen)


def _find_size(inside: nn.Module) -> tuple[int, int]:
    assert isinstance(inside, ViT | BLViT)
    embedding = inside.embedding
    side = round((embedding.position.shape[1] - 1) ** 0.5) * embedding.patches.kernel_size[0]
    return side, side


def part_of(graph: Graph) -> Graph:
    """The graph that our core runs: of the inlay, its layers under their names there; the graph itself if there is no
    inlay."""
    inlay, images = graph.inlay, graph.calibration
    if inlay is None:
        return graph
    assert graph.module is not None
    prefix = f"{inlay.name}."
    layers = {name.removeprefix(prefix): how for name, how in graph.layers.items() if name.startswith(prefix)}
    seen = None if images is None else record_images(graph.module, inlay.name, images)
    return Graph(inlay.exported, graph.precision, layers, keep=graph.keep, module=inlay.module, calibration=seen)


def rest_of(graph: Graph) -> Graph:
    """The graph around the inlay, with its own layers; the graph itself if there is no inlay."""
    inlay = graph.inlay
    if inlay is None:
        return graph
    layers = {name: how for name, how in graph.layers.items() if not name.startswith(f"{inlay.name}.")}
    return replace(graph, exported=inlay.around, layers=layers, inlay=None)
