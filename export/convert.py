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

from bigvit_edge.artifact import PROBABILITIES, Array, Artifact, Runner
from bigvit_edge.console import silenced
from bigvit_edge.errors import UserError
from bigvit_edge.export.assignment import Show, assign_layers
from bigvit_edge.export.calibrated import add_integers
from bigvit_edge.export.capture_errors import (
    explain_capture_failure,
    find_dynamic_shape,
    find_random,
    find_shortage,
    noting_lines,
)
from bigvit_edge.export.coverage import add_coverage
from bigvit_edge.export.graph import Graph, Inlay
from bigvit_edge.export.inlay import (
    count_calls,
    drop_unread,
    find_inside,
    list_inlays,
    list_names,
    record_images,
    rest_of,
    taken_out,
)
from bigvit_edge.export.lowering_errors import explain_lowering_failure
from bigvit_edge.export.pictures import Watch, unwatched
from bigvit_edge.export.pixels import answer_probabilities, ends_with_softmax, take_pixels
from bigvit_edge.export.regions import find_autocast, inline_regions
from bigvit_edge.export.rewrite import rewrite_all
from bigvit_edge.models.blvit import BLViT
from bigvit_edge.models.load import read_keep, set_keep
from bigvit_edge.models.torchvision_ops import normalizing_without_branch
from bigvit_edge.preprocessing import UINT8, Preprocessing
from bigvit_edge.target import CHOICES, Target

Step = Callable[[str], AbstractContextManager[None]]  # told the name of each step; times it


@dataclass(frozen=True)
class Listener:
    """Those who are told how an export goes.

    step: the name of each step, for as long as it takes; show: the sensitivities of `mixed` and what was chosen; watch:
    pictures as they are gone through.
    """

    step: Step = lambda name: nullcontext()
    show: Show = lambda sensitivities, chosen: None
    watch: Watch = unwatched


SILENT = Listener()
FIXED = "operations whose shapes and branches do not depend on the image"
LEAVE = "write it without, or leave that part out of the model"


@dataclass(frozen=True)
class Subject:
    """The model to convert, and what goes with it.

    keeps: the ratios to capture it at, (None,) for a model without; calibration: images [n, 3, S, S] as it takes them;
    trained: its weights are not random; metadata: to be kept inside the files; preprocessing: how it takes pictures,
    without which no file can take pixels.
    """

    module: nn.Module
    image_size: int
    keeps: tuple[float | None, ...]
    calibration: Array
    trained: bool
    metadata: Mapping[str, str]
    preprocessing: Preprocessing | None = None


