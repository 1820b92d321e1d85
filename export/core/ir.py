"""What lies between an ATen graph and a program: ops over values that are rows of numbers.

A read is a tuple of views, one below another. As read from a graph, each op writes a value of its own. Passes then let
ops write into rows and columns of values that others write too, so from there on their order counts: an op sees what
those before it have written.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain

from torch import Tensor
from torch.fx import Node

from bigvit_edge.export.program import BufferType


@dataclass(eq=False)
class Value:
    """A matrix [rows, columns] that ops write and read.

    data: of a constant.
    """

    rows: int
    columns: int
    type: BufferType = BufferType.F32
    data: Tensor | None = None
    name: str = ""


@dataclass(frozen=True)
class RowSet:
    """Some rows of a value.

    Those of a row list, or the `count` from `first` on.
    """

    count: int
    first: int = 0
    list: Value | None = None


@dataclass(frozen=True)
class View:
    """Rows of a value, from a column on."""

    value: Value
    rows: RowSet
    first_column: int
    columns: int

    @property
    def is_whole(self) -> bool:
        """Tell whether it is all of its value, in order."""
        value = self.value
        return self == view_of(value)

    def overlaps(self, other: "View") -> bool:
        """Tell whether both may have a number in common.

        Rows of a list may be any.
        """
        if self.value is not other.value:
            return False
        a, b = self.rows, other.rows
        apart = a.list is None and b.list is None and (a.first + a.count <= b.first or b.first + b.count <= a.first)
        beside = (
            self.first_column + self.columns <= other.first_column
            or other.first_column + other.columns <= self.first_column
        )
        return not (apart or beside)


Views = tuple[View, ...]


def view_of(value: Value) -> View:
    """View all of a value."""
    return View(value, RowSet(value.rows), 0, value.columns)


def count_rows(views: Views) -> int:
    """Count the rows of views that lie one below another."""
    return sum(view.rows.count for view in views)


def cut_rows(views: Views, first: int, count: int) -> Views:
    """Take `count` rows of views from `first` on.

    They have no row lists yet.
    """
    taken = []
    for view in views:
        rows = view.rows
        start, end = max(first, 0), min(first + count, rows.count)
        if start < end:
            taken.append(replace(view, rows=RowSet(end - start, rows.first + start)))
        first -= rows.count
    return join_views(tuple(taken))


def join_views(views: Views) -> Views:
    """Join views whose rows follow one another in the same value."""
    joined: list[View] = []
    for view in views:
        last = joined[-1] if joined else None
        follows = last and replace(last, rows=view.rows) == view and view.rows.list is last.rows.list is None
        if last and follows and last.rows.first + last.rows.count == view.rows.first:
            joined[-1] = replace(last, rows=RowSet(last.rows.count + view.rows.count, last.rows.first))
        else:
            joined.append(view)
    return tuple(joined)


# ---- what ops do -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Weights:
    """A Linear's weights: y = factor * (weight x + bias).

    layer: whose name they have. weight: [out, in]; bias, factor: [out]; precision: as of Graph.layers, '' as long as
    nobody has chosen one.
    """

    layer: str
    weight: Tensor
    bias: Tensor | None
    precision: str = ""
    factor: Tensor | None = None


@dataclass(frozen=True)
class Norm:
    """A layer norm over the columns, under its layer's name."""

    layer: str
    gain: Tensor
    offset: Tensor
    epsilon: float


@dataclass(frozen=True)
class Gelu:
    """By the error function."""


@dataclass(frozen=True)
class Patches:
    """src, the image, cut in squares of `side` pixels."""

    side: int


@dataclass(frozen=True)
class Fill:
    """A constant."""

    name: str
    data: Tensor


@dataclass(frozen=True)
class List:
    """A row list of one."""

    row: int


@dataclass(frozen=True)
class Linear:
    """Weights side by side, on rows of src.

    Of their columns those from `first` on. Each row times its number in `gate`, if that is read; added to what is
    there, if it accumulates.
    """

    weights: tuple[Weights, ...]
    columns: int
    first: int = 0
    before: Norm | Gelu | None = None
    accumulates: bool = False


@dataclass(frozen=True)
class Scale:
    """src times a factor for each column."""

    factor: Tensor


@dataclass(frozen=True)
class Gate:
    """Each row of src times its number in gate [1, rows]."""


@dataclass(frozen=True)
class Add:
    """src + other."""


@dataclass(frozen=True)
class Scores:
    """Of each head, rows of src times rows of other.

    [heads * rows, other's rows].
    """

    heads: int


@dataclass(frozen=True)
class Softmax:
    """Of each row of src."""


@dataclass(frozen=True)
class Mix:
    """Of each head, rows of other as src weighs them.

    src: [heads * rows, other's rows] -> [rows, heads * width].
    """

    heads: int


