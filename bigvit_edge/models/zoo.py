"""The models we know by name: their shapes as data, their arithmetic in closed form. Imports no framework, so that
listing is instant.
"""

import math
from dataclasses import dataclass

from bigvit_edge.errors import UserError, suggest

HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Card:
    """One named model.

    little_dim is None for a dense ViT; weights names a file shipped in bigvit_edge/demo/.
    """

    name: str
    dim: int
    little_dim: int | None = None
    depth: int = 12
    head_dim: int = 64
    little_head_dim: int = 32
    patch: int = 16
    image_size: int = 224
    num_classes: int = 1000
    labels: tuple[str, ...] | None = None
    mean: tuple[float, float, float] = HALF
    std: tuple[float, float, float] = HALF
    weights: str | None = None

    @property
    def tokens(self) -> int:
        """Count the tokens N: patches and CLS."""
        return 1 + (self.image_size // self.patch) ** 2


DIGITS = tuple(str(d) for d in range(10))
DEMO = dict(dim=96, depth=5, head_dim=32, patch=8, image_size=64, num_classes=10, labels=DIGITS)

CARDS = {
    card.name: card
    for card in (
        Card("blvit_ti", 192, 48, little_head_dim=16),
        Card("blvit_s", 384, 96),
        Card("blvit_b", 768, 192),
        Card("blvit_l", 1024, 384, depth=24),
        Card("vit_ti", 192),
        Card("vit_s", 384),
        Card("vit_b", 768),
        Card("vit_l", 1024, depth=24),
        Card("blvit_demo", little_dim=32, little_head_dim=16, weights="blvit_demo.safetensors", **DEMO),  # type: ignore[arg-type]
        Card("vit_demo", weights="vit_demo.safetensors", **DEMO),  # type: ignore[arg-type]
    )
}


def find_card(name: str) -> Card:
    """Find the card of that name.

    UserError with the nearest names if there is none.
    """
    if name not in CARDS:
        raise UserError(f"unknown model {name!r}", f"one of {', '.join(CARDS)}", suggest(name, CARDS))
    return CARDS[name]


@dataclass(frozen=True)
class Listed:
    """A line of `bigvit-edge models`.

    It has the parameters, and the multiply-accumulates of one image at each keep ratio (1.0 alone for a dense model).
    """

    name: str
    image_size: int
    params: int
    macs: dict[float, int]
    trained: bool

    def __str__(self) -> str:
        macs = ", ".join(
            f"{m / 1e9:.2f}" + (f" at keep {keep:g}" if len(self.macs) > 1 else "") for keep, m in self.macs.items()
        )
        kind = "trained weights shipped" if self.trained else "random start"
        return f"{self.name:11} {self.image_size:3} px  {self.params / 1e6:6.2f} M parameters  {macs} GMAC; {kind}"


def list_models() -> list[Listed]:
    """List all known models."""
    return [
        Listed(
            card.name,
            card.image_size,
            count_params(card),
            {k: count_macs(card, k) for k in ((0.5, 1.0) if card.little_dim else (1.0,))},
            card.weights is not None,
        )
        for card in CARDS.values()
    ]


def count_selected(keep: float, tokens: int) -> int:
    """Count the selected tokens, k = ceil(keep * N).

    It is guarded against 0.1 * 30 = 3.0000000000000004.
    """
    return max(1, math.ceil(round(keep * tokens, 6)))


def count_params(card: Card) -> int:
    """Count the learned numbers of a model."""
    big, little, n = card.dim, card.little_dim, card.tokens
    total = _linear(3 * card.patch**2, big) + big + n * big + 2 * big + _linear(big, card.num_classes)
    if little is None:
        return total + card.depth * _block(big)
    exchange = 3 * _linear(little, big) + _linear(big, little) + big + little
    router = 2 * little + _linear(little, 1)
    return (
        total
        + _linear(big, little)
        + _linear(little, big)
        + card.depth * (_block(big) + _block(little) + exchange + router)
    )


def count_macs(card: Card, keep: float = 1.0) -> int:
    """Count the multiply-accumulates of one image.

    Only matrix products count (Linear, convolution, attention), as in the papers.
    """
    big, little, n = card.dim, card.little_dim, card.tokens
    total = (n - 1) * 3 * card.patch**2 * big + big * card.num_classes
    if little is None:
        return total + card.depth * (n * 12 * big**2 + 2 * n * n * big)
    k = count_selected(keep, n)
    p_block = k * 12 * big**2 + 2 * k * n * big + (n - k) * 2 * little * big
    e_block = n * 12 * little**2 + 2 * n * n * little
    exchange_and_router = 2 * k * little * big + n * little
    return total + n * big * little + little * big + card.depth * (p_block + e_block + exchange_and_router)


def count_dispatch_macs(card: Card, keep: float = 1.0) -> int:
    """Count the multiply-accumulates that dispatch 'onehot' adds to count_macs.

    They are, per layer, both streams times the permutation matrix, and the scores of the selected tokens times its
    first k rows. 0 for a dense model.
    """
    if card.little_dim is None:
        return 0
    n = card.tokens
    return card.depth * (n * n * (card.dim + card.little_dim) + count_selected(keep, n) * n)


def _linear(rows: int, columns: int) -> int:
    return rows * columns + columns


def _block(c: int) -> int:
    return 4 * _linear(c, c) + _linear(c, 4 * c) + _linear(4 * c, c) + 4 * c