class Backend(Protocol):
    """The interface of a module in backends/.

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
    subject: Subject, target: Target, listener: Listener = SILENT
) -> Iterator[tuple[Artifact, Mapping[str, str]]]:
    """Convert a model to every file of a target.

    Yields each file with the precision of each quantised Linear in it, by precision, format and, where a format holds
    one only, keep ratio.
    """
    cells = target.list_cells()
    with listener.step("capture"):
        captured = [capture(subject.module, subject.image_size, keep) for keep in subject.keeps]
    with listener.step("rewrite"):
        rewritten = [rewrite(graph) for graph in captured]
    inlays = list_inlays(subject.module) if any(target.is_native(name) for name, _ in cells) else []
    if len(inlays) == 1 and inlays != [""]:
        with listener.step(f"part {inlays[0]} for our core"):
            rewritten = [part(graph, inlays[0], subject.calibration) for graph in rewritten]
    quantized = {}
    for precision in target.precisions:  # all now: what cannot be quantised shows before the lowering's minutes
        with listener.step(f"quantize {precision}"):
            chosen = quantize(rewritten, precision, target, subject, listener.show)
            quantized[precision] = place(chosen, target, subject)
    for name, precision in cells:
        graphs = quantized[precision][name]
        for group in [graphs] if load_backend(name).SEVERAL else [[graph] for graph in graphs]:
            keeps = ",".join(f"{graph.keep:g}" for graph in group if graph.keep is not None)
            with listener.step(f"lower {name} {precision}" + (f" {keeps}" if len(group) < len(graphs) else "")):
                words, ready = {**subject.metadata, "precision": precision, "keep": keeps}, group
                if subject.preprocessing is not None:
                    how = describe_input(subject.preprocessing, name, target)
                    words["preprocessing"] = json.dumps(how.spell())
                    ready = [take_input(graph, how, name, target) for graph in group]
                artifact = lower(ready, name, target, words)
            layers = {**group[0].layers, **artifact.layers}
            yield add_coverage(artifact, group, layers), layers


def capture(module: nn.Module, image_size: int, keep: float | None = None) -> Graph:
    """Capture the model's ATen graph for one image, in eval mode.

    keep: the ratio to capture it at. UserError naming the user's line if the model cannot be captured.
    """
    if keep is not None:
        set_keep(module, keep)
    image = torch.zeros(1, 3, image_size, image_size)
    with torch.no_grad(), silenced(), noting_lines(), normalizing_without_branch():
        try:
            exported = torch.export.export(module.eval(), (image,), strict=False)
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
        return Graph(exported, keep=keep, module=module)


def rewrite(graph: Graph) -> Graph:
    """Rewrite a graph as the same function in fewer ops."""
    with silenced():
        return replace(graph, exported=rewrite_all(graph.exported))


def part(graph: Graph, name: str, images: Array) -> Graph:
    """Part the graph of a model around one of ours.

    name: of our model in it. The two are captured apart. images [n, 3, S, S]: to calibrate on. UserError if the model
    does anything with ours but call it once, with an image.
    """
    module, ((image,), _) = graph.module, graph.exported.example_inputs
    assert module is not None
    inside, kind = find_inside(module, name), type(module).__name__
    if graph.keep is not None:
        set_keep(module, graph.keep)
    given = record_images(module, name, images)  # and what the model sets in ours is set
    own = read_keep(inside)
    if isinstance(inside, BLViT) and graph.keep not in (None, own):
        met = f"keep {graph.keep:g} of {kind}, whose {name} stays at {own:g}"
        raise UserError(met, "a model that hands its keep on", f"make keep a property that sets {name}.keep")
    exported = rewrite(capture(inside, given.shape[-1])).exported
    with taken_out(inside):
        around = capture(module, image.shape[-1])
    if (calls := count_calls(around.exported)) != 1:
        met = f"the graph of {kind} reads {calls} answers of {name}"
        raise UserError(met, "one, for our core", "add --set backend=xnnpack")
    around = rewrite(around)
    drop_unread(around.exported)
    return replace(graph, inlay=Inlay(list_names(module, name), exported, around.exported, given))


def quantize(graphs: list[Graph], precision: str, target: Target, subject: Subject, show: Show) -> list[Graph]:
    """Decide what becomes of each layer.

    The backends apply it in their own terms.
    """
    seen = subject.calibration if subject.trained else None
    graphs = [replace(graph, calibration=seen) for graph in graphs]
    return assign_layers(graphs, precision, target, subject.calibration, subject.trained, show)


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

    how: these take pictures. LiteRT's answer with probabilities where they take pixels: what its libraries call scores.
    """
    if how.dtype != UINT8:
        return graph
    if target.is_native(name) and graph.inlay is None:
        return replace(graph, outline=take_pixels(graph, how).exported)
    if target.is_native(name):
        assert graph.inlay is not None
        return replace(graph, inlay=replace(graph.inlay, around=take_pixels(rest_of(graph), how).exported))
    taken = take_pixels(graph, how, as_bytes=name != "coreml")
    if name == "litert":
        return answer_probabilities(taken)
    return replace(taken, output=PROBABILITIES) if ends_with_softmax(graph.exported) else taken


def lower(graphs: Sequence[Graph], name: str, target: Target, metadata: Mapping[str, str]) -> Artifact:
    """Lower the graphs to a format's own terms.

    UserError if its framework cannot, naming the op, its layer and line; where memory or disk runs out, what says so.
    """
    backend = load_backend(name)
    try:
        return backend.lower(graphs, target, metadata)
    except (UserError, OSError):
        raise
    except Exception as e:
        if shortage := find_shortage(e):
            raise shortage from None
        told = explain_lowering_failure(e, graphs[0], name, lambda graph: backend.lower([graph], target, metadata))
        if told is None:
            raise
        raise told from e


def list_refusals(target: Target, module: nn.Module) -> list[str]:
    """List the target's formats that cannot hold the model at all.

    They cannot, whatever its ops: our core takes our models alone, and where a framework is around it, one inside
    another model.
    """
    inlays = list_inlays(module)
    if inlays[:1] == [""]:
        return []
    return [name for name in target.formats if target.is_native(name) and not (name in CHOICES and len(inlays) == 1)]


def load_backend(name: str) -> Backend:
    """Import the backend of that name.

    UserError if its packages are not installed.
    """
    try:
        return cast(Backend, import_module(f"bigvit_edge.export.backends.{name}"))
    except ModuleNotFoundError as e:
        if e.name and e.name.startswith("bigvit_edge"):
            raise
        raise UserError(
            f"{e.name} is not installed", f"the packages of format {name}", f"pip install 'bigvit-edge[{name}]'"
        ) from e
