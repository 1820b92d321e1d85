"""The fallback gate: what did not land on the intended unit, named, and too much of it refused."""

from bigvit_edge.artifact import Entry, Verified
from bigvit_edge.errors import keep_few
from bigvit_edge.target import FULL, Limits

SHOWN = 12  # leftovers and layers named for each entry point


def list_fallbacks(entry: Entry, limits: Limits) -> list[str]:
    """List in words the entry points that fall back too much.

    Each whose share of multiply-accumulates outside the unit is past limits.max_fallback, with its ops, layers, reasons
    and shares, and each whose layers are cut into more than limits.max_fragments pieces. None of an int8-full file,
    which is for an NPU, whatever this CPU's delegate makes of it.
    """
    if entry.precision == FULL:
        return []
    return [
        line
        for method in entry.methods
        for line in (*_list_shares(entry, method, limits), *_list_fragments(entry, method, limits))
    ]


def _list_shares(entry: Entry, method: Verified, limits: Limits) -> list[str]:
    heavy = sorted((x for x in method.leftovers if x.mac_share > 0), key=lambda x: -x.mac_share)
    share = sum(x.mac_share for x in heavy)
    if share <= limits.max_fallback:
        return []
    limit = f"limit {limits.max_fallback:.1%} (limits.max_fallback)"
    head = f"{_name(entry, method)}: {share:.1%} of the multiply-accumulates fall back, {limit}:"
    lines = [f"{x.op} in {x.layer or 'the model itself'}: {x.mac_share:.2%}; {x.reason}" for x in heavy]
    return [head, *(f"  {line}" for line in keep_few(lines, SHOWN))]


def _list_fragments(entry: Entry, method: Verified, limits: Limits) -> list[str]:
    cut = sorted(((n, layer) for layer, n in method.fragments.items() if n > limits.max_fragments), reverse=True)
    if not cut:
        return []
    head = f"{_name(entry, method)}: layers in more than {limits.max_fragments} pieces (limits.max_fragments):"
    lines = []
    for n, layer in cut:
        between = sorted({f"{x.op} ({x.reason})" for x in method.leftovers if f"{x.layer}.".startswith(f"{layer}.")})
        lines.append(f"{layer} in {n} pieces" + (f", cut by {', '.join(between)}" if between else ""))
    return [head, *(f"  {line}" for line in keep_few(lines, SHOWN))]


def _name(entry: Entry, method: Verified) -> str:
    return entry.file if len(entry.methods) == 1 else f"{entry.file} ({method.name})"
