"""A ViT or big.LITTLE ViT of this package inside a model of others: our core runs that, the framework what is around.

In the graph of the model around it one op, bve::program, stands in its place; a backend writes that as its framework's
call of our core.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, library, nn
from torch.export import ExportedProgram

from bigvit_edge.artifact import Array
from bigvit_edge.errors import UserError
from bigvit_edge.export.emitter import find_head
from bigvit_edge.export.graph import Graph, Inlay, read_constants, remove_constant
from bigvit_edge.models.blvit import BLViT
from bigvit_edge.models.vit import Embedding, ViT

OPS = library.Library("bve", "FRAGMENT")  # type: ignore[no-untyped-call]
OPS.define("program(Tensor image, int classes) -> Tensor")  # type: ignore[no-untyped-call]


@library.register_fake("bve::program")  # type: ignore[untyped-decorator]
def _program(image: Tensor, classes: int) -> Tensor:
    """Its shape alone, [B, 3, S, S] -> [B, classes]: PyTorch does not run it."""
    return image.new_empty(image.shape[0], classes)


PROGRAM = torch.ops.bve.program.default


def list_inlays(module: nn.Module) -> list[str]:
    """List the models of this package inside the module.

    Their names, '' of itself. Not of those that may compute otherwise: of classes derived from ours, with a forward of
    their own, with another embedding or norm.
    """
    return [name for name, inside in module.named_modules() if _is_ours(inside)]


def _is_ours(module: nn.Module) -> bool:
    if type(module) not in (ViT, BLViT) or "forward" in vars(module):
        return False
    return type(module.embedding) is Embedding and type(module.norm) is nn.LayerNorm


def list_names(module: nn.Module, name: str) -> tuple[str, ...]:
    """List all names of a module inside, that one first.

    PyTorch calls its weights by any of them.
    """
    inside = module.get_submodule(name)
    others = [other for other, found in module.named_modules(remove_duplicate=False) if found is inside]
    return tuple(dict.fromkeys((name, *others)))


def find_inside(module: nn.Module, name: str) -> ViT | BLViT:
    """Find the model of that name inside the module."""
    inside = module.get_submodule(name)
    assert isinstance(inside, ViT | BLViT)
    return inside


@contextmanager
def answering(inside: ViT | BLViT, answer: Callable[..., Tensor]) -> Iterator[None]:
    """Let the model answer so until the block ends.

    It does to whoever calls it, under whatever name.
    """
    inside.forward = answer  # type: ignore[method-assign]
    try:
        yield
    finally:
        del inside.forward


@contextmanager
def taken_out(inside: ViT | BLViT) -> Iterator[None]:
    """Let bve::program answer for the model until the block ends."""
    classes = find_head(inside).out_features
    with answering(inside, lambda images: PROGRAM(images, classes)):
        yield


def record_images(module: nn.Module, name: str, images: Array) -> Array:
    """Record what a model inside the module is given.

    name: of that model; images: what the module is given, [n, 3, S, S], one by one. Returns [n, 3, s, s]. UserError if
    it is not called once for each, with an image of its own size and nothing else.
    """
    inside, given = find_inside(module, name), list[object]()
    classes = find_head(inside).out_features

    def record(*args: object, **words: object) -> Tensor:
        (image, *rest) = (*args, *words.values())
        given.append(image.clone() if isinstance(image, Tensor) and not (rest or words) else None)
        return torch.zeros(len(image) if isinstance(image, Tensor) else 1, classes)

    with answering(inside, record), torch.no_grad():
        for image in images:
            module(torch.tensor(image[None]))
    shape = (1, 3, *_find_size(inside))
    seen = [g for g in given if isinstance(g, Tensor) and g.dtype == torch.float32 and g.shape == shape]
    if len(seen) != len(given) or len(given) != len(images):
        wrong = next((g for g in given if not isinstance(g, Tensor) or g.shape != shape), None)
        with_what = f", with {list(wrong.shape)}" if isinstance(wrong, Tensor) else ""
        met = f"{name} of {type(module).__name__} is called {len(given) / len(images):g} times for an image{with_what}"
        raise UserError(met, f"once, with one float32 {list(shape)}, for our core", "add --set backend=xnnpack")
    return torch.cat(seen).numpy()


def _find_size(inside: ViT | BLViT) -> tuple[int, int]:
    embedding = inside.embedding
    side = round((embedding.position.shape[1] - 1) ** 0.5) * embedding.patches.kernel_size[0]
    return side, side


def count_calls(program: ExportedProgram) -> int:
    """Count how often the graph calls bve::program and reads the answer."""
    return sum(bool(node.users) for node in program.graph.find_nodes(op="call_function", target=PROGRAM))


def drop_unread(program: ExportedProgram) -> None:
    """Drop the constants of the model that was taken out.

    These are all that nothing reads any more.
    """
    for node in read_constants(program):
        if not node.users:
            remove_constant(program, node)
    program.graph_module.recompile()


def part_of(graph: Graph) -> Graph:
    """Take the graph that our core runs.

    It is the inlay's, with its layers under their names there; the graph itself if there is no inlay.
    """
    inlay = graph.inlay
    if inlay is None:
        return graph
    assert graph.module is not None
    layers = {own: how for layer, how in graph.layers.items() if (own := _find_own_name(inlay, layer))}
    seen = None if graph.calibration is None else inlay.images
    inside = find_inside(graph.module, inlay.names[0])
    return Graph(inlay.exported, graph.precision, layers, keep=graph.keep, module=inside, calibration=seen)


def rest_of(graph: Graph) -> Graph:
    """Take the graph around the inlay, with its own layers.

    It is the graph itself if there is no inlay.
    """
    inlay = graph.inlay
    if inlay is None:
        return graph
    layers = {layer: how for layer, how in graph.layers.items() if not _find_own_name(inlay, layer)}
    return replace(graph, exported=inlay.around, layers=layers, inlay=None)


def _find_own_name(inlay: Inlay, layer: str) -> str:
    """What a layer of the model around it is called in the inlay; '' if it is none of the inlay's."""
    starts = (f"{name}." for name in inlay.names)
    return next((layer.removeprefix(start) for start in starts if layer.startswith(start)), "")
