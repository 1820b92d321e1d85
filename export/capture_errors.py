"""Why a model could not be captured, in the user's own terms."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import StackSummary
from unittest.mock import patch

import torch
from torch import SymBool, SymFloat, SymInt
from torch.export import ExportedProgram
from torch.fx import Node
from torch.fx.proxy import TracerBase
from torch.utils._pytree import tree_leaves

from bigvit_edge.errors import cut_message, lacks_memory
from bigvit_edge.export.graph import layer_of
from bigvit_edge.models.traces import Line, find_line, find_line_in, is_source, list_causes

DATA_DEPENDENT = (
    "GuardOnDataDependentSymNode",
    "data-dependent",
    "DataDependentOutputException",
    "_local_scalar_dense",
)
ADVICE = (
    "a mobile graph is fixed: write it with torch.where, or with top-k of a constant number; where the tensor is the "
    "same for every image, with Python's numbers"
)
CALL = "torch/nn/modules/module.py"  # through which a module is called: what is outside the first is not the model's


@contextmanager
def noting_lines() -> Iterator[None]:
    """Let torch.export note all the model's lines behind each node.

    Left alone it notes those of `forward` only.
    """

    def keep(_: TracerBase, stack: StackSummary) -> StackSummary:
        inside = next((i for i, frame in enumerate(stack) if frame.filename.endswith(CALL)), len(stack))
        return StackSummary.from_list([frame for frame in stack[inside:] if is_source(frame.filename)])

    with patch.object(TracerBase, "_filter_traceback_frames", keep):
        yield


def find_shortage(error: BaseException) -> BaseException | None:
    """Find the first shortage of memory or disk behind an error.

    It is looked for among the errors that led to this one, and is no fault of the model's.
    """
    full = errno.ENOSPC, errno.EDQUOT
    links = list_causes(error)
    return next((e for e in links if lacks_memory(e) or (isinstance(e, OSError) and e.errno in full)), None)


def explain_capture_failure(error: BaseException) -> str:
    """Explain in one line what torch.export stumbled over.

    It names the kind of failure, the user's line (file:number: text), and, for control flow that depends on the image's
    values, what to write instead.
    """
    line = find_line(error)
    if any(word in f"{type(error).__name__} {error}" for word in DATA_DEPENDENT):
        return f"what the model does depends on the values in a tensor{_at(line)}; {ADVICE}"
    return f"{type(error).__name__}: {cut_message(error)}{_at(line)}"


def find_dynamic_shape(exported: ExportedProgram) -> str | None:
    """Find the first op whose shape or number depends on the image.

    torch.export takes x[x > 0], nonzero and item(), with a size or number known only at run time, which no backend here
    does. Returns what to tell the user of it, in the words of explain_capture_failure; None if every shape is fixed.
    """
    for node in exported.graph.nodes:
        values = tree_leaves(node.meta.get("val"))
        if any(
            isinstance(size, SymInt | SymFloat | SymBool)
            for value in values
            for size in getattr(value, "shape", (value,))
        ):
            return f"a shape or number depends on the values in a tensor: {describe_node(node)}; {ADVICE}"
    return None


def find_random(exported: ExportedProgram) -> str | None:
    """Find the first op that draws random numbers.

    Dropout does so in training. Returns what to tell the user of it; None if none does.
    """
    for node in exported.graph.nodes:
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()) and node.users and not _rests(node):
            return f"random numbers are drawn, so that each run gives another answer: {describe_node(node)}"
    return None


def _rests(node: Node) -> bool:
    """Whether the options of an op that may draw random numbers say that it does not."""
    options = node.target._schema.arguments  # type: ignore[union-attr]
    given = {option.name: option.default_value for option in options}
    given |= {**dict(zip(given, node.args, strict=False)), **node.kwargs}
    return not (given.get("train", True) and given.get("training", True) and given.get("dropout_p", True))


def describe_node(node: Node) -> str:
    """Describe a node by its op, layer and line.

    'aten.cumsum in layer blocks.0.attn at model.py:12: x.cumsum(1)'.
    """
    schema, layer = getattr(node.target, "_schema", None), layer_of(node)
    op = schema.name.replace("::", ".") if schema else getattr(node.target, "__name__", str(node.target))
    line = find_line_in(node.meta.get("stack_trace") or "")
    return f"{op}{f' in layer {layer}' if layer else ''}{_at(line)}"


def _at(line: Line | None) -> str:
    return f" at {line}" if line else ""
