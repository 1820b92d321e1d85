"""In-place ops as ops that make values of their own.

torch.export keeps relu_, y[:, 1:3] = 0 and index_put_ as they are. PyTorch's own way to get rid of them, which
decomposes the whole graph, also takes apart what every backend wants whole (batch norm) or free (reshape, as a view
whose strides are those of one attention kernel). This one edits only what is written and what reads it afterwards.

Which values share memory is known from a run of the graph on tensors without data: those of one storage do.
"""

from dataclasses import dataclass, field
from operator import getitem
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import ExportedProgram
from torch.fx import Interpreter, Node
from torch.fx.node import map_arg
from torch.utils._pytree import tree_leaves, tree_map_only

from bigvit_edge.errors import UserError
from bigvit_edge.export.graph import SLICE, add_constant, describe_view, insert, read_constants, shape_of
from bigvit_edge.models.traces import find_line_in

aten = torch.ops.aten


def functionalize(program: ExportedProgram) -> None:
    """Write each in-place op of the program as a new value.

    UserError naming the op or the buffer, and the user's line: for a write that has no such form, and for a buffer that
    is written so that the next image's answer depends on it.
    """
    if not any(writes(node) for node in program.graph.nodes):
        return
    memory = Memory(program, list_storages(program))
    written: dict[Node, Node] = {}  # a parameter, buffer or image, and the first op that writes it
    for node in list(program.graph.nodes):
        if writes(node) and torch.Tag.inplace_view in node.target.tags:  # unsqueeze_ changes no number
            node.target = find_functional(node)
        memory.note(node)
        if node.op == "output":
            replace_outputs(program, node, memory)
        elif not writes(node):
            node.args, node.kwargs = memory.read_all((node.args, node.kwargs), node)
        else:
            target = find_written(node)
            memory.write(target, make_value(node, target, memory), node)
            if (whole := memory.whole_of(target)).op == "placeholder":
                written.setdefault(whole, node)
    refuse_state(program, memory, written)
    for node in reversed(program.graph.nodes):
        if writes(node):
            program.graph.erase_node(node)
    program.graph.eliminate_dead_code()


def writes(node: Node) -> bool:
    """Tell whether an op changes one of its inputs."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


@dataclass
class Memory:
    """A graph's shared memory: who shares it, and what holds it.

    A whole is a value with memory of its own; part_of leads from a view to what it is a view of, from the result of an
    in-place op to what it wrote. held: of a view or whole, the node that now holds its value, and the whole's version
    then.
    """

    program: ExportedProgram
    storages: dict[Node, set[int]]
    part_of: dict[Node, Node] = field(default_factory=dict)
    held: dict[Node, tuple[Node, int]] = field(default_factory=dict)
    version: dict[Node, int] = field(default_factory=dict)

    def note(self, node: Node) -> None:
        """Take in a node of the original graph."""
        value = node.meta.get("val")
        if writes(node):
            self.part_of[node] = find_written(node)
            return
        source = self.find_source(node)
        if source is not None:
            self.part_of[node] = source
        if isinstance(value, Tensor):
            if source is None:
                self.version[node] = 0
            self.held[node] = (node, self.version[self.whole_of(node)])

    def find_source(self, node: Node) -> Node | None:
        """Find what a node is a view of, or several are.

        None if it has memory of its own.
        """
        if node.op != "call_function":
            return None
        if node.target is getitem:
            return self.part_of.get(node.all_input_nodes[0])
        own = self.storages[node]
        return next((n for n in node.all_input_nodes if own & self.storages[n]), None)

    def whole_of(self, node: Node) -> Node:
        while node in self.part_of:
            node = self.part_of[node]
        return node

    def read(self, node: Node, before: Node) -> Node:
        """Find the node that holds what a value has become.

        If need be it is made in front of `before`.
        """
        while writes(node):
            node = self.part_of[node]
        if node not in self.held:  # several views at once, or no tensor
            return node
        value, version = self.held[node]
        now = self.version[self.whole_of(node)]
        if version < now:
            target, args, kwargs = describe_view(node)
            value = insert(before, target, self.read(self.part_of[node], before), *args, **kwargs)
            self.held[node] = (value, now)
        return value

    def read_all(self, arguments: Any, before: Node) -> Any:
        """Read all nodes among arguments."""
        return map_arg(arguments, lambda n: self.read(n, before))

    def write(self, node: Node, value: Node, before: Node) -> None:
        """Make `value` the content of a value's memory.

        All that the value is a view of changes with it.
        """
        while writes(node):
            node = self.part_of[node]
        changed = {node: value}
        while node in self.part_of:
            source = self.part_of[node]
            while writes(source):
                source = self.part_of[source]
            value = put_back(self.program, before, node, self.read(source, before), value)
            node = source
            changed[node] = value
        self.version[node] += 1
        self.held |= {view: (value, self.version[node]) for view, value in changed.items()}


def list_storages(program: ExportedProgram) -> dict[Node, set[int]]:
    """List the storages of each node's values."""
    inputs = [node.meta["val"] for node in program.graph.find_nodes(op="placeholder")]
    interpreter = Interpreter(program.graph_module, garbage_collect_values=False)
    with next(value for value in inputs if isinstance(value, FakeTensor)).fake_mode, torch.no_grad():
        interpreter.run(*(tree_map_only(Tensor, Tensor.detach, value) for value in inputs))
    return {
        node: {v.untyped_storage()._cdata for v in tree_leaves(value) if isinstance(v, Tensor)}
        for node, value in interpreter.env.items()
    }


