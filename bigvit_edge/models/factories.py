"""A user's own function that returns a model: found, imported, called."""

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from torch import nn

from bigvit_edge.errors import UserError, suggest
from bigvit_edge.models.contract import explain_failure


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
        raise explain_failure(e, f"importing {module_name}") from e
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
        raise explain_failure(e, f"{source}()") from e
    if not isinstance(model, nn.Module):
        raise UserError(f"{source}() returned a {type(model).__name__}", "a torch.nn.Module")
    return model
