"""Why a model could not be captured, in the user's own terms."""

from torch import SymBool, SymFloat, SymInt
from torch.export import ExportedProgram
from torch.utils._pytree import tree_leaves

from bigvit_edge.models.traces import Line, find_line, find_line_in

DATA_DEPENDENT = (
    "GuardOnDataDependentSymNode",
    "data-dependent",
    "DataDependentOutputException",
    "_local_scalar_dense",
)
ADVICE = "a mobile graph is fixed: write it with torch.where, or with top-k of a constant number"


def explain_capture_failure(error: BaseException) -> str:
    """What torch.export stumbled over: the kind of failure, the user's line (file:number: text), and, for control flow
    that depends on the image's values, what to write instead. One line.
    """
    line = find_line(error)
    if any(word in f"{type(error).__name__} {error}" for word in DATA_DEPENDENT):
        return f"what the model does depends on the values in the image{_at(line)}; {ADVICE}"
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first[:200]}{_at(line)}"


def find_dynamic_shape(exported: ExportedProgram) -> str | None:
    """torch.export takes x[x > 0], nonzero and item(), with a size or number known only at run time, which no backend
    here does. What to
    tell the user of the first such op, in the same words; None if every shape is fixed.
    """
    for node in exported.graph.nodes:
        values = tree_leaves(node.meta.get("val"))
        if any(
            isinstance(size, SymInt | SymFloat | SymBool)
            for value in values
            for size in getattr(value, "shape", (value,))
        ):
            line = find_line_in(node.meta.get("stack_trace") or "")
            return f"what {node.target} gives depends on the values in the image{_at(line)}; {ADVICE}"
    return None


def _at(line: Line | None) -> str:
    return f" at {line}" if line else ""
