"""Which op of a model a format's converter could not write, in the user's own terms.

A model that was captured is sound: what fails after that is a limit of the format or of its converter, and is said so.
Converters seldom say which op they mean, and then in words of their own. So the op is found in three ways, the cheapest
first: it is named by the backend (refuse_op); a frame of the traceback works on it; or each kind of op in the graph is
converted alone, until one fails alike.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import isqrt
from traceback import walk_tb
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Node
from torch.fx.node import map_arg
from torch.utils._pytree import tree_leaves

from bigvit_edge.console import silenced
from bigvit_edge.errors import UserError, cut_message
from bigvit_edge.export.capture_errors import describe_node
from bigvit_edge.export.graph import Graph, read_constants
from bigvit_edge.models.traces import SELF, is_source, list_causes

EXPECTED = "operations that its converter takes; the model itself is sound"
MOST = 100  # kinds of op that are converted alone, the rarest first
BRANCH = torch._ops.HigherOrderOperator  # as torch.cond, whose graphs no error names and nothing tries alone
AT_WORK = ("node", "n")  # what converters, and torch's interpreter of graphs, call the node they work on


def refuse_op(name: str, node: Node, reason: str) -> UserError:
    """Make the error of an op that a format cannot hold.

    name: the format's. It names op, layer, the user's line, and a way out.
    """
    other = _name_other(name)
    way = f"write it in other operations, leave that part out of the model, or take another format, such as {other}"
    return UserError(f"{name} does not take {describe_node(node)} ({reason})", EXPECTED, way)


def explain_lowering_failure(
    error: Exception, graph: Graph, name: str, attempt: Callable[[Graph], object]
) -> UserError | None:
    """Explain an error that came up while `name` lowered the graph.

    None of a fault in our own code. attempt: lowers a float graph in the same way.
    """
    branch = next((n for n in graph.exported.graph.nodes if isinstance(n.target, BRANCH)), None)

    def fails_alike(candidate: Node) -> bool:
        return type(_try_alone(candidate, graph, attempt)) is type(error)

    node = _find_at_work(error)
    if node is not None:
        node = _find_origin(node, graph.exported)
        return refuse_op(name, node if branch is None or fails_alike(node) else branch, read_reason(error))
    if _is_ours(error):
        return None
    found = next(filter(fails_alike, _list_kinds(graph.exported)), branch)
    if found is not None:
        return refuse_op(name, found, read_reason(error))
    met = f"{name}'s converter fails on the {graph.precision} graph, but on no op of it alone ({read_reason(error)})"
    return UserError(met, EXPECTED, f"take another format, such as {_name_other(name)}")


def _name_other(name: str) -> str:
    return "litert" if name == "onnx" else "onnx"


def _is_ours(error: BaseException) -> bool:
    """Whether an error came up in our own code, and not in a framework that it called."""
    files = [frame.f_code.co_filename for frame, _ in walk_tb(_find_first(error).__traceback__)]
    sources = [file for file in files if is_source(file) or file.startswith(SELF)]
    return bool(sources) and sources[-1].startswith(SELF)


def _find_first(error: BaseException) -> BaseException:
    """What an error was raised from at the very first."""
    return _find_first(error.__cause__) if error.__cause__ else error


def read_reason(error: Exception) -> str:
    """Read the first cause's words on one line.

    The words are ours where they would be of the converter's inner workings.
    """
    first = _find_first(error)
    words = cut_message(first).rpartition("error: ")[2]
    words = re.sub(r"<OpOverload\(op='([\w.]+)', overload='\w+'\)>", r"\1", words)
    words = re.sub(r"^Lowering not found: .*|^No ONNX function found for .*", "its converter has no such op", words)
    words = re.sub(r" that was explicitly marked illegal.*", "", words)
    words = re.sub(r"^(torch\.complex\d+)$", r"no tensors of \1", words)
    return words.strip(" :") or type(first).__name__


def _find_at_work(error: Exception) -> Node | None:
    """The node that a converter's innermost frame was working on."""
    for link in reversed(list(list_causes(error))):
        for frame, _ in reversed(list(walk_tb(link.__traceback__))):
            for word in AT_WORK:
                node = frame.f_locals.get(word)
                if (
                    isinstance(node, Node)
                    and node.op == "call_function"
                    and not frame.f_code.co_filename.startswith(SELF)
                ):
                    return node
    return None


