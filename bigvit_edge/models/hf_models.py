"""Image classifiers that transformers can read: a folder as it saves one, or a name on the Hugging Face hub.

Only transformers' own classes are made, and weights are read without running code from them: nothing of the folder's
is executed. A folder is read without a network.
"""

import hashlib
import inspect
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bigvit_edge.errors import UserError, describe_error, list_few, name_type
from bigvit_edge.models.attributes import to_names
from bigvit_edge.models.torchvision_ops import define_torchvision_ops
from bigvit_edge.models.weights import hash_weights

HF = "hf:"  # in front of a folder, or of a name on the hub
NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
FILES = (  # of a folder: what says which model it is
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "pytorch_model*.bin",
    "pytorch_model.bin.index.json",
)
UNKNOWN = (
    "does not recognize this architecture",
    "Unrecognized model in",
    "Unrecognized configuration class",
)  # in what transformers says of a model that it does not know


class Classifier(nn.Module):
    """A transformers classifier that answers with its logits.

    images [B, 3, S, S] -> [B, classes]. interpolate: its positions, to another image size than its own.
    """

    def __init__(self, model: nn.Module, interpolate: bool) -> None:
        super().__init__()
        self.model = model
        self.options = {"interpolate_pos_encoding": True} if interpolate else {}

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(pixel_values=images, **self.options).logits
        return logits


@dataclass(frozen=True)
class Folder:
    """The model folder that `hf:` names, found.

    where: as transformers takes it; local: it is a folder, read without a network; config: its description, of
    transformers' own class.
    """

    source: str
    where: str
    local: bool
    config: Any

    @property
    def options(self) -> dict[str, Any]:
        """List the arguments for each of transformers' from_pretrained."""
        return {"trust_remote_code": False, "local_files_only": self.local}

    def hash_files(self) -> str | None:
        """Hash the folder's files that say which model it is.

        It is the sha256 of their lines 'sha256  name'; None of a hub's name.
        """
        if not self.local:
            return None
        found = sorted({path for pattern in FILES for path in Path(self.where).glob(pattern) if path.is_file()})
        return hashlib.sha256("".join(f"{hash_weights(path)}  {path.name}\n" for path in found).encode()).hexdigest()


def import_transformers() -> Any:
    """Import the package transformers.

    UserError with what to install where it is missing.
    """
    try:
        define_torchvision_ops()
        with silence_transformers():
            return import_module("transformers")
    except ModuleNotFoundError as e:
        met = f"{e.name} is not installed"
        raise UserError(met, "the packages for Hugging Face's models", "pip install 'bigvit-edge[hf]'") from e


