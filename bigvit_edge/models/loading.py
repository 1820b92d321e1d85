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

from bigvit_edge.artifact import FACTORY, FILE, MOST_SIZE, PRETRAINED, RANDOM, SHIPPED
from bigvit_edge.errors import UserError, name_type, suggest
from bigvit_edge.models.attributes import check_keep, read_about, read_labels, read_preprocessing, read_size, read_task
from bigvit_edge.models.blvit import BLViT
from bigvit_edge.models.checkpoint_matching import fit, infer_config, set_heads
from bigvit_edge.models.checkpoints import Checkpoint, read_checkpoint
from bigvit_edge.models.contract import observe_answer, settle
from bigvit_edge.models.factories import call_factory, import_factory, unwrap
from bigvit_edge.models.hf_models import HF, build_hf, find_folder, read_hf_labels
from bigvit_edge.models.hf_processors import read_processor
from bigvit_edge.models.memory import require_memory
from bigvit_edge.models.timm_models import TIMM, build_timm, count_heads, import_timm, list_labels, read_license
from bigvit_edge.models.transforms import read_timm
from bigvit_edge.models.vit import ViT
from bigvit_edge.models.weights import hash_state, hash_weights, load_weights
from bigvit_edge.models.zoo import CONFIGS, Config
from bigvit_edge.preprocessing import Preprocessing
from bigvit_edge.signature import IMAGE, Signature, Tensor
from bigvit_edge.tasks import CLASSIFICATION, FEATURES, find_task
from bigvit_edge.tasks.classification import MOST_CLASSES, OUTPUTS

DEFAULT_KEEP = 0.5
MOST = {"--image-size": MOST_SIZE, "--num-classes": MOST_CLASSES, "--heads": 4096}
OURS = {"author": "bigvit-edge", "license": "Apache-2.0"}  # what is said of the models that come with weights
SEED = 0  # a model without weights starts from this, so that two exports of it are equal
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".npz", ".index.json")


@dataclass(frozen=True)
class Loaded:
    """A model ready for export, in eval mode.

    float images [B, 3, image_size, image_size], prepared as preprocessing says, -> its answer.

    answer: of one image; task: of bigvit_edge.tasks, what that means. source: as the user named it. weights: SHIPPED,
    RANDOM, FILE, PRETRAINED or FACTORY; weights_sha256: of the checkpoint file, of an hf: folder's files, or of the
    tensors where there is neither (PRETRAINED, FACTORY), None if RANDOM. notes: what the user has to know: what the
    checkpoint lacked and how it was initialised, positions interpolated, keys not used, things assumed. about:
    description, author, license and version, those that are known.
    """

    module: nn.Module
    source: str
    answer: Tensor
    labels: tuple[str, ...] | None
    preprocessing: Preprocessing
    weights: str
    weights_sha256: str | None
    notes: tuple[str, ...] = ()
    about: Mapping[str, str] = field(default_factory=dict)
    task: str = CLASSIFICATION

    @property
    def signature(self) -> Signature:
        """Tell what the model takes and gives, of one image."""
        return Signature((Tensor(IMAGE, self.preprocessing.shape),), (self.answer,))

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
    task: str | None = None


