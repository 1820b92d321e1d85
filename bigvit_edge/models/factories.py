"""A user's own function that returns a model: found, imported, called."""

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, redirect_stdout
from importlib import import_module
from pathlib import Path

from torch import nn

from bigvit_edge.errors import UserError, lacks_memory, name_type, suggest
from bigvit_edge.models.contract import explain_failure
from bigvit_edge.models.memory import GIB, SHARE, bound_memory, measure_free
from bigvit_edge.models.torchvision_ops import define_torchvision_ops
from bigvit_edge.models.traces import list_causes

FUNCTION = "a function without arguments that returns a torch.nn.Module"
WRAPPERS = {  # PyTorch's classes around a module that compute the same -> the attribute that holds it
    "OptimizedModule": "_orig_mod",
    "DataParallel": "module",
    "DistributedDataParallel": "module",
}


def import_factory(source: str) -> Callable[[], object]:
    """Import the function that `package.module:build` names.

    It is looked for in the working directory and the installed packages. UserError if there is no such module or
    function, or if importing it raises (the line in the user's source is named).
    """
    module_name, _, function_name = source.partition(":")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)  # as `python -m` does; stays, for imports inside the factory
    define_torchvision_ops()  # the user's code, timm and transformers import torchvision
    try:
        with chdir("."), redirect_stdout(sys.stderr):  # back to where the user's other paths are told from
            module = import_module(module_name)
    except KeyboardInterrupt:
        raise
    except BaseException as e:  # a script without a __main__ guard may end the program
        if isinstance(e, ModuleNotFoundError) and e.name and f"{module_name}.".startswith(f"{e.name}."):
            near = suggest(module_name, [path.stem for path in Path.cwd().glob("*.py")])
            raise UserError(f"no module {module_name}", "one in the working directory or installed", near) from e
        raise explain_failure(e, f"importing {module_name}") from e
    factory = getattr(module, function_name, None)
    if not callable(factory) or isinstance(factory, nn.Module):
        kind = "nothing of that name" if factory is None else name_type(factory)
        names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise UserError(f"{source} is {kind}", FUNCTION, suggest(function_name, names))
    if needed := _list_needed(factory):
        do = f"write one that calls it: def build(): return {function_name}({', '.join(f'{n}=...' for n in needed)})"
        raise UserError(f"{source} needs arguments ({', '.join(needed)})", FUNCTION, do)
    return factory  # type: ignore[no-any-return]


def _list_needed(factory: Callable[..., object]) -> list[str]:
    """Arguments without a default."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (ValueError, TypeError):  # a builtin's
        return []
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in several]


def call_factory(factory: Callable[[], object], source: str) -> nn.Module:
    """Call a user's function for its model.

    UserError if it raises (the line in the user's source is named), takes more memory than there is, or returns no
    model.
    """
    with bound_memory(), _explained(f"{source}()"), chdir("."), redirect_stdout(sys.stderr):
        model = factory()
    if not isinstance(model, nn.Module):
        kind, do = name_type(model), "return the module alone"
        if isinstance(model, type):
            kind, do = f"the class {model.__name__}", f"return {model.__name__}()"
        raise UserError(f"{source}() returned {kind}", "a torch.nn.Module", do)
    return model


@contextmanager
def _explained(doing: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as e:  # SystemExit and GeneratorExit among them
        free = measure_free()
        refused = any(lacks_memory(link) for link in list_causes(e))
        if refused and free is not None:
            met = f"{doing} takes more than {SHARE:.0%} of the free memory ({free / GIB:.1f} GiB)"
            raise UserError(met, "room for an export's copies", "take a larger machine, or a smaller model") from e
        raise explain_failure(e, doing) from e


def unwrap(model: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """Take torch.compile and DataParallel off a model, wherever in it.

    Returns the model, and a note of each kind taken off.
    """
    taken: set[str] = set()

    def bare(module: nn.Module) -> nn.Module:
        while (kind := type(module)).__name__ in WRAPPERS and kind.__module__.startswith("torch."):
            taken.add(kind.__name__)
            module = getattr(module, WRAPPERS[kind.__name__])
        return module

    model = bare(model)
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child is not None and (inside := bare(child)) is not child:
                parent._modules[name] = inside
        if parent._compiled_call_impl is not None:
            taken.add("compile()")
            parent._compiled_call_impl = None
    return model, tuple(f"{name} was taken off: the export needs the module inside" for name in sorted(taken))