def _is_op(node: Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload | BRANCH)


def _find_origin(node: Node, exported: ExportedProgram) -> Node:
    """The captured node that a converter's was made from; itself if that is not known."""
    captured: dict[str, Node] = {n.name: n for n in exported.graph.nodes if _is_op(n)}
    sources = list(node.meta.get("from_node") or [])
    while sources:
        source = sources.pop()
        origin = captured.get(source.name)
        if origin is not None and origin.meta.get("stack_trace") == node.meta.get("stack_trace"):
            return origin
        sources += list(source.from_node or [])
    return node


# ---- one op alone ----------------------------------------------------------------------------------------------------


def _list_kinds(exported: ExportedProgram) -> Iterator[Node]:
    """A node of each kind, by op, shapes and options, the rarest ops first."""
    calls = [n for n in exported.graph.nodes if _is_op(n) and _tensors(n)]
    counts, seen = Counter(node.target for node in calls), set[str]()
    for node in sorted(calls, key=lambda node: counts[node.target]):
        kind = str((node.target, map_arg((node.args, node.kwargs), lambda n: str(n.meta.get("val")))))
        if kind not in seen and len(seen) < MOST:
            seen.add(kind)
            yield node


def _tensors(node: Node) -> list[Tensor]:
    return [value for value in tree_leaves(node.meta.get("val")) if isinstance(value, Tensor)]


def _try_alone(node: Node, graph: Graph, attempt: Callable[[Graph], object]) -> Exception | None:
    """The error that lowering that op alone ends in; None if it ends well, or cannot be tried."""
    alone = _Alone(node, read_constants(graph.exported))
    try:
        with silenced(), torch.no_grad():
            exported = torch.export.export(alone.eval(), (torch.zeros(1, 3, alone.side, alone.side),), strict=False)
    except Exception:
        return None
    try:
        attempt(replace(graph, exported=exported, precision="fp32", layers={}, ranges={}, keep=None, inlay=None))
    except Exception as e:
        return e
    return None


class _Alone(nn.Module):
    """[1, 3, side, side] -> [1, n]: the image, and an op on pieces of it, of the shapes and types that it has in its
    graph, and on the constants that it has there."""

    def __init__(self, node: Node, constants: dict[Node, Tensor]) -> None:
        super().__init__()
        self.node, self.sizes = node, [sum(t.numel() for t in _tensors(n)) for n in node.all_input_nodes]
        self.side = max(1, isqrt((sum(self.sizes) - 1) // 3) + 1)
        for number, source in enumerate(node.all_input_nodes):
            if source in constants:
                self.register_buffer(f"constant_{number}", constants[source])

    def forward(self, image: Tensor) -> Tensor:
        given: dict[Node, Any] = {}
        pixels, start = image.flatten(), 0
        for number, (source, size) in enumerate(zip(self.node.all_input_nodes, self.sizes, strict=True)):
            (value,) = _tensors(source)
            constant = getattr(self, f"constant_{number}", None)
            piece = pixels[start : start + size].reshape(value.shape).to(value.dtype)
            given[source] = piece if constant is None else constant
            start += size
        args, kwargs = map_arg((self.node.args, self.node.kwargs), lambda n: given[n])
        assert callable(self.node.target)
        made = [t for t in tree_leaves(self.node.target(*args, **kwargs)) if isinstance(t, Tensor)]
        real = [torch.view_as_real(t) if t.is_complex() else t for t in made]
        return torch.cat([image.flatten(1), *(t.reshape(1, -1).float() for t in real)], 1)  # which no constant is
