"""What a user's module says of itself by its attributes: image size, transform, labels, keep, who made it."""

import math
from collections.abc import Callable, Container, Mapping
from enum import Enum
from typing import Any

import numpy as np
from torch import Tensor, nn

from bigvit_edge.errors import UserError
from bigvit_edge.models.contract import explain_failure
from bigvit_edge.models.transforms import INTERPOLATIONS, TIMM_CROPS, make_preprocessing, read_timm
from bigvit_edge.models.zoo import HALF
from bigvit_edge.preprocessing import Preprocessing

DEFAULT_SIZE = 224  # pixels, for a module that does not say
MOST_SHOWN = 60  # letters of a wrong value
ABOUT = ("description", "author", "license", "version")
ITSELF = {"mean": (0, 0, 0), "std": (1, 1, 1)}  # what a module says that normalises images by itself


def read_size(model: nn.Module, source: str, asked: int | None) -> tuple[int, tuple[str, ...]]:
    """Read the pixels of a side of a model's input.

    They are as asked for, else the attribute image_size, else timm's, else 224 with a note.
    """
    own = _read(model, source, "image_size", _to_size, "a number of pixels, or two equal ones: images are square")
    if own is None and isinstance(config := _get(model, source, "pretrained_cfg"), Mapping):
        own = (config.get("input_size") or (None,))[-1]
    if asked or own:
        return asked or own, ()
    return DEFAULT_SIZE, (f"the module has no attribute image_size; image_size {DEFAULT_SIZE} is assumed",)


def read_preprocessing(model: nn.Module, source: str, size: int) -> tuple[Preprocessing, tuple[str, ...]]:
    """Read the evaluation transform from a model's attributes.

    They are mean, std, crop_pct, crop_mode and interpolation; a timm model's own transform where it has none of them.
    Notes on what was assumed. UserError on values that cannot be used.
    """
    said = {
        "mean": _read(model, source, "mean", _to_triple, "three numbers"),
        "std": _read(model, source, "std", _to_triple, "three numbers"),
        "crop_pct": _read(model, source, "crop_pct", _to_share, "a share above 0"),
        "crop_mode": _read(model, source, "crop_mode", _among(TIMM_CROPS), " or ".join(TIMM_CROPS)),
        "interpolation": _read(model, source, "interpolation", _among(INTERPOLATIONS), ", ".join(INTERPOLATIONS)),
    }
    if not any(said.values()) and isinstance(_get(model, source, "pretrained_cfg"), Mapping):
        return read_timm(model, source, size), ("mean, std, crop and interpolation are those of its pretrained_cfg",)
    notes = [
        f"the module has no attribute {name}; {name} {HALF[0]} is assumed" for name in ("mean", "std") if not said[name]
    ]
    how, more = make_preprocessing(source, size, **{**said, "mean": said["mean"] or HALF, "std": said["std"] or HALF})
    return how, (*notes, *more)


def read_labels(model: nn.Module, source: str, classes: int) -> tuple[str, ...] | None:
    """Read the attribute labels, or None if there is none.

    It is a list, a tuple, an array or a dict {0: name}.
    """
    expected = f"{classes} strings, one for each class of the model"
    labels: tuple[str, ...] | None = _read(model, source, "labels", to_names, "a list of strings")
    if labels is not None and len(labels) != classes:
        shown = ", ".join(labels[:3])
        raise UserError(f"the attribute `labels` of {source} has {len(labels)} ({shown}, …)", expected, "correct it")
    return labels


def to_names(value: Any) -> tuple[str, ...] | None:
    """List class names in the order of the classes.

    Taken are a list, an array or a dict {0: name, …} or {'0': name, …}; None of anything else.
    """
    if isinstance(value, Mapping):
        by_class = {str(key): name for key, name in value.items()}
        value = [by_class.get(str(i)) for i in range(len(by_class))]
    elif isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        return None
    return tuple(map(str, value))


def read_about(model: nn.Module, source: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """Read the attributes description, author, license and version, if texts.

    By their names; and notes on those that are something else.
    """
    told = {name: value for name in ABOUT if (value := _get(model, source, name)) is not None}
    texts = {name: value for name, value in told.items() if isinstance(value, str) and value}
    others = [name for name in told if name not in texts]
    return texts, tuple(f"the attribute `{name}` of {source} is no text: taken for something else" for name in others)


def check_keep(model: nn.Module, source: str) -> tuple[str, ...]:
    """Note an attribute keep that is a number but no share.

    UserError if the attribute, which is read again and again, raises.
    """
    keep = _get(model, source, "keep")
    if _is_number(keep) and not 0 < keep <= 1:
        return (f"the attribute `keep` of {source} is {keep}, no share in (0, 1]: taken for something else",)
    return ()


def _get(model: nn.Module, source: str, name: str) -> Any:
    """The attribute; None if there is none. UserError if it is a property that raises."""
    try:
        return getattr(model, name)
    except Exception as e:
        if isinstance(e, AttributeError) and not hasattr(type(model), name):
            return None
        raise explain_failure(e, f"the attribute `{name}` of {source}", "a value") from e


def _read(model: nn.Module, source: str, name: str, convert: Callable[[Any], Any], expected: str) -> Any:
    """The attribute, converted; None if there is none. UserError if it cannot be: convert gives None."""
    value = _get(model, source, name)
    if value is None:
        return None
    if name in ITSELF and name in {*model._buffers, *model._parameters}:
        met = f"`{name}` of {source} is a tensor of the module's own, which may normalise images by itself"
        do = f"give it another name; then say {name} = {ITSELF[name]} if it does, else the numbers"
        raise UserError(met, f"{expected}, for what is done before the module", do)
    if (converted := convert(value)) is None:
        shown = str(value).replace("\n", " ")
        shown = shown if len(shown) <= MOST_SHOWN else f"{shown[:MOST_SHOWN]}…"
        raise UserError(f"the attribute `{name}` of {source} is {shown}", expected, "correct it, or take it away")
    return converted


def _to_plain(value: Any) -> Any:
    """Arrays, tensors and NumPy's numbers as lists and Python's numbers."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().float().numpy()
    if not isinstance(value, np.ndarray | np.generic):
        return value
    if value.dtype == np.float32:
        value = value.astype(str).astype(np.float64)  # 0.485, not the 0.48500001430511475 that the float32 is
    return value.squeeze().tolist()


def _to_size(value: Any) -> int | None:
    value = _to_plain(value)
    if isinstance(value, list | tuple) and len(value) == 2 and value[0] == value[1]:
        value = _to_plain(value[0])
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and value > 0 else None


def _to_triple(value: Any) -> tuple[float, ...] | None:
    value = _to_plain(value)
    numbers = [_to_plain(v) for v in value] if isinstance(value, list | tuple) else []
    return tuple(numbers) if len(numbers) == 3 and all(map(_is_number, numbers)) else None


def _to_share(value: Any) -> float | None:
    value = _to_plain(value)
    return value if _is_number(value) and value > 0 else None


def _among(known: Container[str]) -> Callable[[Any], str | None]:
    def convert(value: Any) -> str | None:
        word = value.value if isinstance(value, Enum) else value  # torchvision's InterpolationMode
        return word if isinstance(word, str) and word in known else None

    return convert


def _is_number(value: Any) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool) and math.isfinite(value)
