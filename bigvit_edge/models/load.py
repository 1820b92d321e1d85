"""From what a user calls MODEL to a module: the one place where models are built."""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import torch
from torch import nn

from bigvit_edge.artifact import FACTORY, FILE, MOST_CLASSES, MOST_SIZE, PRETRAINED, RANDOM, SHIPPED
from bigvit_edge.errors import UserError, name_type, suggest
from bigvit_edge.models.attributes import check_keep, read_about, read_labels, read_preprocessing, read_size
from bigvit_edge.models.blvit import BLViT
from bigvit_edge.models.checkpoints import Checkpoint, read_checkpoint
from bigvit_edge.models.contract import count_classes, settle
from bigvit_edge.models.factories import call_factory, import_factory, unwrap
from bigvit_edge.models.fitting import fit, infer_card, set_heads
from bigvit_edge.models.hf_models import HF, build_hf, find_folder, read_hf_labels
from bigvit_edge.models.hf_processors import read_processor
from bigvit_edge.models.memory import require_memory
from bigvit_edge.models.timm_models import TIMM, build_timm, count_heads, import_timm, list_labels, read_license
from bigvit_edge.models.transforms import read_timm
from bigvit_edge.models.vit import ViT
from bigvit_edge.models.weights import hash_state, hash_weights, load_weights
from bigvit_edge.models.zoo import CARDS, Card
from bigvit_edge.preprocessing import Preprocessing

DEFAULT_KEEP = 0.5
MOST = {"--image-size": MOST_SIZE, "--num-classes": MOST_CLASSES, "--heads": 4096}
OURS = {"author": "bigvit-edge", "license": "Apache-2.0"}  # what is said of the models that come with weights
SEED = 0  # a model without weights starts from this, so that two exports of it are equal
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".npz", ".index.json")


@dataclass(frozen=True)
class Loaded:
    """A model ready for export, in eval mode.

    float images [B, 3, image_size, image_size], prepared as preprocessing says, -> logits [B, num_classes].

    source: as the user named it. weights: SHIPPED, RANDOM, FILE, PRETRAINED or FACTORY; weights_sha256: of the
    checkpoint file, of an hf: folder's files, or of the tensors where there is neither (PRETRAINED, FACTORY), None if
    RANDOM. notes: what the user has to know: what the checkpoint lacked and how it was initialised, positions
    interpolated, keys not used, things assumed. about: description, author, license and version, those that are known.
    """

    module: nn.Module
    source: str
    num_classes: int
    labels: tuple[str, ...] | None
    preprocessing: Preprocessing
    weights: str
    weights_sha256: str | None
    notes: tuple[str, ...] = ()
    about: Mapping[str, str] = field(default_factory=dict)

    @property
    def image_size(self) -> int:
        """Read the pixels of a side of the input."""
        return self.preprocessing.size


@dataclass(frozen=True)
class Wanted:
    """The changes that are wanted to the model's own.

    They are a checkpoint (and the name to look under in it) or PRETRAINED; pixels of a side; classes; heads of
    attention.
    """

    weights: str | Path | None
    weights_key: str | None
    image_size: int | None
    num_classes: int | None
    heads: int | None


def load(
    source: str,
    *,
    weights: str | Path | None = None,
    weights_key: str | None = None,
    image_size: int | None = None,
    num_classes: int | None = None,
    heads: int | None = None,
) -> Loaded:
    """Load the model that `source` names.

    source: one of `bigvit-edge models`, a checkpoint's path, timm:NAME, hf:FOLDER_OR_NAME, or package.module:build.

    weights: a checkpoint to fill it from, or 'pretrained' (timm alone: downloaded); weights_key: where in the
    checkpoint they are, such as 'state_dict' or 'teacher.backbone', if not where they are found. image_size in pixels,
    num_classes and heads (of attention; of a big.LITTLE model's P-blocks) replace the model's own. Without weights:
    those shipped for the demo models, a random start from a fixed seed for the others. UserError on a source that is
    none of these, and on whatever does not fit.
    """
    for what, value in (("--image-size", image_size), ("--num-classes", num_classes), ("--heads", heads)):
        if value is not None and not 1 <= value <= MOST[what]:
            raise UserError(f"{what} {value}", f"a number from 1 to {MOST[what]}")
    loader = _find_loader(source)
    if str(weights) == PRETRAINED and loader is not _load_timm:
        raise UserError(f"--weights {PRETRAINED} for {source}", "a file", f"only {TIMM}NAME has weights to download")
    if weights_key is not None and loader is not _load_checkpoint and str(weights) in ("None", PRETRAINED):
        raise UserError(f"--weights-key {weights_key}", "a checkpoint to look in", "name it with --weights")
    loaded = loader(source, Wanted(weights, weights_key, image_size, num_classes, heads))
    loaded.module.eval()
    return loaded