@contextmanager
def silence_transformers() -> Iterator[None]:
    """Silence transformers while the block runs.

    It and what it imports log of their own internals, and draw a bar for each file.
    """
    disabled = logging.root.manager.disable
    logging.disable(max(disabled, logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def find_folder(source: str, num_classes: int | None) -> Folder:
    """Read the config.json of what `hf:FOLDER_OR_NAME` names.

    num_classes: of a new head, in place of its own. UserError on a path that is no such folder, a hub that cannot be
    reached, a model that wants code of its own, is quantised, or is none of transformers' image classifiers.
    """
    where = source.removeprefix(HF)
    local = bool(where) and Path(where).is_dir()
    if local and not (Path(where) / "config.json").is_file():
        raise UserError(f"no config.json in {where}", "a folder as transformers' save_pretrained writes it", "check it")
    if not local and not NAME.fullmatch(where):
        raise UserError(f"no folder {where}", "a folder, or a name on the hub such as google/vit-base-patch16-224")
    transformers = import_transformers()
    folder = Folder(source, where, local, None)
    classes = {} if num_classes is None else {"num_labels": num_classes}
    try:
        with silence_transformers():
            transformers.utils.logging.disable_progress_bar()
            config = transformers.AutoConfig.from_pretrained(where, **folder.options, **classes)
    except Exception as e:  # ValueError on an unknown type, OSError without a network, anything on damaged JSON
        raise explain_reading(folder, e) from e
    if getattr(config, "quantization_config", None):
        met = f"{source} is quantised ({' '.join(str(config.quantization_config).split())[:80]})"
        raise UserError(met, "a model in float", "name the one that it was made of; --set precisions=int8 quantises")
    known = transformers.AutoModelForImageClassification._model_mapping
    if type(config) not in known:
        met = f"{source} is a {config.model_type}, of which transformers has no image classifier"
        raise UserError(met, "a model for image classification", "wrap it in a function: package.module:build")
    return Folder(source, where, local, config)


def explain_reading(folder: Folder, e: Exception) -> UserError:
    """Explain why transformers could not read something.

    It is the network, code of the folder's own, or damage.
    """
    if "trust_remote_code" in str(e):
        met = f"{folder.source} wants code of its own, which was not run"
        return UserError(met, "a model of transformers' own classes", "write a function: package.module:build")
    if any(words in str(e) for words in UNKNOWN):
        met = f"{folder.source} is of a kind that the installed transformers has no image classifier of"
        return UserError(
            f"{met} ({describe_error(e)})", "a model of AutoModelForImageClassification", "see its config.json"
        )
    if folder.local:
        expected = "a whole folder as transformers' save_pretrained writes it"
        return UserError(f"{folder.source} cannot be read ({describe_error(e)})", expected, "copy or download it again")
    met = f"{folder.source} is no folder here, and cannot be had from the hub ({describe_error(e)})"
    return UserError(met, "a folder, or a name that can be downloaded", "without a network, name a folder")


def build_hf(folder: Folder, image_size: int, num_classes: int | None) -> tuple[Classifier, tuple[str, ...]]:
    """Build the classifier with its weights, in float32; and notes.

    image_size: where it is not the model's own, positions are interpolated. num_classes: the head may start at random.
    UserError if the files lack other weights.
    """
    transformers = import_transformers()
    if folder.local and not any(any(Path(folder.where).glob(pattern)) for pattern in FILES[3:]):
        raise UserError(f"no weights in {folder.where}", "model.safetensors or pytorch_model.bin", "copy them there")
    try:
        with silence_transformers():
            model, told = transformers.AutoModelForImageClassification.from_pretrained(
                folder.where, config=folder.config, dtype=torch.float32, weights_only=True, output_loading_info=True,
                ignore_mismatched_sizes=True, **folder.options,
            )  # fmt: skip
    except Exception as e:  # as in find_folder; a pickle with code in it, too
        raise explain_reading(folder, e) from e
    sizes = sorted(told["mismatched_keys"])
    misshaped = [f"{key} {list(found)} instead of {list(wanted)}" for key, found, wanted in sizes]
    missing = sorted(told["missing_keys"])
    fresh, notes = [*missing, *misshaped], []
    if fresh and (num_classes is None or not all("classifier" in name or "head" in name for name in fresh)):
        met = f"{folder.source} lacks weights of {name_type(model)}: {list_few(fresh)}"
        raise UserError(met, "all of them", "take a folder of a trained classifier, or --num-classes N for a new head")
    if getattr(folder.config, "auto_map", None):
        notes.append(f"config.json names code of its own, which was not run; {type(model).__name__} is taken")
    if fresh:
        notes.append(f"not in the files, so at a random start: {list_few(fresh)}")
    if unused := sorted(told["unexpected_keys"]):
        notes.append(f"in the files, and not used: {list_few(unused)}")
    interpolate = "interpolate_pos_encoding" in inspect.signature(model.forward).parameters and image_size != getattr(
        folder.config, "image_size", image_size
    )
    if interpolate:
        notes.append(f"positions interpolated from {folder.config.image_size} px to {image_size}")
    return Classifier(model, interpolate), tuple(notes)


def read_hf_labels(config: Any) -> tuple[str, ...] | None:
    """Read the names in id2label.

    None where they are transformers' LABEL_0, LABEL_1 and so on.
    """
    labels = to_names(config.id2label)
    return None if labels is None or all(re.fullmatch(r"LABEL_\d+", name) for name in labels) else labels