def load(
    source: str,
    *,
    weights: str | Path | None = None,
    weights_key: str | None = None,
    image_size: int | None = None,
    num_classes: int | None = None,
    heads: int | None = None,
    task: str | None = None,
) -> Loaded:
    """Load the model that `source` names.

    source: one of `bigvit-edge models`, a checkpoint's path, timm:NAME, hf:FOLDER_OR_NAME, or package.module:build.

    weights: a checkpoint to fill it from, or 'pretrained' (timm alone: downloaded); weights_key: where in the
    checkpoint they are, such as 'state_dict' or 'teacher.backbone', if not where they are found. image_size in pixels,
    num_classes and heads (of attention; of a big.LITTLE model's P-blocks) replace the model's own. Without weights:
    those shipped for the demo models, a random start from a fixed seed for the others. task: of bigvit_edge.tasks; the
    model's own where None. UserError on a source that is
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
    if task is not None:
        find_task(task)
        if num_classes is not None and task != CLASSIFICATION:
            raise UserError(f"--num-classes {num_classes} for --task {task}", "none: it has no classes", "leave it out")
        if task != CLASSIFICATION and loader in (_load_card, _load_checkpoint):
            met = f"--task {task} for {source}, which is a classifier"
            raise UserError(met, "a model without a head", "write a function that returns one: package.module:build")
    loaded = loader(source, Wanted(weights, weights_key, image_size, num_classes, heads, task))
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


def build(config: Config) -> ViT | BLViT:
    """Build the config's module at its random start, in training mode."""
    shape = dict(
        image_size=config.image_size,
        patch=config.patch,
        dim=config.dim,
        depth=config.depth,
        head_dim=config.head_dim,
        num_classes=config.num_classes,
    )
    with _seeded():
        if config.little_dim is None:
            return ViT(**shape)
        return BLViT(**shape, little_dim=config.little_dim, little_head_dim=config.little_head_dim, keep=DEFAULT_KEEP)


def _find_loader(source: str) -> Callable[..., Loaded]:
    if source.startswith(TIMM):
        return _load_timm
    if source.startswith(HF):
        return _load_hf
    if source in CONFIGS:
        return _load_card
    if _is_path(source):
        return _load_checkpoint
    if ":" in source:
        return _load_factory
    raise UserError(
        f"unknown model {source!r}",
        f"one of {', '.join(CONFIGS)}; a checkpoint's path; timm:NAME; hf:FOLDER; or package.module:build",
        suggest(source, CONFIGS),
    )


def _is_path(source: str) -> bool:
    return "/" in source or "\\" in source or source.lower().endswith(SUFFIXES) or Path(source).is_file()


