"""What people write on the command line, as values."""

import math

from bigvit_edge.errors import UserError


def parse_keeps(text: str | None) -> tuple[float, ...]:
    """Parse '0.25,0.5,1.0' as the ratios in that order.

    No ratios for None. UserError on what is no number in (0, 1], or one twice.
    """
    if text is None:
        return ()
    keeps = tuple(_parse_number(word, f"--keep {text}") for word in text.split(","))
    for keep in keeps:
        if not 0 < keep <= 1:
            raise UserError(f"keep {keep:g}", "a share of the tokens, above 0 and at most 1", "for example --keep 0.5")
    if len({f"{keep:g}" for keep in keeps}) < len(keeps):  # which is how they are named in files
        raise UserError(f"--keep {text}", "each ratio once", "for example --keep 0.25,0.5,1.0")
    return keeps


def parse_share(text: str) -> float:
    """Parse '5%' or '0.05' as 0.05.

    UserError on what is no share in 0..1.
    """
    share = _parse_number(text.removesuffix("%"), f"--max-fallback {text}") / (100 if text.endswith("%") else 1)
    if not 0 <= share <= 1:
        raise UserError(f"--max-fallback {text}", "a share from 0 to 1, or 0% to 100%", "for example 5%")
    return share


def _parse_number(word: str, whole: str) -> float:
    try:
        number = float(word)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{word!r} in {whole}", "a number", "for example 0.5")
    return number
