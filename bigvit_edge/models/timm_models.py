"""Models of timm's registry, and what timm says of them."""

from importlib import import_module
from typing import Any

from torch import nn

from bigvit_edge.errors import UserError, describe_error, suggest
from bigvit_edge.models.torchvision_ops import define_torchvision_ops

TIMM = "timm:"  # in front of a name in timm's registry


def import_timm() -> Any:
    """Import the package timm.

    UserError with what to install where it, or torchvision, is missing.
    """
    try:
        define_torchvision_ops()
        return import_module("timm")
    except ModuleNotFoundError as e:
        met = f"{e.name} is not installed"
        raise UserError(met, "the packages for timm's models", "pip install 'bigvit-edge[timm]'") from e


def build_timm(
    name: str, image_size: int | None, num_classes: int | None, pretrained: bool, heads: int | None = None
) -> nn.Module:
    """Build a model of timm's registry.

    name: optionally with a tag ('vit_tiny_patch16_224.augreg_in21k'). At a random start or, if pretrained, with the
    weights that timm downloads. Its `pretrained_cfg` says mean, std and input size.

    UserError on a name or tag that timm does not have, one that leads elsewhere ('hf-hub:…'), sizes that the model
    refuses, and a download that fails.
    """
    timm = import_timm()
    plain, _, tag = name.partition(".")
    if not timm.is_model(plain):
        known = suggest(plain, timm.list_models()) or "python -c 'import timm; print(timm.list_models())' lists them"
        raise UserError(f"timm has no model {plain!r}", f"one of its {len(timm.list_models())} names", known)
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{plain}.*")]
    if tag and tag not in tags:
        raise UserError(f"timm's {plain} has no weights {tag!r}", ", ".join(tags) or "no tag", suggest(tag, tags))
    wanted: dict[str, object] = {} if num_classes is None else {"num_classes": num_classes}
    if heads is not None:
        wanted["num_heads"] = heads
    if image_size is not None and timm.models.get_pretrained_cfg_value(plain, "fixed_input_size"):
        wanted["img_size"] = image_size
    try:
        model: nn.Module = timm.create_model(name, pretrained=pretrained, **wanted)
    except Exception as e:  # timm's models raise anything: AssertionError, TypeError, RuntimeError, OSError
        met = f"timm cannot make {name}" + (f" with {wanted}" if wanted else "") + f" ({describe_error(e)})"
        if pretrained:
            do = "without a network, take --weights FILE"
            raise UserError(met, "a model whose weights can be downloaded", do) from e
        raise UserError(met, "sizes that the model takes", "leave out --image-size, --num-classes, --heads") from e
    if heads is not None and count_heads(model) != heads:  # some take any option and do nothing with it
        raise UserError(f"--heads {heads} for {TIMM}{name}", "none: it has heads of its own", "leave it out")
    return model


def count_heads(model: nn.Module) -> int | None:
    """Count the heads of attention.

    None where not all layers have the same number, or there are none.
    """
    numbers = {number for module in model.modules() if isinstance(number := getattr(module, "num_heads", None), int)}
    return numbers.pop() if len(numbers) == 1 else None


def list_labels(model: nn.Module, classes: int) -> tuple[str, ...] | None:
    """List ImageNet's names, if timm says the model was trained on it."""
    data = import_timm().data
    subset = data.infer_imagenet_subset(model)
    if not subset:
        return None
    info = data.ImageNetInfo(subset)
    return tuple(map(info.index_to_description, range(classes))) if info.num_classes() == classes else None


def read_license(model: nn.Module) -> dict[str, str]:
    """Read the license that timm names for its weights, if any."""
    license_ = (getattr(model, "pretrained_cfg", None) or {}).get("license")
    return {"license": license_} if license_ else {}
