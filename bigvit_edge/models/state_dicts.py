"""Which tensors of a checkpoint are the model's: wrappers, prefixes, averaged weights; and a file's keys in words.

Trainers save a state dict under a name ({"state_dict": ...}), and modules under the attribute that holds them
("module.", "_orig_mod.", "backbone."). Both are one thing here: a file is flattened, its names joined by dots, and what
stands in front of the keys that the model wants is their prefix.
"""

import re
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from bigvit_edge.errors import SHOWN, UserError, list_few, name_type, suggest

DEEPEST, MOST = 6, 200_000  # names on the way to a tensor, and of entries: a file may be made to never end
PLAIN = "save the plain weights of the model as it was trained; int8 and the like are made by the export itself"
AVERAGED = re.compile(r"(?:^|[._])(?:ema|averaged|avg|swa|teacher)(?:[._]|$)")  # teacher: self-distillation's (DINO)


def flatten(content: Mapping[object, object], path: Path) -> dict[str, object]:
    """Flatten {"a": {"b": x}} to {"a.b": x}.

    Entries under other keys than strings (an optimizer's numbers) are left out. UserError if two tensors come to one
    key, or the entries are too many.
    """
    flat: dict[str, object] = {}
    inner: deque[tuple[str, Mapping[object, object], int]] = deque([("", content, 1)])
    while inner:
        before, mapping, depth = inner.popleft()
        for name, value in mapping.items():
            if isinstance(name, str) and isinstance(value, Mapping) and depth < DEEPEST:
                inner.append((f"{before}{name}.", value, depth + 1))
            elif isinstance(name, str):
                twin = flat.setdefault(before + name, value)
                if twin is not value and (isinstance(twin, Tensor) or isinstance(value, Tensor)):
                    met = f"{path} has two entries {before + name}, one by that name and one inside others"
                    raise UserError(met, "one tensor of a name", "save model.state_dict() alone")
        if len(flat) + len(inner) > MOST:
            raise UserError(f"{path} has more than {MOST} entries", "a checkpoint", "check how the file was made")
    return flat


def choose(
    found: Mapping[str, object], wants: Callable[[str], bool], path: Path, key: str | None = None, least: int = 1
) -> tuple[dict[str, object], tuple[str, ...]]:
    """Choose the model's entries, without their prefix; note what was chosen.

    wants: whether a key is one of the model's. Taken is the prefix under which the most such keys stand, at least
    `least` of them (else all entries as they are); of several alike the averaged weights'. What stands before the
    prefix and is wanted comes along (a head beside its backbone). key: look only under this name, dotted. UserError if
    there is none of that name, or several fit and none or more than one is averaged.
    """
    if key is not None:
        found = _descend(found, key, path)
    matches: dict[str, set[str]] = defaultdict(set)
    for entry in found:
        for prefix in _list_prefixes(entry):
            if wants(entry.removeprefix(prefix)):
                matches[prefix].add(entry)
    most = max(map(len, matches.values()), default=0)
    if most < least:
        return dict(found), ()
    fitting = _drop_longer({prefix: entries for prefix, entries in matches.items() if len(entries) == most})
    prefix = _prefer(fitting, path, key)
    chosen = {entry.removeprefix(prefix): value for entry, value in found.items() if entry.startswith(prefix)}
    others = [".".join(filter(None, (key, other[:-1]))) for other in fitting if other != prefix]
    for before in reversed(_list_prefixes(prefix)[:-1]):
        beside = {entry.removeprefix(before) for entry in matches.get(before, ())}
        chosen = {entry: found[before + entry] for entry in beside} | chosen
    return chosen, _describe_choice(found, prefix, others, chosen)


def _descend(found: Mapping[str, object], key: str, path: Path) -> dict[str, object]:
    before = key.rstrip(".") + "."
    inside = {entry.removeprefix(before): value for entry, value in found.items() if entry.startswith(before)}
    if inside:
        return inside
    names = {prefix[:-1] for entry in found for prefix in _list_prefixes(entry)[1:]}
    near = suggest(key, names)
    raise UserError(f"{path} has nothing under {key!r}", f"one of its names: {describe_keys(found)}", near)


