"""The models we know by name: their shapes as data, their arithmetic in closed form. Imports no framework, so that
listing is instant.
"""

import math
from dataclasses import dataclass

from bigvit_edge.errors import UserError, suggest
from bigvit_edge.macs import count_attention, count_convolution, count_linear, count_matmul

HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Config:
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

CONFIGS = {
    config.name: config
    for config in (
        Config("blvit_ti", 192, 48, little_head_dim=16),
        Config("blvit_s", 384, 96),
        Config("blvit_b", 768, 192),
        Config("blvit_l", 1024, 384, depth=24),
        Config("vit_ti", 192),
        Config("vit_s", 384),
        Config("vit_b", 768),
        Config("vit_l", 1024, depth=24),
        Config("blvit_demo", little_dim=32, little_head_dim=16, weights="blvit_demo.safetensors", **DEMO),  # type: ignore[arg-type]
        Config("vit_demo", weights="vit_demo.safetensors", **DEMO),  # type: ignore[arg-type]
    )
}


def find_config(name: str) -> Config:
    """Find the config of that name.

    UserError with the nearest names if there is none.
    """
    if name not in CONFIGS:
        raise UserError(f"unknown model {name!r}", f"one of {', '.join(CONFIGS)}", suggest(name, CONFIGS))
    return CONFIGS[name]


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
            config.name,
            config.image_size,
            count_params(config),
            {k: count_macs(config, k) for k in ((0.5, 1.0) if config.little_dim else (1.0,))},
            config.weights is not None,
        )
        for config in CONFIGS.values()
    ]


def count_selected(keep: float, tokens: int) -> int:
    """Count the selected tokens, k = ceil(keep * N).

    It is guarded against 0.1 * 30 = 3.0000000000000004.
    """
    return max(1, math.ceil(round(keep * tokens, 6)))


def count_params(config: Config) -> int:
    """Count the learned numbers of a model."""
    big, little, n = config.dim, config.little_dim, config.tokens
    total = _linear(3 * config.patch**2, big) + big + n * big + 2 * big + _linear(big, config.num_classes)
    if little is None:
        return total + config.depth * _block(big)
    exchange = 3 * _linear(little, big) + _linear(big, little) + big + little
    router = 2 * little + _linear(little, 1)
    return (
        total
        + _linear(big, little)
        + _linear(little, big)
        + config.depth * (_block(big) + _block(little) + exchange + router)
    )


def count_macs(config: Config, keep: float = 1.0) -> int:
    """Count the multiply-accumulates of one image.

    Only matrix products count (Linear, convolution, attention), as in the papers.
    """
    big, little, n = config.dim, config.little_dim, config.tokens
    total = count_convolution((n - 1, big), (3, config.patch, config.patch)) + count_linear((config.num_classes,), big)
    if little is None:
        return total + config.depth * _count_block(n, n, big)
    k = count_selected(keep, n)
    p_block = _count_block(k, n, big) + 2 * count_linear((n - k, big), little)
    e_block = _count_block(n, n, little)
    exchange = count_linear((k, big), little) + count_linear((k, little), big)
    router = count_linear((n, 1), little)
    total += count_linear((n, little), big) + count_linear((1, big), little)
    return total + config.depth * (p_block + e_block + exchange + router)


def _count_block(rows: int, keys: int, c: int) -> int:
    """Of a block: four Linears, an MLP four times as wide, and rows that attend to so many keys."""
    return 12 * count_linear((rows, c), c) + count_attention((rows, c), keys, c)


def count_dispatch_macs(config: Config, keep: float = 1.0) -> int:
    """Count the multiply-accumulates that dispatch 'onehot' adds to count_macs.

    They are, per layer, both streams times the permutation matrix, and the scores of the selected tokens times its
    first k rows. 0 for a dense model.
    """
    if config.little_dim is None:
        return 0
    n, k = config.tokens, count_selected(keep, config.tokens)
    streams = count_matmul((n, n), (n, config.dim + config.little_dim))
    return config.depth * (streams + count_matmul((k, n), (k, 1)))


def _linear(rows: int, columns: int) -> int:
    return rows * columns + columns


def _block(c: int) -> int:
    return 4 * _linear(c, c) + _linear(c, 4 * c) + _linear(4 * c, c) + 4 * c