def find_written(node: Node) -> Node:
    """Find the value that an in-place op writes.

    UserError if that is not its first argument alone.
    """
    arguments = node.target._schema.arguments  # type: ignore[union-attr]
    written = [a for a in arguments if a.alias_info is not None and a.alias_info.is_write]
    target = node.args[0] if node.args else None
    if written != [arguments[0]] or not isinstance(target, Node):
        raise refuse(node)
    return target


def make_value(node: Node, target: Node, memory: Memory) -> Node:
    """Make a new value of what an in-place op writes.

    It stands in front of the op and has the target's shape and type.
    """
    old, fake = memory.read(target, node), target.meta["val"]
    args, kwargs = memory.read_all((node.args[1:], node.kwargs), node)
    if node.target in (aten.copy_.default, aten.fill_.Tensor):
        new = args[0]
    elif node.target in (aten.fill_.Scalar, aten.zero_.default):
        new = insert(node, aten.full_like.default, old, args[0] if args else 0)
    else:
        new = insert(node, find_functional(node), old, *args, **kwargs)
    if new.meta["val"].dtype != fake.dtype:
        new = insert(node, aten._to_copy.default, new, dtype=fake.dtype)
    return new if new.meta["val"].shape == fake.shape else insert(node, aten.expand.default, new, list(fake.shape))


def find_functional(node: Node) -> Any:
    """Find the op that writes nothing instead: relu of relu_.

    UserError if there is none.
    """
    space, _, name = node.target._schema.name.partition("::")  # type: ignore[union-attr]
    packet = getattr(getattr(torch.ops, space), name.removesuffix("_"), None)
    functional = getattr(packet, node.target._overloadname, None)  # type: ignore[union-attr]
    if functional is None or functional._schema.is_mutable or len(functional._schema.returns) != 1:
        raise refuse(node)
    return functional


def put_back(program: ExportedProgram, before: Node, view: Node, source: Node, value: Node) -> Node:
    """Put `value` in the place of a view of the source.

    The view's own op tells which element of the source each of the view's is: it is run on the source's element
    numbers.
    """
    target, args, kwargs = describe_view(view)
    shape, size = shape_of(source), source.meta["val"].numel()
    numbers = torch.arange(size).view(shape)
    places = target(numbers, *args, **kwargs)
    if places.shape.numel() == size and torch.equal(places.flatten(), numbers.flatten()):
        return insert(before, aten.reshape.default, value, list(shape))
    order = find_permutation(places, numbers)
    if order is not None:
        return insert(before, aten.permute.default, value, order)
    if target is aten.select.int:
        dim, place = args[0] % len(shape), args[1] % shape[args[0]]
        return join(before, source, dim, place, insert(before, aten.unsqueeze.default, value, dim))
    if target is aten.slice.Tensor and (given := (*args, *SLICE[len(args) :]))[3] == 1:
        return join(before, source, given[0] % len(shape), slice(*given[1:3]).indices(shape[given[0]])[0], value)
    chosen = numbers.flatten().scatter(0, places.flatten(), size + torch.arange(places.numel()))
    both = [insert(before, aten.reshape.default, part, [-1]) for part in (source, value)]
    index = add_constant(program, f"places.{view.name}", chosen)
    gathered = insert(before, aten.index_select.default, insert(before, aten.cat.default, both), 0, index)
    return insert(before, aten.reshape.default, gathered, list(shape))


