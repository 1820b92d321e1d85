"""A checkpoint and a model brought together: the architecture read from the tensors' shapes, positions for another
image size, a new head; and what of it the user has to know, in words.
"""

import re
from collections.abc import Iterable
from dataclasses import replace
from math import isqrt, log

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from bigvit_edge.errors import UserError, list_few
from bigvit_edge.models.blvit import BLViT
from bigvit_edge.models.checkpoints import OWN, Checkpoint
from bigvit_edge.models.vit import LAYER_NORM_EPS, Attention, ViT
from bigvit_edge.models.weights import fill
from bigvit_edge.models.zoo import CARDS, Card

HEAD = r"head\..*|(.*/)?pre_logits[./].*"  # a representation layer in front of the head goes with it
GROUPS = {  # what a dense checkpoint has nothing for
    r"layers\.\d+\.e\..*": "E-blocks",
    r"layers\.\d+\.router\..*": "routers",
    r"layers\.\d+\.([kv]_from_e|up|down|gamma_up|gamma_down).*": "exchange between the streams",
    r"(little|up)\..*": "the LITTLE stream's way in and out",
}
USUAL_HEADS = (64, 32, 16, 8)  # widths of a head, tried in this order


def infer_card(checkpoint: Checkpoint) -> Card:
    """Find the known model with the checkpoint's shapes, or make a card.

    The card has the checkpoint's own image size and number of classes. Heads, which shapes do not show, are of the
    usual width. UserError if the shapes are no ViT's.
    """
    shapes = {key: tuple(tensor.shape) for key, tensor in checkpoint.tensors.items()}
    try:
        dim, colors, patch, _ = shapes["embedding.patches.weight"]
        grid = isqrt(shapes["embedding.position"][1] - 1)
        little = None if checkpoint.dense else shapes["little.weight"][0]
    except (KeyError, ValueError, IndexError):
        raise _misfit(checkpoint, "it lacks a patch embedding with positions") from None
    if colors != 3 or not grid:
        raise _misfit(checkpoint, f"it is for images of {grid} x {grid} patches with {colors} channels")
    if 1 + grid**2 != shapes["embedding.position"][1]:
        raise _misfit(checkpoint, f"its {shapes['embedding.position'][1]} positions are no square and CLS")
    numbers = {int(m[1]) for key in shapes if (m := re.match(r"layers\.(\d+)\.", key))}
    depth = len(numbers)
    if numbers != set(range(depth)):
        raise _misfit(checkpoint, f"its layers are numbered up to {max(numbers)}, with gaps")
    shape = dict(dim=dim, little_dim=little, depth=depth, patch=patch)
    given = dict(image_size=grid * patch, labels=None, weights=None)
    if len(shapes.get("head.weight", (0, 0))) != 2:
        raise _misfit(checkpoint, f"its head.weight is {list(shapes['head.weight'])}")
    if "head.weight" in shapes:
        given["num_classes"] = shapes["head.weight"][0]
    for card in CARDS.values():
        if all(getattr(card, name) == value for name, value in shape.items()):
            return replace(card, **given)  # type: ignore[arg-type]
    if depth == 0:
        raise _misfit(checkpoint, "it has no layers")
    usual = dict(head_dim=_guess(dim), little_head_dim=_guess(little or 32, 32))
    return Card("unnamed", **usual, **shape, **given)  # type: ignore[arg-type]


