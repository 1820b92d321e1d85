"""Weights in and out: safetensors, PyTorch files read by the restricted unpickler, NumPy archives without objects, and
indexes over several such files. Nothing read here can run code.
"""

import hashlib
import json
import re
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from bigvit_edge.artifact import hash_file
from bigvit_edge.errors import UserError, describe_error, list_few
from bigvit_edge.models.file_kinds import refuse_other_kinds
from bigvit_edge.models.pickles import read_pickle
from bigvit_edge.models.state_dicts import choose, convert_tensors, describe_keys, flatten

INDEX = ".index.json"  # of several files, by Hugging Face's convention


def read_entries(path: Path) -> dict[str, object]:
    """Read all that a checkpoint holds, by dotted key (see flatten).

    Tensors are as they were saved; what else there is comes along. Accepts .safetensors, .npz, torch.save's files, and
    an index of such files. UserError if it is missing, cut short, of another kind, or is a pickle with code (which is
    not executed).
    """
    if not path.is_file():
        what = f"{path} is a folder" if path.is_dir() else f"no file {path}"
        raise UserError(what, "a .safetensors or PyTorch checkpoint", "check the path")
    try:
        refuse_other_kinds(path)
        found = dict(_find_reader(path)(path))
    except UserError:
        raise
    except Exception as e:  # damaged bytes make the readers raise anything: KeyError, IndexError, struct.error
        fault = f"{path} cannot be read as tensors ({describe_error(e)}; nothing in it was executed)"
        raise UserError(fault, "a whole .safetensors, .npz or PyTorch checkpoint", "copy or download it again") from e
    if not any(isinstance(value, Tensor) for value in found.values()):
        met = f"{path} holds no tensors by name ({describe_keys(found)})"
        raise UserError(met, "a state dict: names and tensors", "save model.state_dict()")
    return found


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a checkpoint by key, floating ones in float32.

    UserError as of read_entries, and on tensors without plain numbers.
    """
    return convert_tensors(read_entries(path), lambda _: False, path)


def load_weights(model: nn.Module, path: Path, key: str | None = None) -> tuple[str, ...]:
    """Fill the model from a checkpoint, all or nothing; return notes.

    The notes say what the user has to know. key: where in the file to look, dotted. Wrappers and prefixes are taken off
    (see choose). UserError naming the first missing, unexpected or misshaped keys, or those without sound numbers.
    """
    wanted = _list_wanted(model)
    found = read_entries(path)
    chosen, notes = choose(found, wanted.__contains__, path, key, least=len(wanted) // 2 + 1)
    if not wanted.keys() & chosen.keys():
        met = f"{path} has none of the {len(wanted)} keys of {type(model).__name__}; it has {describe_keys(found)}"
        raise UserError(met, f"keys such as {list_few(wanted, 3)}", "check MODEL")
    part = re.search(r"-\d+-of-\d+\.", path.name)
    do = "name the index of all its parts (*.index.json)" if part else "check MODEL, --num-classes and --image-size"
    fill(model, convert_tensors(chosen, wanted.__contains__, path), path, do)
    return notes


def fill(model: nn.Module, found: Mapping[str, Tensor], path: Path, do: str) -> None:
    """Fill the model with a file's tensors, all or nothing.

    path: what they were read from; do: what an error advises.
    """
    wanted = _list_wanted(model)
    misshaped = [
        f"{key} {list(found[key].shape)} instead of {list(wanted[key].shape)}"
        for key in wanted
        if key in found and found[key].shape != wanted[key].shape
    ]
    faults = {
        "missing": [key for key in wanted if key not in found],
        "unexpected": [key for key in found if key not in wanted],
        "misshaped": misshaped,
    }
    if any(faults.values()):
        listed = "; ".join(f"{len(keys)} {what} ({list_few(keys)})" for what, keys in faults.items() if keys)
        raise UserError(f"{path} does not fit: {listed}", f"the {len(wanted)} keys of {type(model).__name__}", do)
    _check_numbers(wanted, found, path)
    model.load_state_dict(found, strict=False)  # an extra state, which is no tensor, stays the model's own


def _check_numbers(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path) -> None:
    """UserError on integers where floating numbers are wanted, and on NaN or infinity where the model has none."""
    whole = [
        f"{key} of {str(found[key].dtype).removeprefix('torch.')}"
        for key, own in wanted.items()
        if own.is_floating_point() and not found[key].is_floating_point()
    ]
    if whole:
        met = f"{path} has other numbers than weights: {list_few(whole)}"
        raise UserError(met, "floating ones", "save the weights as they were trained; the export itself quantises")
    wild = {key: int((~found[key].isfinite()).sum()) for key, own in wanted.items() if own.isfinite().all()}
    listed = [f"{key} ({count} of {wanted[key].numel()})" for key, count in wild.items() if count]
    if listed:
        met = f"{path} has numbers that are NaN or infinite: {list_few(listed)}"
        raise UserError(met, "finite weights", "the checkpoint is damaged or its training diverged: take another")


def _list_wanted(model: nn.Module) -> dict[str, Tensor]:
    """The model's own tensors, without extra states of other types."""
    return {key: tensor for key, tensor in model.state_dict().items() if isinstance(tensor, Tensor)}


