"""Which entry point of a file is run: found by its name, or by its keep ratio."""

from collections.abc import Iterable, Mapping
from numbers import Real

import numpy as np

from bigvit_edge.errors import UserError, suggest


def name_method(keep: float | None) -> str:
    """Name a keep ratio's entry point in a file of several: 'keep_0_25'."""
    return f"keep_{keep:g}".replace(".", "_")


def choose_entry(
    where: object,
    known: Mapping[str, float | None],
    name: str | None = None,
    keep: float | None = None,
    kind: str = "method",
) -> str:
    """Choose an entry point by name, by keep ratio, or the first.

    where: the file, for messages; known: the file's entry points, each with its keep ratio, None of a model without;
    kind: what one is called in this format. UserError with those there are; where both are given, one has to fit both.
    """
    names = list(known)
    if not names:
        raise UserError(f"{where} has no {kind}", "one to run", "export the model again")
    if name is not None and name not in known:
        raise UserError(f"{where} has no {kind} {name!r}", f"one of {', '.join(names)}", suggest(str(name), names))
    if keep is None:
        return name or names[0]
    if not isinstance(keep, Real):
        raise UserError(f"keep={keep!r}", "a number, or None for any")
    for each, ratio in known.items():  # which files hold in 32 bits
        if name in (None, each) and ratio is not None and np.float32(ratio) == np.float32(keep):
            return each
    ratios = ", ".join(f"{ratio:g}" for ratio in sorted({ratio for ratio in known.values() if ratio is not None}))
    met = f"keep {keep:g} for {where}" + (f", {kind} {name}" if name else "")
    if not ratios:
        raise UserError(met, "none: the model has no keep ratio", "leave it out")
    raise UserError(met, f"one of {ratios}", "export the model with that --keep")


def read_keeps(names: Iterable[str]) -> dict[str, float | None]:
    """Read the keep ratios in the names of several entry points."""
    return {name: _read_keep(name) for name in names}


def _read_keep(name: str) -> float | None:
    try:
        keep = float(name.removeprefix("keep_").replace("_", "."))
    except ValueError:
        return None
    return keep if name_method(keep) == name else None
