"""torch.save's files, by PyTorch's restricted unpickler: tensors, numbers, names. No code that a file names is run.

Trainers put more beside the tensors (argparse.Namespace, NumPy's numbers, a config of their own). For a class that
PyTorch does not know, the unpickler is given a stand-in that takes anything and keeps nothing. Of the standard library
only plain values are stood in for: a file that names exec or os.system is refused as what it is.
"""

import re
import sys
import warnings
from _compat_pickle import IMPORT_MAPPING
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch

from bigvit_edge.errors import UserError, name_type

PLAIN = re.compile(  # of the standard library
    r"(argparse\.Namespace|types\.SimpleNamespace|functools\.partial|typing\.\w+|enum\.\w+|uuid\.\w+|inspect\._empty"
    r"|decimal\.Decimal|fractions\.Fraction|(pathlib|datetime|zoneinfo|collections)\.[\w.]*"  # none: cut short
    r"|builtins\.(int|float|complex|bool|str|bytes|bytearray|list|tuple|dict|set|frozenset|slice|range|object|type))"
)
UNKNOWN = re.compile(r"(?:Unsupported global: GLOBAL (\S+) was not|unsupported GLOBAL (\S+) whose module)")
SOURCE = "Only persistent_load of storage"  # an old file's module, saved with its source
FILLED = re.compile(r"Can only (SETITEM|append|extend).* but got <class '(\S+)'>")
ADVICE = "WeightsUnpickler error:"  # before it, PyTorch advises what does not apply here
MOST_KINDS = 200  # of stand-ins: each costs another reading
SAVE = "where it was made: torch.save(model.state_dict(), ...), or safetensors.torch.save_file"


class StandIn:
    """An object of a class that is not read."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


class StandInMapping:
    """A mapping of a class that is not read.

    The unpickler fills it.
    """

    def __new__(cls, *_: object) -> OrderedDict[object, object]:  # type: ignore[misc]
        return OrderedDict()


class StandInList:
    """A sequence of a class that is not read."""

    def __new__(cls, *_: object) -> list[object]:  # type: ignore[misc]
        return []


def read_pickle(path: Path) -> Mapping[object, object]:
    """Read the names and tensors of a file by torch.save.

    They stay nested. UserError on a whole module, on one that names code, and on what is no mapping; whatever damaged
    bytes raise.
    """
    stand_ins: dict[str, type] = {}
    for _ in range(MOST_KINDS):
        try:
            with torch.serialization.safe_globals([(kind, name) for name, kind in stand_ins.items()]):
                content = _load(path)
            break
        except UnpicklingError as e:
            if not _add_stand_in(stand_ins, str(e), path):
                raise UnpicklingError(str(e).rpartition(ADVICE)[2].strip()) from e
    else:
        raise UserError(f"{path} names over {MOST_KINDS} classes", "a state dict: names and tensors", SAVE)
    if isinstance(content, Mapping):
        return content
    if isinstance(content, StandIn):
        raise _refuse_module(path, type(content).__name__)
    raise UserError(f"{path} holds {name_type(content)}", "a state dict: names and tensors", SAVE)


def _load(path: Path) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, of its own storage classes
        return torch.load(path, map_location="cpu", weights_only=True)


def _add_stand_in(stand_ins: dict[str, type], fault: str, path: Path) -> bool:
    """Whether what the unpickler stopped at can be stood in for; UserError if it is code."""
    if filled := FILLED.search(fault):
        kind = StandInMapping if filled[1] == "SETITEM" else StandInList
        if filled[2] not in stand_ins or stand_ins[filled[2]].__bases__ == (kind,):
            return False
        stand_ins[filled[2]] = _make_kind(filled[2], kind)
        return True
    if SOURCE in fault:
        raise _refuse_module(path, "module")
    unknown = UNKNOWN.search(fault)
    if unknown is None:
        return False
    name = unknown[1] or unknown[2]
    names = [name if "." in name else f"builtins.{name}", *_list_unknown(path)]  # PyTorch leaves that away
    code = [name for name in names if _is_standard(name.rpartition(".")[0]) and not PLAIN.fullmatch(name)]
    if code and any(name.startswith("torch.nn.modules.") for name in names):
        raise _refuse_module(path, "module")
    if code:
        met = f"{path} is a pickle with code in it ({code[0]}), which was not executed"
        raise UserError(met, "tensors only", SAVE)
    stand_ins |= {name: _make_kind(name, StandIn) for name in names if name not in stand_ins}
    return True


def _list_unknown(path: Path) -> list[str]:
    """All of a file's classes that PyTorch does not know, so that it need not be read once for each; none of an older
    file, which is read as far as the next alone.
    """
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except (ValueError, UnpicklingError):
        return []


def _is_standard(module: str) -> bool:
    """Of the standard library, by its name there or in Python 2, which pickle writes where there is one."""
    return IMPORT_MAPPING.get(module, module).partition(".")[0] in sys.stdlib_module_names


def _make_kind(name: str, base: type) -> type:
    module, _, own = name.rpartition(".")
    return type(own, (base,), {"__module__": module})


def _refuse_module(path: Path, kind: str) -> UserError:
    met = f"{path} holds a whole {kind}, an object that only its own code can read (it was not executed)"
    return UserError(met, "a state dict: names and tensors", SAVE)
