"""What a model of others must be: dense float tensors on the CPU, an image in, logits out."""

import sys
from contextlib import redirect_stdout
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from bigvit_edge.errors import UserError, describe_error, name_type
from bigvit_edge.models.memory import check_memory
from bigvit_edge.models.traces import find_line, list_causes

PLAIN = "a module of Python code with float tensors, dense and on the CPU"
QUANTIZED = "return the float model: the export quantises, by --set precisions=int8"


def settle(model: nn.Module, source: str) -> tuple[str, ...]:
    """Put a model in eval mode and float32; note what changed.

    UserError, which names the tensor or module, on what cannot be exported: quantised, TorchScript, lazy, on another
    device or without numbers, sparse; and where eval() raises.
    """
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise _refuse(name, source, "is TorchScript", "return the module that it was made of")
        if type(module).__module__.startswith("torch.ao.nn.") and ".quantized." in f"{type(module).__module__}.":
            raise _refuse(name, source, f"is quantised ({type(module).__name__})", QUANTIZED)
    tensors: list[tuple[str, Tensor]] = [*model.named_parameters(), *model.named_buffers()]
    for name, tensor in tensors:
        if fault := _find_fault(tensor):
            raise _refuse(name, source, *fault)
    try:
        model.eval()
    except Exception as e:
        if isinstance(model, torch.fx.GraphModule):  # torch.export's own refuse to change their mode
            met = f"{source} is a graph that torch.export made, which stays in the mode that it was made in"
            raise UserError(met, "a module that goes into eval mode", "return the module that it was made of") from e
        raise explain_failure(e, f"eval() of {source}") from e
    others = [
        str(t.dtype).removeprefix("torch.") for _, t in tensors if t.is_floating_point() and t.dtype != torch.float32
    ]
    if not others:
        return ()
    model.float()
    return (f"{len(others)} of its tensors were {' and '.join(sorted(set(others)))}; they are taken in float32",)


def _find_fault(tensor: Tensor) -> tuple[str, str] | None:
    """What is wrong with a tensor, and what to do about it."""
    if is_lazy(tensor):
        return "is not initialised yet (a lazy module)", "run the model on an image before returning it"
    if tensor.device.type == "meta":
        return "is on the meta device, where there are no numbers", "build it on the CPU"
    if tensor.device.type != "cpu":
        return f"is on {tensor.device}", "return model.cpu()"
    if tensor.is_quantized or is_traceable_wrapper_subclass(tensor):
        return f"is quantised, or of a type of its own ({type(tensor).__name__})", QUANTIZED
    if isinstance(tensor, nn.Parameter) and not (tensor.is_floating_point() or tensor.is_complex()):
        return f"is a parameter of {str(tensor.dtype).removeprefix('torch.')}", QUANTIZED
    if tensor.layout != torch.strided:
        return f"is sparse ({str(tensor.layout).removeprefix('torch.')})", "keep it dense, by to_dense()"
    return None


def _refuse(name: str, source: str, what: str, do: str) -> UserError:
    return UserError(f"{name + ' of ' if name else ''}{source} {what}", PLAIN, do)


def count_classes(
    model: nn.Module, image_size: int, source: str, do: str = "correct the source"
) -> tuple[int, tuple[str, ...]]:
    """Count a model's classes by running it on two images; and notes.

    UserError unless it takes an image [1, 3, S, S] and answers with logits [1, classes] in float32. do: what to do
    where it raises.
    """
    check_memory(model, image_size)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 1, 3, image_size, image_size, generator=generator, dtype=torch.float32)
    try:
        with torch.no_grad(), redirect_stdout(sys.stderr):
            first, second = map(model, images)
    except KeyboardInterrupt:
        raise
    except BaseException as e:  # SystemExit and GeneratorExit among them
        doing = f"{source} on an image [1, 3, {image_size}, {image_size}]"
        raise explain_failure(e, doing, f"a model of RGB images of {image_size} px", do) from e
    if not isinstance(first, Tensor) or first.dim() != 2 or len(first) != 1 or not first.numel():
        met, do = f"{source} answers one image with {_describe(first)}", "wrap it in a module that returns these alone"
        raise UserError(met, "logits [1, classes]", do)
    if first.dtype != torch.float32 or first.layout != torch.strided:
        kind = "" if first.layout == torch.strided else "sparse "
        met = f"{source} answers with {kind}{str(first.dtype).removeprefix('torch.')}"
        do = "end forward by .float()" if first.is_floating_point() else "return the logits, before any argmax"
        raise UserError(met, "logits in float32", do)
    classes = first.shape[1]
    if classes > 1 and all(_is_distribution(answer) for answer in (first, second)):
        note = "the model answers with probabilities, as after a softmax; `run` takes a softmax of them once more"
        return classes, (f"{note}: leave the model's own out",)
    return classes, ()


def _is_distribution(answer: Tensor) -> bool:
    return bool((answer >= 0).all()) and abs(float(answer.sum()) - 1) < 1e-3


def _describe(answer: Any) -> str:
    if isinstance(answer, Tensor):
        return f"a tensor {list(answer.shape)}"
    if isinstance(answer, dict):
        return f"{name_type(answer)} of {', '.join(map(str, answer))}"
    kind = type(answer).__name__
    return f"a {kind} of {len(answer)}" if isinstance(answer, tuple | list) else f"a {kind}"


def explain_failure(
    e: BaseException, doing: str, expected: str = "a model", do: str = "correct the source"
) -> UserError:
    """Name what raised and the user's line, or blame the installation.

    It is blamed where it is at fault.
    """
    line = find_line(e)
    where = f" at {line}" if line else ""
    met = f"{doing} raised {describe_error(e)}{where}"
    if any(word in str(link) for link in list_causes(e) for word in ("torchvision::", "torchvision versions")):
        met = (
            f"{doing}: the compiled ops of the installed torchvision do not load beside torch {version('torch')}{where}"
        )
        return UserError(met, "a torchvision of the same build as torch", "install that, or do without those ops")
    if isinstance(e, ModuleNotFoundError) and e.name:
        do = f"install the package of {e.name}, or {do}"
    return UserError(met, expected, do)
