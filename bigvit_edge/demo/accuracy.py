"""What the demo model gets right, and where its router looks: the figures of the README's accuracy table."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bigvit_edge.demo.digits import Batch
from bigvit_edge.models.blvit import BLViT, order_tokens, selected_tokens
from bigvit_edge.models.zoo import HALF, count_selected

Arrange = Callable[[Tensor], Tensor]
CHUNK = 250  # images at a time


@dataclass(frozen=True)
class Score:
    """One row of the accuracy table.

    name of the row; keep (None for a dense model); top1 in 0..1; ink: share of the digit's patches that the last
    layer's P-block treated.
    """

    name: str
    keep: float | None
    top1: float
    ink: float | None

    def as_cells(self) -> tuple[str, str, str, str]:
        """Write the score as the cells of a table's row."""
        keep = "–" if self.keep is None else f"{self.keep:g}"
        return self.name, keep, f"{self.top1:.1%}", "–" if self.ink is None else f"{self.ink:.1%}"


def normalize(images: Tensor) -> Tensor:
    """Bring images in 0..1 to the demo models' input range."""
    return (images - torch.tensor(HALF).view(3, 1, 1)) / torch.tensor(HALF).view(3, 1, 1)


def measure_scores(teacher: nn.Module, student: BLViT, batch: Batch) -> list[Score]:
    """Measure the teacher, and the student at each keep ratio.

    Then the student with its router replaced by chance and by an oracle.
    """
    rows = [Score("vit_demo (dense teacher)", None, _top1(teacher, batch), None)]
    rows += [_measure("blvit_demo", student, batch, keep) for keep in (1.0, 0.75, 0.5, 0.25)]
    for keep in (0.5, 0.25):
        rows.append(_measure("router replaced by chance", student, batch, keep, lambda _: RandomChoice(seed=0)))
        rows.append(_measure("router replaced by an oracle", student, batch, keep, OracleChoice))
    return rows


class RandomChoice:
    """CLS and then the other tokens in random order."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, score: Tensor) -> Tensor:
        return order_tokens(torch.rand(score.shape, generator=self.generator))


class OracleChoice:
    """CLS, then the digit's patches, then the others by score.

    The score is the router's. Follows the permutations from layer to layer.
    """

    def __init__(self, ink: Tensor) -> None:
        self.ink = torch.cat([torch.zeros_like(ink[:, :1]), ink], 1).float()  # [B, N], in the current order

    def __call__(self, score: Tensor) -> Tensor:
        order = order_tokens((self.ink + score) / 2)
        self.ink = self.ink.gather(1, order)
        return order


@contextmanager
def arranged(model: BLViT, arrange: Arrange) -> Iterator[None]:
    """Replace every layer's choice of tokens until the block ends."""
    before = [layer.arrange for layer in model.layers]
    try:
        for layer in model.layers:
            layer.arrange = arrange  # type: ignore[assignment]
        yield
    finally:
        for layer, own in zip(model.layers, before, strict=True):
            layer.arrange = own


def _chunks(batch: Batch) -> Iterator[Batch]:
    for i in range(0, len(batch.labels), CHUNK):
        yield Batch(normalize(batch.images[i : i + CHUNK]), batch.labels[i : i + CHUNK], batch.ink[i : i + CHUNK])


@torch.no_grad()
def _top1(model: nn.Module, batch: Batch) -> float:
    right = sum(int((model(part.images).argmax(1) == part.labels).sum()) for part in _chunks(batch))
    return right / len(batch.labels)


@torch.no_grad()
def _measure(
    name: str, model: BLViT, batch: Batch, keep: float, choice: Callable[[Tensor], Arrange] = lambda _: order_tokens
) -> Score:
    own, model.keep = model.keep, keep
    right, covered = 0, 0
    for part in _chunks(batch):
        with arranged(model, choice(part.ink)):
            x, z, orders = model.encode(part.images)
        right += int((model.classify(x, z).argmax(1) == part.labels).sum())
        selected = selected_tokens(orders, count_selected(keep, x.shape[1]))[-1][:, 1:]  # [B, patches]
        covered += int((selected & part.ink).sum())
    model.keep = own
    return Score(name, keep, right / len(batch.labels), covered / int(batch.ink.sum()))