def join(before: Node, source: Node, dim: int, start: int, value: Node) -> Node:
    """Put `value` into the source from `start` on along a dimension."""
    stop, end = start + shape_of(value)[dim], shape_of(source)[dim]
    head = [insert(before, aten.slice.Tensor, source, dim, 0, start)] if start else []
    tail = [insert(before, aten.slice.Tensor, source, dim, stop, end)] if stop < end else []
    return insert(before, aten.cat.default, [*head, value, *tail], dim) if head or tail else value


def find_permutation(places: Tensor, numbers: Tensor) -> list[int] | None:
    """Find the order of dimensions that makes `numbers` of `places`.

    None if none does.
    """
    if sorted(places.shape) != sorted(numbers.shape):
        return None
    steps = {step: dim for dim, step in enumerate(places.stride())}
    order = [steps.get(step, -1) for step in numbers.stride()]
    if sorted(order) != list(range(places.dim())) or not torch.equal(places.permute(order), numbers):
        return None
    return order


def replace_outputs(program: ExportedProgram, output: Node, memory: Memory) -> None:
    for old in output.all_input_nodes:
        new = memory.read(old, output)
        program.graph_signature.replace_all_uses(old.name, new.name)
    output.args = memory.read_all(output.args, output)


# ---- buffers that a forward pass writes ------------------------------------------------------------------------------


def refuse_state(program: ExportedProgram, memory: Memory, written: dict[Node, Node]) -> None:
    """Refuse a write into a buffer that changes later answers.

    UserError, but not of a buffer that nothing reads before it is written anew, that is read times 0, or is set to the
    same on every call: those answer as PyTorch does.
    """
    data, sources = read_constants(program), list_sources(program.graph.output_node())
    for buffer, write in written.items():
        last = memory.held[buffer][0]
        if buffer not in data or buffer not in sources or settles(buffer, last, data):
            continue
        met = f"it writes {name_buffer(program, buffer)}{describe_place(write)}, and what it answers depends on it"
        raise UserError(
            f"the model keeps something from one image to the next: {met}",
            "a model that answers the same image the same way each time",
            "compute that anew in each forward, or leave it out in eval mode",
        )


def settles(buffer: Node, last: Node, data: dict[Node, Tensor]) -> bool:
    """Tell whether every call leaves the buffer the same, whatever the image."""
    if list_sources(last) - set(data):
        return False
    once = compute(last, dict(data))
    return torch.equal(once, compute(last, {**data, buffer: once}))


def compute(node: Node, known: dict[Node, Any]) -> Any:
    if node not in known:
        args, kwargs = map_arg((node.args, node.kwargs), lambda n: compute(n, known))
        known[node] = node.target(*args, **kwargs)  # type: ignore[operator]
    return known[node]


def list_sources(node: Node) -> set[Node]:
    """List the placeholders that a node depends on.

    A product with 0 depends on nothing.
    """
    found: set[Node] = set()
    waiting = [node]
    while waiting:
        source = waiting.pop()
        if source not in found and not (source.target is aten.mul.Tensor and 0 in source.args):
            found.add(source)
            waiting.extend(source.all_input_nodes)
    return {source for source in found if source.op == "placeholder"}


def name_buffer(program: ExportedProgram, buffer: Node) -> str:
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    return f"self.{names[buffer.name]}" if buffer.name in names else "a constant"


def refuse(node: Node) -> UserError:
    met = f"{node.target} writes into a tensor in place{describe_place(node)}, in a way that has no other form"
    return UserError(met, "operations that make new tensors", "write it without")


def describe_place(node: Node) -> str:
    line = find_line_in(node.meta.get("stack_trace") or "")
    return f" at {line}" if line else ""