def is_factory(source: str) -> bool:
    """Tell whether loading the source runs the user's code.

    Such code is not ours, timm's or transformers'.
    """
    return _find_loader(source) is _load_factory


def load_model(
    name: str,
    keep: float | None = None,
    weights: str | Path | None = None,
    image_size: int | None = None,
    num_classes: int | None = None,
    *,
    weights_key: str | None = None,
    heads: int | None = None,
) -> nn.Module:
    """Load a model's module, and set its keep ratio.

    Arguments are as of `load`. keep: the share of tokens for the P-blocks, in (0, 1]; 0.5 when None. A dense model
    takes none.
    """
    module = load(
        name, weights=weights, weights_key=weights_key, image_size=image_size, num_classes=num_classes, heads=heads
    ).module
    if keep is not None:
        set_keep(module, keep)
    return module


def has_keep(module: nn.Module) -> bool:
    """Tell whether attribute `keep` is a keep ratio, in (0, 1]."""
    return read_keep(module) is not None


def read_keep(module: nn.Module) -> float | None:
    """Read the model's present keep ratio; None for one without."""
    keep = getattr(module, "keep", None)
    return float(keep) if isinstance(keep, float | int) and not isinstance(keep, bool) and 0 < keep <= 1 else None


def set_keep(module: nn.Module, keep: float) -> None:
    """Set the keep ratio from now on.

    UserError if it is not in (0, 1], or the model has none.
    """
    if not 0 < keep <= 1:
        raise UserError(f"keep {keep}", "a share of the tokens, above 0 and at most 1", "for example --keep 0.5")
    if not has_keep(module):
        raise UserError(
            f"keep {keep} for {name_type(module)}",
            "no keep ratio: the model is dense",
            "leave it out, or take a blvit_* model",
        )
    module.keep = float(keep)  # type: ignore[assignment]


def build(card: Card) -> ViT | BLViT:
    """Build the card's module at its random start, in training mode."""
    shape = dict(
        image_size=card.image_size,
        patch=card.patch,
        dim=card.dim,
        depth=card.depth,
        head_dim=card.head_dim,
        num_classes=card.num_classes,
    )
    with _seeded():
        if card.little_dim is None:
            return ViT(**shape)
        return BLViT(**shape, little_dim=card.little_dim, little_head_dim=card.little_head_dim, keep=DEFAULT_KEEP)


def _find_loader(source: str) -> Callable[..., Loaded]:
    if source.startswith(TIMM):
        return _load_timm
    if source.startswith(HF):
        return _load_hf
    if source in CARDS:
        return _load_card
    if _is_path(source):
        return _load_checkpoint
    if ":" in source:
        return _load_factory
    raise UserError(
        f"unknown model {source!r}",
        f"one of {', '.join(CARDS)}; a checkpoint's path; timm:NAME; hf:FOLDER; or package.module:build",
        suggest(source, CARDS),
    )


def _is_path(source: str) -> bool:
    return "/" in source or "\\" in source or source.lower().endswith(SUFFIXES) or Path(source).is_file()


