"""From a PyTorch model to files, in four calls: capture, rewrite, quantize, lower."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import Protocol, cast

import torch
from torch import nn

from bigvit_edge.artifact import Artifact, Run
from bigvit_edge.errors import UserError, suggest
from bigvit_edge.export.console import silenced
from bigvit_edge.export.graph import Graph, matrix_products, weight_name
from bigvit_edge.export.rewrite import rewrite_all
from bigvit_edge.target import Quant, Target

Step = Callable[[str], AbstractContextManager[None]]  # told the name of each step; times it


class Backend(Protocol):
    """What a module in backends/ offers. load opens a file in its real runtime, on `threads` threads; UserError if the
    runtime refuses it.
    """

    FORMAT: str
    SUFFIX: str

    def lower(self, graph: Graph, target: Target) -> Artifact: ...
    def load(self, path: object, threads: int = 1) -> Run: ...


def convert_model(
    model: nn.Module, image_size: int, target: Target, step: Step = lambda name: nullcontext()
) -> Iterator[Artifact]:
    """One artifact for each precision and format of the target, in that order."""
    with step("capture"):
        captured = capture(model, image_size)
    with step("rewrite"):
        rewritten = rewrite(captured)
    with step("quantize"):  # every precision now: what cannot be quantised shows before the lowering's minutes
        graphs = [quantize(rewritten, precision, target.quant) for precision in target.precisions]
    for graph in graphs:
        for name in target.formats:
            with step(f"lower {name} {graph.precision}"):
                artifact = lower(graph, name, target)
            yield artifact


def capture(model: nn.Module, image_size: int) -> Graph:
    """The model's ATen graph for one image, in eval mode."""
    image = torch.zeros(1, 3, image_size, image_size)
    with torch.no_grad(), silenced():
        return Graph(torch.export.export(model.eval(), (image,), strict=False))


def rewrite(graph: Graph) -> Graph:
    """The same function in fewer ops."""
    with silenced():
        return Graph(rewrite_all(graph.exported), graph.int8)


def quantize(graph: Graph, precision: str, quant: Quant) -> Graph:
    """Decide which Linears become int8; the backends apply it in their own terms. fp32 leaves all in float."""
    if precision == "fp32":
        return Graph(graph.exported)
    linears = [node for node, _ in matrix_products(graph.exported) if node.target is torch.ops.aten.linear.default]
    weights = [weight_name(graph.exported, node) for node in linears]
    layers = [name.removesuffix(".weight") for name in weights if name]
    for word in quant.keep_float:
        # a preset's word need not fit every model (a dense one has no router); a user's must
        if word not in Quant().keep_float and not any(word in layer for layer in layers):
            raise UserError(
                f"quant.keep_float={word}", "a part of a Linear's name", suggest(word, _split_names(layers))
            )
    chosen = frozenset(layer for layer in layers if not any(word in layer for word in quant.keep_float))
    if not chosen:
        met = f"quant.keep_float={','.join(quant.keep_float)} leaves nothing for int8"
        raise UserError(met, "some Linear to quantise", "take fewer words, or precisions=fp32")
    return Graph(graph.exported, chosen)


def _split_names(layers: list[str]) -> list[str]:
    return sorted({part for layer in layers for part in layer.split(".") if not part.isdigit()})


def lower(graph: Graph, name: str, target: Target) -> Artifact:
    """The graph in a format's own terms."""
    return load_backend(name).lower(graph, target)


def load_backend(name: str) -> Backend:
    """The backend of that name, imported now. UserError if its packages are not installed."""
    try:
        return cast(Backend, import_module(f"bigvit_edge.export.backends.{name}"))
    except ModuleNotFoundError as e:
        if e.name and e.name.startswith("bigvit_edge"):
            raise
        raise UserError(
            f"{e.name} is not installed", f"the packages of format {name}", f"pip install 'bigvit-edge[{name}]'"
        ) from e