def set_heads(card: Card, heads: int | None, told: int | None) -> Card:
    """Give the card that number of heads (of the P-blocks).

    Where the number is None, the card gets the heads that the checkpoint tells, and keeps its own where both are None.
    UserError if they differ or do not divide the width.
    """
    if heads is not None and told not in (None, heads):
        raise UserError(f"--heads {heads}", f"{told}, which the checkpoint's shapes show", "leave it out")
    number = heads or told
    if number is None:
        return card
    if number > card.dim or card.dim % number:
        near = ", ".join(str(n) for n in range(1, card.dim + 1) if card.dim % n == 0 and card.dim // n in USUAL_HEADS)
        raise UserError(f"--heads {number} for a width of {card.dim}", "a divisor of the width", f"for example {near}")
    return replace(card, head_dim=card.dim // number)


def _guess(dim: int, most: int = 64) -> int:
    return next((width for width in USUAL_HEADS if width <= most and dim % width == 0), dim)


def nearest_card(checkpoint: Checkpoint) -> Card:
    """Find the known model nearest to the checkpoint's width, depth and kind."""
    shapes = {key: tensor.shape for key, tensor in checkpoint.tensors.items()}
    dim = next((s[0] for key, s in shapes.items() if key in ("embedding.patches.weight", "norm.weight") and s), 1)
    depth = 1 + max((int(m[1]) for key in shapes if (m := re.match(r"layers\.(\d+)\.", key))), default=0)

    def differ(card: Card) -> float:
        return abs(log(card.dim / dim)) + abs(log(card.depth / depth)) + ((card.little_dim is None) != checkpoint.dense)

    return min(CARDS.values(), key=differ)


def _misfit(checkpoint: Checkpoint, met: str) -> UserError:
    return UserError(
        f"{checkpoint.path} holds no model known here: {met} (keys: {list_few(checkpoint.tensors)})",
        f"the tensors of a Vision Transformer; the nearest known model is {nearest_card(checkpoint).name}",
        "for another architecture take timm:NAME or package.module:build as MODEL, and the file as --weights",
    )


def fit(
    model: ViT | BLViT, checkpoint: Checkpoint, num_classes: int | None, heads_told: bool = False
) -> tuple[str, ...]:
    """Fill the model from the checkpoint, and note what was assumed.

    Notes also say what was done beyond copying. Positions of another grid are interpolated. A dense checkpoint fills
    the P stream of a BLViT, the rest keeps its random start. num_classes, if given: the head may be another one than
    the checkpoint's, and then starts anew. heads_told: the number of heads is known, not assumed. UserError naming the
    keys that are missing, unexpected or misshaped; the model is then as it was.
    """
    own, tensors = model.state_dict(), dict(checkpoint.tensors)
    notes = [*checkpoint.notes, *_describe_source(model, checkpoint, heads_told)]
    if isinstance(model, BLViT) and checkpoint.dense:
        tensors = {re.sub(r"^layers\.(\d+)\.", r"layers.\1.p.", key): tensor for key, tensor in tensors.items()}
        anew = {key: own[key] for key in own if any(re.fullmatch(pattern, key) for pattern in GROUPS)}
        tensors = anew | tensors
        notes.append(_describe_streams(anew))
    notes += _fit_head(own, tensors, num_classes)
    notes += _fit_positions(own["embedding.position"], tensors)
    misshaped = {key for key in own if key in tensors and tensors[key].shape != own[key].shape}
    do = f"check MODEL (the nearest known one is {nearest_card(checkpoint).name})"
    if "head.weight" not in tensors:
        do = "the checkpoint has no head: --num-classes N starts one"
    elif misshaped == {"head.weight", "head.bias"}:
        do = f"--num-classes {len(tensors['head.weight'])} takes the checkpoint's head, another number a new one"
    fill(model, tensors, checkpoint.path, do)
    return tuple(notes)


def _describe_source(model: ViT | BLViT, checkpoint: Checkpoint, heads_told: bool) -> list[str]:
    """What the checkpoint's shapes do not show and the model's function depends on."""
    assumed = []
    if not heads_told and checkpoint.heads is None:
        assumed.append(f"{_describe_heads(model, checkpoint)} (--heads N if it was trained with others)")
    if checkpoint.dialect != OWN:
        assumed += [
            f"pre-norm blocks with exact GELU and LayerNorm's epsilon {LAYER_NORM_EPS:g}",
            "the answer of the class token",
            "mean 0.5 and std 0.5 of images, as for the original ViT (DeiT's are ImageNet's: timm:NAME --weights FILE "
            "takes them from timm)",
        ]
    notes = []
    if assumed:
        source = "" if checkpoint.dialect == OWN else f"keys of {checkpoint.dialect}; "
        elsewhere = "; hf:FOLDER reads these from config.json" if checkpoint.dialect == "transformers" else ""
        notes.append(f"{source}assumed, since the file does not say: {'; '.join(assumed)}{elsewhere}")
    if any("dist" in key for key in checkpoint.unused):
        notes.append(
            f"distilled: {list_few(checkpoint.unused)} and the distillation token's position are not used; the answer "
            "is that of the class token alone, not the mean of two heads as trained"
        )
    elif checkpoint.unused:
        notes.append(f"not used: {list_few(checkpoint.unused)}")
    return notes


def _describe_heads(model: ViT | BLViT, checkpoint: Checkpoint) -> str:
    """Of the first layer: its one attention, or those of its P- and E-block."""
    parts = [part for part in model.layers[0].modules() if isinstance(part, Attention)]
    texts = [f"{p.heads} head{'s' * (p.heads > 1)} of {p.proj.in_features // p.heads}" for p in parts]
    return f"{texts[0]} channels" if checkpoint.dense else f"{texts[0]} (P) and {texts[1]} (E) channels"


def _describe_streams(anew: Iterable[str]) -> str:
    names = [name for pattern, name in GROUPS.items() if any(re.fullmatch(pattern, key) for key in anew)]
    return (
        f"only the P stream is from the checkpoint; {', '.join(names)} are not in it and keep their random start: "
        "train the model before its answers count (at keep 1 they are near the dense model's, below it they are not)"
    )


def _fit_head(own: dict[str, Tensor], tensors: dict[str, Tensor], num_classes: int | None) -> list[str]:
    found = tensors.get("head.weight")
    if num_classes is None or (found is not None and len(found) == num_classes):
        return []
    for key in [key for key in tensors if re.fullmatch(HEAD, key)]:
        del tensors[key]
    tensors |= {key: own[key] for key in own if key.startswith("head.")}
    before = "no head" if found is None else f"one for {len(found)}"
    return [f"the head for {num_classes} classes keeps its random start (the checkpoint has {before}): train it"]


def _fit_positions(own: Tensor, tensors: dict[str, Tensor]) -> list[str]:
    found = tensors.get("embedding.position")
    if found is None or found.dim() != 3 or found.shape == own.shape or found.shape[2] != own.shape[2]:
        return []
    before, after = isqrt(found.shape[1] - 1), isqrt(own.shape[1] - 1)
    if 1 + before**2 != found.shape[1]:
        return []
    tensors["embedding.position"] = resize_positions(found, after)
    return [f"positions were interpolated from {before} x {before} patches to {after} x {after}"]


def resize_positions(position: Tensor, grid: int) -> Tensor:
    """Resize positions to a grid.

    [1, 1 + g * g, C] -> [1, 1 + grid * grid, C]: bicubic with antialias, CLS as it was; as timm does.
    """
    cls, patches = position[:, :1], position[:, 1:]
    before = isqrt(patches.shape[1])
    image = patches.reshape(1, before, before, -1).permute(0, 3, 1, 2)  # [1, C, g, g]
    image = interpolate(image, size=(grid, grid), mode="bicubic", antialias=True)  # [1, C, grid, grid]
    return torch.cat([cls, image.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)
