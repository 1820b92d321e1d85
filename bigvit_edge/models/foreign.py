"""Models of others: timm's by name, and whatever a user's own factory returns."""

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import library, nn

from bigvit_edge.errors import UserError, suggest
from bigvit_edge.models.traces import find_line

TIMM = "timm:"  # in front of a name in timm's registry
SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
kept: list[library.Library] = []  # what a Library defined goes when it does


def import_timm() -> Any:
    """The package timm. UserError with what to install where it, or torchvision, is missing."""
    try:
        define_torchvision_ops()
        return import_module("timm")
    except ModuleNotFoundError as e:
        met = f"{e.name} is not installed"
        raise UserError(met, "the packages for timm's models", "pip install 'bigvit-edge[timm]'") from e


def define_torchvision_ops() -> None:
    """Let torchvision be imported where its compiled extension does not load (its wheel is made for another build of
    PyTorch): it describes two ops on import, which must exist by then. No model here uses them.
    """
    spec = find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations or kept:
        return
    for extension in Path(spec.submodule_search_locations[0]).glob("_C*"):
        try:
            torch.ops.load_library(str(extension))  # type: ignore[no-untyped-call]
            return
        except OSError:
            continue
    ops = library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for op in ("nms", "qnms"):
        ops.define(op + SCHEMA)  # type: ignore[no-untyped-call]
    kept.append(ops)


def build_timm(name: str, image_size: int | None, num_classes: int | None, pretrained: bool) -> nn.Module:
    """A model of timm's registry, optionally with a tag ('vit_tiny_patch16_224.augreg_in21k'), at a random start or, if
    pretrained, with the weights that timm downloads. Its `pretrained_cfg` says mean, std and input size.

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
    if image_size is not None and timm.models.get_pretrained_cfg_value(plain, "fixed_input_size"):
        wanted["img_size"] = image_size
    try:
        return timm.create_model(name, pretrained=pretrained, **wanted)  # type: ignore[no-any-return]
    except Exception as e:  # timm's models raise anything: AssertionError, TypeError, RuntimeError, OSError
        met = f"timm cannot make {name}" + (f" with {wanted}" if wanted else "") + f" ({first_line(e)})"
        if pretrained:
            do = "without a network, take --weights FILE"
            raise UserError(met, "a model whose weights can be downloaded", do) from e
        raise UserError(met, "sizes that the model takes", "leave out --image-size and --num-classes") from e


def list_labels(model: nn.Module, classes: int) -> tuple[str, ...] | None:
    """ImageNet's names, if that is what timm says the model was trained on."""
    data = import_timm().data
    subset = data.infer_imagenet_subset(model)
    if not subset:
        return None
    info = data.ImageNetInfo(subset)
    return tuple(map(info.index_to_description, range(classes))) if info.num_classes() == classes else None


def import_factory(source: str) -> Callable[[], object]:
    """The function that `package.module:build` names, from the working directory or the installed packages. UserError
    if there is no such module or function, or if importing it raises (the line in the user's source is named).
    """
    module_name, _, function_name = source.partition(":")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)  # as `python -m` does; stays, for imports inside the factory
    try:
        module = import_module(module_name)
    except (Exception, SystemExit) as e:  # a script without a __main__ guard may end the program
        if isinstance(e, ModuleNotFoundError) and e.name and f"{module_name}.".startswith(f"{e.name}."):
            near = suggest(module_name, [path.stem for path in Path.cwd().glob("*.py")])
            raise UserError(f"no module {module_name}", "one in the working directory or installed", near) from e
        raise _explain(e, f"importing {module_name}") from e
    factory = getattr(module, function_name, None)
    if not callable(factory) or isinstance(factory, nn.Module):
        kind = "nothing of that name" if factory is None else f"a {type(factory).__name__}"
        names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        do = suggest(function_name, names)
        raise UserError(f"{source} is {kind}", "a function without arguments that returns a torch.nn.Module", do)
    return factory  # type: ignore[no-any-return]


def call_factory(factory: Callable[[], object], source: str) -> nn.Module:
    """The model that a user's function returns. UserError if it raises (the line in the user's source is named), or
    returns no model.
    """
    try:
        model = factory()
    except (Exception, SystemExit) as e:
        raise _explain(e, f"{source}()") from e
    if not isinstance(model, nn.Module):
        raise UserError(f"{source}() returned a {type(model).__name__}", "a torch.nn.Module")
    return model


def count_classes(model: nn.Module, image_size: int, source: str) -> int:
    """Classes that the model answers with, by running it once. UserError unless it takes images [1, 3, S, S] and gives
    logits [1, classes].
    """
    try:
        with torch.no_grad():
            logits = model.eval()(torch.zeros(1, 3, image_size, image_size))
    except (Exception, SystemExit) as e:
        raise _explain(e, f"{source} on an image [1, 3, {image_size}, {image_size}]") from e
    if not isinstance(logits, torch.Tensor) or logits.dim() != 2 or len(logits) != 1 or not logits.numel():
        met = f"a tensor {list(logits.shape)}" if isinstance(logits, torch.Tensor) else f"a {type(logits).__name__}"
        raise UserError(f"{source} answers one image with {met}", "logits [1, classes]", "wrap it in such a module")
    return logits.shape[1]


def _explain(e: BaseException, doing: str) -> UserError:
    line = find_line(e)
    where = f" at {line}" if line else ""
    return UserError(f"{doing} raised {first_line(e)}{where}", "a model", "correct the source")


def first_line(e: BaseException) -> str:
    """The kind of error and its first words."""
    text = str(e).strip()
    return f"{type(e).__name__}: {text.splitlines()[0][:160]}" if text else type(e).__name__