def _list_prefixes(key: str) -> list[str]:
    """'a.b.c' -> '', 'a.', 'a.b.'; of a prefix 'a.b.' itself the last."""
    return ["", *(key[: dot.end()] for dot in re.finditer(r"\.", key))]


def _drop_longer(fitting: dict[str, set[str]]) -> list[str]:
    """One prefix for the same entries, the shortest: 'vit.' may or may not belong to the keys themselves."""
    shortest: dict[frozenset[str], str] = {}
    for prefix in sorted(fitting, key=len):
        shortest.setdefault(frozenset(fitting[prefix]), prefix)
    return list(shortest.values())


def _prefer(fitting: list[str], path: Path, key: str | None) -> str:
    averaged = [prefix for prefix in fitting if AVERAGED.search(prefix)]
    if len(fitting) == 1 or len(averaged) == 1:
        return (averaged if len(fitting) > 1 else fitting)[0]
    named = [".".join(filter(None, (key, prefix[:-1]))) or "(no prefix)" for prefix in fitting]
    met = f"{path} has several weights that fit: under {list_few(named)}"
    raise UserError(met, "to be told which", f"--weights-key {named[-1]} takes those")


def _describe_choice(
    found: Mapping[str, object], prefix: str, others: list[str], chosen: Mapping[str, object]
) -> tuple[str, ...]:
    """Nothing where every tensor is the model's under its own key."""
    used = {before + entry for entry in chosen for before in _list_prefixes(prefix)}
    rest = {
        entry: value
        for entry, value in found.items()
        if entry not in used and (isinstance(value, Tensor) or AVERAGED.search(entry))
    }
    if not prefix and not rest:
        return ()
    words = f"the weights are those under {prefix[:-1]!r}" if prefix else "the weights are those without a prefix"
    if others:
        words += f", the averaged ones (--weights-key {others[0]} takes the others)" if others[0] else ", averaged"
    beside = [entry for entry in chosen if prefix and prefix + entry not in found]
    if beside:
        words += f", and beside them {list_few(beside)}"
    return (words + (f"; not used: {describe_keys(rest)}" if rest else ""),)


def describe_keys(found: Mapping[str, object]) -> str:
    """Describe a file's keys by their first names.

    Some that follow stand behind each: 'model (80 tensors: cls_token, ...), epoch'.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for entry in found:
        first, _, rest = entry.partition(".")
        groups[first].append(rest)
    texts = []
    for first, rests in groups.items():
        tensors = [rest for rest in rests if isinstance(found[f"{first}.{rest}" if rest else first], Tensor)]
        value = found.get(first)
        if tensors and rests != [""]:
            texts.append(f"{first} ({len(tensors)} tensors: {list_few(tensors, 3)})")
        else:
            texts.append(first if isinstance(value, Tensor) or value is None else f"{first} ({name_type(value)})")
    return list_few(texts, 2 * SHOWN) or "none"


def convert_tensors(chosen: Mapping[str, object], wants: Callable[[str], bool], path: Path) -> dict[str, Tensor]:
    """Take the tensors among the entries, floating ones in float32.

    UserError naming one that has no plain numbers: quantised, sparse, nested, meta, complex, float8; or a wanted one
    that is none.
    """
    tensors = {}
    for key, value in chosen.items():
        if fault := _find_fault(key, value, wants):
            raise UserError(f"{path}: {key} is {fault}", "a dense tensor of float32, float16 or bfloat16", PLAIN)
        if isinstance(value, Tensor):
            tensors[key] = value.detach().float() if value.is_floating_point() else value.detach()
    return tensors


def _find_fault(key: str, value: object, wants: Callable[[str], bool]) -> str | None:
    if not isinstance(value, Tensor):
        if key.endswith("_packed_params"):
            return "a quantised layer's weights"
        return name_type(value) if wants(key) else None
    kinds = {
        "quantised": value.is_quantized,
        "nested": value.is_nested,
        "sparse": value.layout != torch.strided,
        "without its numbers (on the meta device)": value.is_meta,
        "complex": value.is_complex(),
    }
    if kind := next((kind for kind, holds in kinds.items() if holds), None):
        return kind
    small = value.is_floating_point() and value.dtype.itemsize < 2
    return f"of {str(value.dtype).removeprefix('torch.')}, whose scale is not in it" if small else None
