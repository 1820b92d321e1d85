"""From a name to a module: the one place where models are built."""

from importlib.resources import as_file, files
from pathlib import Path

import torch
from torch import nn

from bigvit_edge.models.blvit import BLViT
from bigvit_edge.models.vit import ViT
from bigvit_edge.models.weights import load_weights
from bigvit_edge.models.zoo import Card, check_keep, find_card

DEFAULT_KEEP = 0.5
SEED = 0  # a model without weights starts from this, so that two exports of it are equal


def load_model(name: str, keep: float | None = None, weights: Path | None = None) -> nn.Module:
    """A model by its zoo name, in eval mode. float images [B, 3, S, S], normalised by the card's mean and std -> logits
    [B, num_classes].

    keep: share of tokens for the P-blocks, in (0, 1]; 0.5 when None; a dense vit_* takes none. weights: a checkpoint to
    fill it from; without one, the weights shipped for blvit_demo and vit_demo, and for all others a random start from a
    fixed seed. UserError on an unknown name, a keep out of range, a checkpoint that does not fit.
    """
    card = find_card(name)
    check_keep(card, keep)
    model = build(card)
    if isinstance(model, BLViT):
        model.keep = DEFAULT_KEEP if keep is None else keep
    if weights is not None:
        load_weights(model, weights)
    elif card.weights is not None:
        with as_file(files("bigvit_edge.demo") / card.weights) as shipped:
            load_weights(model, shipped)
    return model.eval()


def build(card: Card) -> ViT | BLViT:
    """The card's module at its random start, in training mode."""
    shape = dict(
        image_size=card.image_size,
        patch=card.patch,
        dim=card.dim,
        depth=card.depth,
        head_dim=card.head_dim,
        num_classes=card.num_classes,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        if card.little_dim is None:
            return ViT(**shape)
        return BLViT(**shape, little_dim=card.little_dim, little_head_dim=card.little_head_dim)
