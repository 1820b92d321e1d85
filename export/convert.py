"""From a PyTorch model to files, in five calls: capture, rewrite, quantize, place, lower."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

import torch
from torch import nn

from bigvit_edge.artifact import Artifact, Runner
from bigvit_edge.console import silenced
from bigvit_edge.errors import UserError
from bigvit_edge.export.assignment import OnSensitivities, assign_layers
from bigvit_edge.export.calibrated import add_integers
from bigvit_edge.export.capture_errors import (
    explain_capture_failure,
    find_dynamic_shape,
    find_random,
    find_shortage,
    noting_lines,
)
from bigvit_edge.export.core.lowering import list_leftovers
from bigvit_edge.export.core.partition import find_pieces
from bigvit_edge.export.core.reading import Leftover
from bigvit_edge.export.coverage import add_coverage
from bigvit_edge.export.graph import Graph
from bigvit_edge.export.lowering_errors import explain_lowering_failure
from bigvit_edge.export.native import take_rest
from bigvit_edge.export.pictures import Watch, unwatched
from bigvit_edge.export.pieces import write_calls
from bigvit_edge.export.pixels import answer_probabilities, ends_with_softmax, take_pixels
from bigvit_edge.export.regions import find_autocast, inline_regions
from bigvit_edge.export.rewrite import rewrite_all, rewrite_further, rewrite_plainly
from bigvit_edge.export.routes import write_routes
from bigvit_edge.models.blvit import BLViT, routing_as_one_op
from bigvit_edge.models.loading import set_keep
from bigvit_edge.models.torchvision_ops import normalizing_without_branch
from bigvit_edge.preprocessing import UINT8, Preprocessing
from bigvit_edge.signature import IMAGE, Array, Tensor
from bigvit_edge.target import CHOICES, Target
from bigvit_edge.tasks import CLASSIFICATION, find_task
from bigvit_edge.tasks.classification import PROBABILITIES

Step = Callable[[str], AbstractContextManager[None]]  # told the name of each step; times it


@dataclass(frozen=True)
class Progress:
    """Tell how an export goes, to whom it concerns.

    on_step: gets the name of each step, for as long as it takes; on_sensitivities: those of `mixed`, and what was
    chosen; on_pictures: pictures as they are gone through.
    """

    on_step: Step = lambda name: nullcontext()
    on_sensitivities: OnSensitivities = lambda sensitivities, chosen: None
    on_pictures: Watch = unwatched


SILENT = Progress()
FIXED = "operations whose shapes and branches do not depend on the image"
LEAVE = "write it without, or leave that part out of the model"


@dataclass(frozen=True)
class Subject:
    """The model to convert, and what goes with it.

    keeps: the ratios to capture it at, (None,) for a model without; calibration: images [n, 3, S, S] as it takes them;
    trained: its weights are not random; metadata: to be kept inside the files; preprocessing: how it takes pictures,
    without which no file can take pixels; task: of bigvit_edge.tasks; cores: what capture_cores gave, where that was
    called already.
    """

    module: nn.Module
    image_size: int
    keeps: tuple[float | None, ...]
    calibration: Array
    trained: bool
    metadata: Mapping[str, str]
    preprocessing: Preprocessing | None = None
    task: str = CLASSIFICATION
    cores: Sequence[Graph] = ()


class Format(Protocol):
    """The interface of a module in formats/.

    SEVERAL: one file can hold several keep ratios; if not, lower gets one graph. lower: graphs of one model and
    precision. load opens a file in its real runtime, on `threads` threads, at the entry point of that name (the first
    when None); UserError if the runtime refuses it.
    """

    FORMAT: str
    SUFFIX: str
    SEVERAL: bool

    def lower(self, graphs: Sequence[Graph], target: Target, metadata: Mapping[str, str]) -> Artifact: ...
    def load(self, path: Path, threads: int = 1, method: str | None = None) -> Runner: ...


def convert_model(
    subject: Subject, target: Target, progress: Progress = SILENT
) -> Iterator[tuple[Artifact, Mapping[str, str]]]:
    """Convert a model to every file of a target.

    Yields each file with the precision of each quantised Linear in it, by precision, format and, where a format holds
    one only, keep ratio.
    """
    cells = target.list_cells()
    with progress.on_step("capture"):
        captured = capture_graphs(subject, target)
    with progress.on_step("rewrite"):
        rewritten = [rewrite(graph) for graph in captured]
    if find_leftovers(captured):
        with progress.on_step("cut out pieces for the bve runtime"):
            rewritten = [cut(graph) for graph in rewritten]
    quantized = {}
    for precision in target.precisions:  # all now: what cannot be quantised shows before the lowering's minutes
        with progress.on_step(f"quantize {precision}"):
            chosen = quantize(rewritten, precision, target, subject, progress.on_sensitivities)
            quantized[precision] = place(chosen, target, subject)
    for name, precision in cells:
        graphs = quantized[precision][name]
        for group in [graphs] if load_format(name).SEVERAL else [[graph] for graph in graphs]:
            keeps = ",".join(f"{graph.keep:g}" for graph in group if graph.keep is not None)
            with progress.on_step(f"lower {name} {precision}" + (f" {keeps}" if len(group) < len(graphs) else "")):
                words, ready = {**subject.metadata, "precision": precision, "keep": keeps}, group
                if subject.preprocessing is not None:
                    how = describe_input(subject.preprocessing, name, target)
                    words["preprocessing"] = json.dumps(how.spell())
                    ready = [take_input(graph, how, name, target) for graph in group]
                artifact = lower(ready, name, target, words)
            layers = {**group[0].layers, **artifact.layers}
            yield add_coverage(artifact, group, layers), layers


def capture(module: nn.Module, image_size: int, keep: float | None = None, task: str = CLASSIFICATION) -> Graph:
    """Capture the model's ATen graph for one image, in eval mode.

    keep: the ratio to capture it at; task: what it is for. UserError as of capture_signature.
    """
    image = Tensor(IMAGE, (1, 3, image_size, image_size))
    return capture_signature(module, (image,), find_task(task).OUTPUTS[:1], keep, task)


def capture_signature(
    module: nn.Module, inputs: Sequence[Tensor], outputs: tuple[str, ...], keep: float | None, task: str
) -> Graph:
    """Capture the ATen graph of what takes and gives named tensors.

    It is given float32 in the order of `inputs`, in eval mode. keep, task: as of capture. UserError naming the user's
    line if the module cannot be captured.
    """
    if keep is not None:
        set_keep(module, keep)
    given = tuple(torch.zeros(tensor.shape) for tensor in inputs)
    with torch.no_grad(), silenced(), noting_lines(), normalizing_without_branch():
        try:
            exported = torch.export.export(module.eval(), given, strict=False)
        except Exception as e:
            if shortage := find_shortage(e):
                raise shortage from None
            raise UserError(explain_capture_failure(e), FIXED, LEAVE) from e
        if fault := find_autocast(exported):
            raise UserError(
                fault, "a model in float32 (of which precisions=fp16 makes float16)", "leave autocast to training"
            )
        inline_regions(exported)
        if fault := find_dynamic_shape(exported):
            raise UserError(fault, FIXED, LEAVE)
        if fault := find_random(exported):
            raise UserError(
                fault, "the same answer to the same image", "pass training=self.training, or draw in __init__"
            )
        names = tuple(tensor.name for tensor in inputs)
        return Graph(exported, keep=keep, module=module, task=task, inputs=names, outputs=outputs)


def capture_graphs(subject: Subject, target: Target) -> list[Graph]:
    """Capture a graph at each keep ratio.

    With what the bve runtime's programs are read from, if the target has any. Where it has nothing else, or no router
    is in the model, that is captured alone.
    """
    module, size = subject.module, subject.image_size
    cores = subject.cores
    if not cores and any(map(target.is_native, target.formats)):
        cores = capture_cores(module, size, subject.keeps, subject.task)
    routes = any(isinstance(inside, BLViT) for inside in module.modules())
    if cores and (not routes or all(map(target.is_native, target.formats))):
        return list(cores)
    graphs = [capture(module, size, keep, subject.task) for keep in subject.keeps]
    return [replace(graph, core=core.core) for graph, core in zip(graphs, cores, strict=True)] if cores else graphs


def capture_cores(
    module: nn.Module, image_size: int, keeps: Sequence[float | None], task: str = CLASSIFICATION
) -> list[Graph]:
    """Capture what the bve runtime's programs are read from.

    At each keep ratio, routing as one op.
    """
    with routing_as_one_op(module):
        graphs = [capture(module, image_size, keep, task) for keep in keeps]
    with silenced():
        plain = [rewrite_plainly(graph.exported) for graph in graphs]
    return [replace(graph, exported=core, core=core) for graph, core in zip(graphs, plain, strict=True)]


def find_leftovers(graphs: Sequence[Graph]) -> list[Leftover]:
    """Find what the bve runtime cannot compute of a model.

    At its first keep ratio. None of no graphs: nobody asks for its programs.
    """
    core = graphs[0].core if graphs else None
    return [] if core is None else list_leftovers(core)


def rewrite(graph: Graph) -> Graph:
    """Rewrite a graph as the same function in fewer ops."""
    is_plain = graph.exported is graph.core
    with silenced():
        return replace(graph, exported=(rewrite_further if is_plain else rewrite_all)(graph.exported))


def cut(graph: Graph) -> Graph:
    """Cut out of a graph what the bve runtime can run.

    Where nothing of it is worth a call the graph stays.
    """
    assert graph.core is not None
    pieces = find_pieces(graph.core)
    if not pieces:
        return graph
    around = write_calls(graph.core, pieces)
    write_routes(around)
    with silenced():
        return replace(graph, pieces=pieces, around=rewrite_further(around))


def quantize(
    graphs: list[Graph], precision: str, target: Target, subject: Subject, on_sensitivities: OnSensitivities
) -> list[Graph]:
    """Decide what becomes of each layer.

    The formats apply it in their own terms.
    """
    seen = subject.calibration if subject.trained else None
    graphs = [replace(graph, calibration=seen) for graph in graphs]
    return assign_layers(graphs, precision, target, subject.calibration, subject.trained, on_sensitivities)


def place(graphs: Sequence[Graph], target: Target, subject: Subject) -> dict[str, list[Graph]]:
    """Decide where the graphs compute in int8 on ranges, by format."""
    return add_integers(graphs, target, subject.calibration)


def describe_input(how: Preprocessing, name: str, target: Target) -> Preprocessing:
    """Describe how files of a format take pictures.

    how: their model does.
    """
    if not target.takes_pixels(name):
        return how
    return replace(how, dtype=UINT8, layout=target.find_layout(name))


def take_input(graph: Graph, how: Preprocessing, name: str, target: Target) -> Graph:
    """Let a graph take what files of a format do.

    how: these take pictures. LiteRT's answer with probabilities where they take pixels, of a task that has some: what
    its libraries call scores.
    """
    if how.dtype != UINT8:
        return graph
    if target.is_native(name) and graph.around is None:
        return replace(graph, outline=take_pixels(graph, how).exported)
    if target.is_native(name):
        return replace(graph, around=take_pixels(take_rest(graph), how).exported)
    taken = take_pixels(graph, how, as_bytes=name != "coreml")
    if not find_task(graph.task).SCORES:
        return taken
    if name == "litert":
        return answer_probabilities(taken)
    return replace(taken, outputs=(PROBABILITIES,)) if ends_with_softmax(graph.exported) else taken


def lower(graphs: Sequence[Graph], name: str, target: Target, metadata: Mapping[str, str]) -> Artifact:
    """Lower the graphs to a format's own terms.

    UserError if its framework cannot, naming the op, its layer and line; where memory or disk runs out, what says so.
    """
    format_ = load_format(name)
    try:
        return format_.lower(graphs, target, metadata)
    except (UserError, OSError):
        raise
    except Exception as e:
        if shortage := find_shortage(e):
            raise shortage from None
        told = explain_lowering_failure(e, graphs[0], name, lambda graph: format_.lower([graph], target, metadata))
        if told is None:
            raise
        raise told from e


def list_refusals(target: Target, cores: Sequence[Graph]) -> list[str]:
    """List the target's formats that cannot hold the model.

    cores: as of capture_cores. Where a framework is around the bve runtime, a piece that is worth a call is enough.
    """
    leftovers = find_leftovers(cores)
    has_pieces = bool(leftovers and cores[0].core is not None and find_pieces(cores[0].core))
    native = [name for name in target.formats if target.is_native(name)]
    return [name for name in native if leftovers and not (name in CHOICES and has_pieces)]


def load_format(name: str) -> Format:
    """Import the module of that format.

    UserError if its packages are not installed.
    """
    try:
        return cast(Format, import_module(f"bigvit_edge.export.formats.{name}"))
    except ModuleNotFoundError as e:
        if e.name and e.name.startswith("bigvit_edge"):
            raise
        raise UserError(
            f"{e.name} is not installed", f"the packages of format {name}", f"pip install 'bigvit-edge[{name}]'"
        ) from e