def _load_card(source: str, wanted: Wanted) -> Loaded:
    card = _resize(CARDS[source], wanted)
    if wanted.weights is not None:
        return _fill_card(source, card, read_checkpoint(Path(wanted.weights), wanted.weights_key), wanted)
    if card.weights is None:
        return _describe(source, build(set_heads(card, wanted.heads, None)), card, RANDOM, None)
    trained = replace(wanted, heads=card.dim // card.head_dim)
    if wanted.heads not in (None, trained.heads):
        raise UserError(f"--heads {wanted.heads} for {source}", f"{trained.heads}, as it was trained", "leave it out")
    with as_file(files("bigvit_edge.demo") / card.weights) as shipped:
        loaded = _fill_card(source, card, read_checkpoint(shipped), trained)
    if card.num_classes != CARDS[source].num_classes:
        return replace(loaded, weights=RANDOM, weights_sha256=None)  # the head is, and with it every answer
    return replace(loaded, weights=SHIPPED, about=OURS)


def _load_checkpoint(source: str, wanted: Wanted) -> Loaded:
    if wanted.weights is not None:
        raise UserError(
            f"--weights {wanted.weights} for {source}", "none: MODEL is a checkpoint already", "leave it out"
        )
    checkpoint = read_checkpoint(Path(source), wanted.weights_key)
    return _fill_card(source, _resize(infer_card(checkpoint), wanted), checkpoint, wanted)


def _resize(card: Card, wanted: Wanted) -> Card:
    image_size, num_classes = wanted.image_size, wanted.num_classes
    if image_size is not None and image_size % card.patch:
        near = max(card.patch, round(image_size / card.patch) * card.patch)
        raise UserError(f"--image-size {image_size}", f"a multiple of the patch, {card.patch}", f"for example {near}")
    card = replace(card, image_size=image_size or card.image_size)
    if num_classes in (None, card.num_classes):
        return card
    return replace(card, num_classes=num_classes, labels=None)


def _fill_card(source: str, card: Card, checkpoint: Checkpoint, wanted: Wanted) -> Loaded:
    model = build(set_heads(card, wanted.heads, checkpoint.heads))
    notes = fit(model, checkpoint, wanted.num_classes, wanted.heads is not None)
    return _describe(source, model, card, FILE, hash_weights(checkpoint.path), notes)


def _describe(
    source: str, model: nn.Module, card: Card, weights: str, digest: str | None, notes: tuple[str, ...] = ()
) -> Loaded:
    how = Preprocessing(card.image_size, card.mean, card.std)
    return Loaded(model, source, card.num_classes, card.labels, how, weights, digest, notes)


def _load_timm(source: str, wanted: Wanted) -> Loaded:
    image_size, weights = wanted.image_size, wanted.weights
    pretrained = str(weights) == PRETRAINED
    import_timm()
    with _seeded():  # not the import, which draws numbers the first time alone
        model = build_timm(source.removeprefix(TIMM), image_size, wanted.num_classes, pretrained, wanted.heads)
    how = read_timm(model, source, image_size)
    kind, digest = RANDOM, None
    notes: tuple[str, ...] = ()
    if pretrained:
        kind, digest = PRETRAINED, hash_state(model)
    elif weights is not None:
        notes = load_weights(model, Path(weights), wanted.weights_key)
        if wanted.heads is None and (number := count_heads(model)):
            notes += (f"{number} heads, as timm makes it: a checkpoint does not show them (--heads N takes others)",)
        kind, digest = FILE, hash_weights(Path(weights))
    classes, said = count_classes(model.eval(), how.size, source, "take another --image-size, or leave it out")
    labels = list_labels(model, classes) if pretrained else None
    about = read_license(model) if pretrained else {}
    return Loaded(model, source, classes, labels, how, kind, digest, (*notes, *said), about)


def _load_hf(source: str, wanted: Wanted) -> Loaded:
    for what, value in (("--weights", wanted.weights), ("--heads", wanted.heads)):
        if value is not None:
            raise UserError(f"{what} {value} for {source}", "none: the folder says it", "leave it out")
    folder = find_folder(source, wanted.num_classes)
    how, of_images = read_processor(folder, wanted.image_size)
    with _seeded():
        model, notes = build_hf(folder, how.size, wanted.num_classes)
    do = "take another --image-size" if wanted.image_size else "check config.json and preprocessor_config.json"
    classes, of_answers = count_classes(model.eval(), how.size, source, do)
    labels = read_hf_labels(folder.config)
    if labels is not None and len(labels) != classes:
        of_answers = (*of_answers, f"labels left out: {len(labels)} for {classes} classes")
        labels = None
    fresh = wanted.num_classes is not None  # the head starts at random, and with it every answer
    kind, digest = (RANDOM, None) if fresh else (PRETRAINED, folder.hash_files() or hash_state(model))
    notes = (*notes, *of_images, *of_answers)
    return Loaded(model, source, classes, labels, how, kind, digest, notes)


def _load_factory(source: str, wanted: Wanted) -> Loaded:
    image_size, weights = wanted.image_size, wanted.weights
    for what, value in (("--num-classes", wanted.num_classes), ("--heads", wanted.heads)):
        if value is not None:
            raise UserError(f"{what} {value} for {source}", "none: the function decides", "leave it out")
    factory = import_factory(source)
    with _seeded():  # not the import, which draws numbers the first time alone
        model, unwrapped = unwrap(call_factory(factory, source))
    settled = settle(model, source)
    require_memory(model, source)
    kind, digest = FACTORY, hash_state(model)
    taken: tuple[str, ...] = ()
    if weights is not None:
        taken = load_weights(model, Path(weights), wanted.weights_key)
        kind, digest = FILE, hash_weights(Path(weights))
    of_keep = check_keep(model, source)
    size, of_size = read_size(model, source, image_size)
    how, of_images = read_preprocessing(model, source, size)
    classes, of_answers = count_classes(model, size, source)
    labels = read_labels(model, source, classes)
    about, of_about = read_about(model, source)
    notes = (*unwrapped, *settled, *taken, *of_keep, *of_size, *of_images, *of_answers, *of_about)
    return Loaded(model, source, classes, labels, how, kind, digest, notes, about)


@contextmanager
def _seeded() -> Iterator[None]:
    """The generators of PyTorch, NumPy and Python at the fixed seed, and afterwards where they were."""
    states = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        np.random.seed(SEED)
        random.seed(SEED)
        try:
            yield
        finally:
            np.random.set_state(states[0])
            random.setstate(states[1])