@dataclass(frozen=True)
class Attention:
    """softmax(scale * src key^T) value, for each head."""

    heads: int
    scale: float = 1.0


@dataclass(frozen=True)
class Route:
    """The rows of src with the k best scores: selected, skipped, gate.

    And, as the graph has it, x and z with the selected rows first, until these are kept in image order. layer: of the
    weight.
    """

    layer: str
    norm: Norm
    weight: Tensor
    bias: Tensor
    k: int


@dataclass(frozen=True)
class Mlp:
    """src + gate * fc2(gelu(fc1(norm(src)))), written where src is."""

    norm: Norm
    fc1: Weights
    fc2: Weights


Kind = (
    Patches | Fill | List | Linear | Norm | Gelu | Scale | Gate | Add | Scores | Softmax | Mix | Attention | Route | Mlp
)


@dataclass(eq=False)
class Op:
    """One step.

    What it does, on which reads, to which writes; node: of the graph, that it comes from.
    """

    kind: Kind
    reads: dict[str, Views]
    writes: dict[str, View]
    node: Node
    layer: str

    @property
    def view(self) -> View:
        """Take the one view that it writes."""
        (view,) = self.writes.values()
        return view


@dataclass(eq=False)
class Body:
    """A graph's ops in order.

    From the inputs, such as an image [3 * side, side], to the outputs; ports: their names and shapes, inputs first;
    answers: the graph's nodes that the outputs are.
    """

    inputs: list[Value]
    ops: list[Op] = field(default_factory=list)
    outputs: list[Views] = field(default_factory=list)
    ports: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    answers: list[Node] = field(default_factory=list)

    def copy(self) -> "Body":
        """Copy it for passes to change; the values stay the same."""
        ops = [replace(op, reads=dict(op.reads), writes=dict(op.writes)) for op in self.ops]
        return Body(list(self.inputs), ops, list(self.outputs), self.ports, self.answers)

    def producers_of(self, view: View) -> list[Op]:
        """List the ops that write into a view."""
        return [op for op in self.ops if any(view.overlaps(written) for written in op.writes.values())]

    def users_of(self, value: Value) -> list[Op]:
        """List the ops that read a value."""
        return [op for op in self.ops if any(view.value is value for view in list_reads(op))]

    def find_producer(self, views: Views) -> Op | None:
        """Find the op that makes what is read here alone.

        It makes a whole value, and nothing else does.
        """
        if len(views) != 1 or not views[0].is_whole or self.gives(views[0].value):
            return None
        producers = self.producers_of(views[0])
        reads = sum(view.value is views[0].value for op in self.ops for view in list_reads(op))
        return producers[0] if len(producers) == 1 and reads == 1 and producers[0].view == views[0] else None

    def gives(self, value: Value) -> bool:
        """Tell whether something of a value is an output."""
        return any(view.value is value for output in self.outputs for view in output)

    def replace(self, op: Op, *by: Op) -> None:
        """Put ops in the place of one."""
        place = self.ops.index(op)
        self.ops[place : place + 1] = by

    def erase(self, op: Op) -> None:
        """Take an op away."""
        self.ops.remove(op)

    def redirect(self, value: Value, views: Views) -> None:
        """Read other views wherever a value is read.

        They have as many rows and columns.
        """
        for op in self.ops:
            op.reads = {name: follow(read, value, views) for name, read in op.reads.items()}
        self.outputs = [follow(output, value, views) for output in self.outputs]

    def is_read_after(self, view: View, op: Op) -> bool:
        """Tell whether something reads a view once an op is done."""
        later = self.ops[self.ops.index(op) + 1 :]
        reads = [*(read for other in later for read in list_reads(other)), *chain(*self.outputs)]
        return any(view.overlaps(read) for read in reads)

    def is_written_between(self, views: Views, first: Op, last: Op) -> bool:
        """Tell whether an op between two writes any of the views."""
        between = self.ops[self.ops.index(first) + 1 : self.ops.index(last)]
        written = [view for op in between for view in op.writes.values()]
        return any(view.overlaps(other) for view in views for other in written)


def list_reads(op: Op) -> Iterator[View]:
    """List the views that an op reads."""
    for views in op.reads.values():
        yield from views


def follow(read: Views, value: Value, by: Views) -> Views:
    """Write a read of a value as one of other views."""
    if all(view.value is not value for view in read):
        return read
    found: list[View] = []
    for view in read:
        if view.value is not value:
            found.append(view)
            continue
        for other in cut_rows(by, view.rows.first, view.rows.count):
            column = other.first_column + view.first_column
            found.append(replace(other, first_column=column, columns=view.columns))
    return join_views(tuple(found))


def edit(op: Op, kind: Kind, **reads: Views) -> Op:
    """Make an op of another kind with the same writes."""
    return Op(kind, reads, dict(op.writes), op.node, op.layer)