def _load_card(source: str, wanted: Wanted) -> Loaded:
    config = _resize(CONFIGS[source], wanted)
    if wanted.weights is not None:
        return _fill_config(source, config, read_checkpoint(Path(wanted.weights), wanted.weights_key), wanted)
    if config.weights is None:
        return _describe(source, build(set_heads(config, wanted.heads, None)), config, RANDOM, None)
    trained = replace(wanted, heads=config.dim // config.head_dim)
    if wanted.heads not in (None, trained.heads):
        raise UserError(f"--heads {wanted.heads} for {source}", f"{trained.heads}, as it was trained", "leave it out")
    with as_file(files("bigvit_edge.demo") / config.weights) as shipped:
        loaded = _fill_config(source, config, read_checkpoint(shipped), trained)
    if config.num_classes != CONFIGS[source].num_classes:
        return replace(loaded, weights=RANDOM, weights_sha256=None)  # the head is, and with it every answer
    return replace(loaded, weights=SHIPPED, about=OURS)


def _load_checkpoint(source: str, wanted: Wanted) -> Loaded:
    if wanted.weights is not None:
        raise UserError(
            f"--weights {wanted.weights} for {source}", "none: MODEL is a checkpoint already", "leave it out"
        )
    checkpoint = read_checkpoint(Path(source), wanted.weights_key)
    return _fill_config(source, _resize(infer_config(checkpoint), wanted), checkpoint, wanted)


def _resize(config: Config, wanted: Wanted) -> Config:
    image_size, num_classes = wanted.image_size, wanted.num_classes
    if image_size is not None and image_size % config.patch:
        near = max(config.patch, round(image_size / config.patch) * config.patch)
        raise UserError(f"--image-size {image_size}", f"a multiple of the patch, {config.patch}", f"for example {near}")
    config = replace(config, image_size=image_size or config.image_size)
    if num_classes in (None, config.num_classes):
        return config
    return replace(config, num_classes=num_classes, labels=None)


def _fill_config(source: str, config: Config, checkpoint: Checkpoint, wanted: Wanted) -> Loaded:
    model = build(set_heads(config, wanted.heads, checkpoint.heads))
    notes = fit(model, checkpoint, wanted.num_classes, wanted.heads is not None)
    return _describe(source, model, config, FILE, hash_weights(checkpoint.path), notes)


def _describe(
    source: str, model: nn.Module, config: Config, weights: str, digest: str | None, notes: tuple[str, ...] = ()
) -> Loaded:
    how = Preprocessing(config.image_size, config.mean, config.std)
    answer = Tensor(OUTPUTS[0], (1, config.num_classes))
    return Loaded(model, source, answer, config.labels, how, weights, digest, notes)


def _load_timm(source: str, wanted: Wanted) -> Loaded:
    image_size, weights = wanted.image_size, wanted.weights
    pretrained = str(weights) == PRETRAINED
    import_timm()
    with _seeded():  # not the import, which draws numbers the first time alone
        classes = 0 if wanted.task == FEATURES else wanted.num_classes  # which leaves the head away
        model = build_timm(source.removeprefix(TIMM), image_size, classes, pretrained, wanted.heads)
    task, of_task = read_task(model, source, wanted.task)
    how = read_timm(model, source, image_size)
    kind, digest = RANDOM, None
    notes: tuple[str, ...] = of_task
    if pretrained:
        kind, digest = PRETRAINED, hash_state(model)
    elif weights is not None:
        notes += load_weights(model, Path(weights), wanted.weights_key)
        if wanted.heads is None and (number := count_heads(model)):
            notes += (f"{number} heads, as timm makes it: a checkpoint does not show them (--heads N takes others)",)
        kind, digest = FILE, hash_weights(Path(weights))
    do = "take another --image-size, or leave it out"
    answer, said = observe_answer(model.eval(), how.size, source, task, do)
    labels = list_labels(model, answer.shape[-1]) if pretrained and find_task(task).LABELLED else None
    about = read_license(model) if pretrained else {}
    return Loaded(model, source, answer, labels, how, kind, digest, (*notes, *said), about, task)


def _load_hf(source: str, wanted: Wanted) -> Loaded:
    for what, value in (("--weights", wanted.weights), ("--heads", wanted.heads)):
        if value is not None:
            raise UserError(f"{what} {value} for {source}", "none: the folder says it", "leave it out")
    folder = find_folder(source, wanted.num_classes, wanted.task)
    how, of_images = read_processor(folder, wanted.image_size)
    with _seeded():
        model, notes = build_hf(folder, how.size, wanted.num_classes)
    do = "take another --image-size" if wanted.image_size else "check config.json and preprocessor_config.json"
    answer, of_answers = observe_answer(model.eval(), how.size, source, folder.task, do)
    labels = read_hf_labels(folder.config) if find_task(folder.task).LABELLED else None
    if labels is not None and len(labels) != answer.shape[-1]:
        of_answers = (*of_answers, f"labels left out: {len(labels)} for {answer.shape[-1]} classes")
        labels = None
    fresh = wanted.num_classes is not None  # the head starts at random, and with it every answer
    kind, digest = (RANDOM, None) if fresh else (PRETRAINED, folder.hash_files() or hash_state(model))
    notes = (*notes, *of_images, *of_answers)
    return Loaded(model, source, answer, labels, how, kind, digest, notes, task=folder.task)


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
    task, of_task = read_task(model, source, wanted.task)
    answer, of_answers = observe_answer(model, size, source, task)
    labels = read_labels(model, source, answer.shape[-1]) if find_task(task).LABELLED else None
    about, of_about = read_about(model, source)
    notes = (*unwrapped, *settled, *taken, *of_keep, *of_size, *of_images, *of_task, *of_answers, *of_about)
    return Loaded(model, source, answer, labels, how, kind, digest, notes, about, task)


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