def save_weights(model: nn.Module, path: Path, metadata: dict[str, str]) -> None:
    """Save the model's tensors in float16, half the size.

    They are read back as float32. The file is written beside and then renamed.
    """
    part = path.with_name(f".bigvit-edge.{path.name}.part")  # which no file of the user's is called
    save_file({key: t.half().contiguous() for key, t in model.state_dict().items()}, part, metadata)
    part.replace(path)


def hash_weights(path: Path) -> str:
    """Compute the sha256 of a checkpoint file, in hex.

    An index's is that of lines 'sha256  name', its own and its files', in order. UserError if there is no such file.
    """
    if not path.is_file():
        raise UserError(f"no file {path}", "a checkpoint", "check the path")
    if not path.name.endswith(INDEX):
        return hash_file(path)
    files = [path, *(path.parent / name for name in sorted(set(_read_index(path).values())))]
    lines = "".join(f"{hash_file(file)}  {file.name}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def hash_state(model: nn.Module) -> str:
    """Compute the sha256 of a model's tensors, in hex.

    Names, shapes, types and bytes are hashed, in the order of the state dict. What else the state dict holds (a
    module's extra state) is not in it.
    """
    digest = hashlib.sha256()
    for key, value in model.state_dict().items():
        if isinstance(value, Tensor):
            digest.update(f"{key} {tuple(value.shape)} {value.dtype}\n".encode())
            plain = value.detach().cpu().resolve_conj().resolve_neg().contiguous()
            digest.update(plain.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _find_reader(path: Path) -> Callable[[Path], Mapping[str, object]]:
    if path.name.endswith(INDEX):
        return _read_shards
    if path.suffix == ".npz":
        return _read_npz
    return _read_safetensors if _is_safetensors(path) else _read_torch


def _read_torch(path: Path) -> dict[str, object]:
    return flatten(read_pickle(path), path)


def _read_npz(path: Path) -> dict[str, Tensor]:
    with np.load(path, allow_pickle=False) as archive:
        return {key: torch.from_numpy(archive[key]) for key in archive.files}


def _is_safetensors(path: Path) -> bool:
    """By its name, or by its header: a little-endian length and then JSON."""
    with path.open("rb") as f:
        return path.suffix == ".safetensors" or f.read(10)[8:9] == b"{"


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    with safe_open(path, framework="pt") as f:
        return {key: f.get_tensor(key) for key in f.keys()}  # noqa: SIM118  safe_open is no mapping


def _read_shards(path: Path) -> dict[str, object]:
    """The entries that an index names, each from its own file, which lies beside it."""
    places = _read_index(path)
    found: dict[str, object] = {}
    for name in sorted(set(places.values())):
        shard = read_entries(path.parent / name)
        keys = [key for key in places if places[key] == name]
        if lost := [key for key in keys if key not in shard]:
            met = f"{path.parent / name} lacks {list_few(lost)}, which {path.name} has in it"
            raise UserError(met, "the files that were saved together", "copy or download them again")
        found |= {key: shard[key] for key in keys}
    return found


def _read_index(path: Path) -> dict[str, str]:
    """File names by key. UserError if a file lies elsewhere than beside the index, or is not there."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        content = None
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        met = f"{path} has no weight_map, which says in which file each tensor is"
        raise UserError(met, "an index of a checkpoint's files", "copy or download it again")
    for name in sorted(set(places.values())):
        if Path(name).name != name or name.endswith(".json"):
            raise UserError(
                f"{path} names the file {name!r}", "the name of a checkpoint beside it", "put them together"
            )
        if not (path.parent / name).is_file():
            there = f"{path.parent / name} is not there, and {path.name} names it"
            raise UserError(there, "every file of the checkpoint", "copy or download it too")
    return places


def read_metadata(path: Path) -> dict[str, str]:
    """Read the string metadata of a safetensors file."""
    with path.open("rb") as f:
        (length,) = struct.unpack("<Q", f.read(8))
        return dict(json.loads(f.read(length)).get("__metadata__", {}))
