"""A routed model's tokens, kept in the order of the image.

A route gives x and z anew, the selected rows first. But each is the old value and two row lists: what works on rows one
by one may do so in any order, and attention is the same whatever the order of its keys. So nothing is moved: who reads
or writes the first k rows does so through the list of the selected, the others through that of the skipped. Lists are
in rising order, and begin with row 0.
"""

from dataclasses import replace

from bigvit_edge.export.core.ir import Attention, Body, Op, Route, RowSet, Value, View


class Disorder(Exception):
    """An op that would mix rows of different orders.

    The op, and how.
    """

    def __init__(self, op: Op, reason: str) -> None:
        super().__init__(reason)
        self.op = op


def keep_image_order(body: Body) -> None:
    """Reach rows that a route reordered through its row lists.

    Disorder where that cannot be.
    """
    routes: dict[Value, Op] = {}  # whose rows are in the order of which route
    homes: dict[Value, Value] = {}  # x and z of a route: where their rows are
    others: set[Value] = set()  # written, in an order of their own
    mixers: dict[Value, Op] = {}  # whose rows are not in the order that the graph has, since which route
    for op in body.ops:
        order, mixer = find_order(op, routes), find_mixer(op, mixers)
        for name, views in op.reads.items():
            op.reads[name] = tuple(find_home(op, view, routes, homes) for view in views)
        if isinstance(op.kind, Route):
            enter(body, op, routes, homes)
            mixers |= {view.value: op for view in op.writes.values()} | dict.fromkeys(routes, op)
            continue
        written = op.view
        spans, known = spans_rows(written), written.value in routes or written.value in others
        if (order and not spans) or (spans and known and order is not routes.get(written.value)):
            raise Disorder(op, "it adds rows that a router reordered to others")
        if order:
            routes[written.value] = order
        else:
            others.add(written.value)
        if mixer:
            mixers[written.value] = mixer
        op.writes = {"out": find_home(op, written, routes, homes)}
    for number, (view,) in enumerate(body.outputs):
        if view.rows.count > 1 and view.value in mixers:
            raise Disorder(mixers[view.value], "its tokens are given in their order, which bve never makes")
        body.outputs[number] = (find_home(body.ops[-1], view, routes, homes),)


def find_mixer(op: Op, mixers: dict[Value, Op]) -> Op | None:
    """Find the route that changed the order of what an op reads.

    Since then its rows are in another order than the graph's.
    """
    names = ("src",) if isinstance(op.kind, Attention) else tuple(op.reads)
    views = [view for name in names for view in op.reads[name] if view.rows.count > 1]
    return next((mixers[view.value] for view in views if view.value in mixers), None)


def spans_rows(view: View) -> bool:
    return view.rows == RowSet(view.value.rows)


def find_order(op: Op, routes: dict[Value, Op]) -> Op | None:
    """Find the route in whose order an op makes rows.

    That is the order of the whole values that it reads. Disorder if it reads whole values of different orders.
    """
    names = ("key", "value") if isinstance(op.kind, Attention) else tuple(op.reads)
    views = [view for name in names if name != "gate" for view in op.reads[name]]
    orders = {routes.get(view.value) for view in views if spans_rows(view)}
    if len(orders) > 1:
        raise Disorder(op, "it reads rows that a router reordered beside others")
    if isinstance(op.kind, Attention):
        (src,) = op.reads["src"]
        return routes.get(src.value) if spans_rows(src) else None
    return next(iter(orders), None)


def find_home(op: Op, view: View, routes: dict[Value, Op], homes: dict[Value, Value]) -> View:
    """Find where a view's rows are, and their row list."""
    route, home = routes.get(view.value), replace(view, value=homes.get(view.value, view.value))
    if route is None or spans_rows(view):
        return home
    assert isinstance(route.kind, Route)
    k, rows = route.kind.k, view.rows
    if (rows.first, rows.count) == (0, 1):
        return home
    if (rows.first, rows.count) == (0, k):
        return replace(home, rows=RowSet(k, list=route.writes["selected"].value))
    if (rows.first, rows.count) == (k, view.value.rows - k):
        return replace(home, rows=RowSet(rows.count, list=route.writes["skipped"].value))
    raise Disorder(op, f"it reads rows {rows.first} to {rows.first + rows.count} of those that a router reordered")


def enter(body: Body, op: Op, routes: dict[Value, Op], homes: dict[Value, Value]) -> None:
    """Note where x and z of a route are.

    They are where those are that it was given, which nothing reads any more.
    """
    for name, source in (("x", "x"), ("z", "src")):
        if name not in op.writes:
            continue
        (view,) = op.reads[source]
        if not view.is_whole or body.is_read_after(view, op):
            raise Disorder(op, "its tokens are read again, as they were before")
        made = op.writes.pop(name).value
        homes[made], routes[made] = view.value, op
    op.reads.pop("x", None)
