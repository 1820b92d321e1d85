"""Weights in and out: safetensors, PyTorch files read by the restricted unpickler, and NumPy archives without objects:
nothing read here can run code.
"""

import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from bigvit_edge.errors import UserError

SHOWN = 5  # keys listed in an error


def read_weights(path: Path) -> dict[str, Tensor]:
    """A checkpoint's tensors by key, in float32. Accepts .safetensors, .npz, and state dicts saved by torch.save, also
    under the key 'model' or 'state_dict'. UserError if the file is missing, cut short, holds something else, or is a
    pickle with code (which is not executed).
    """
    if not path.is_file():
        raise UserError(f"no file {path}", "a .safetensors or PyTorch checkpoint", "check the path")
    try:
        tensors = _find_reader(path)(path)
    except UserError:
        raise
    except Exception as e:  # damaged bytes make the readers raise anything: KeyError, IndexError, struct.error
        fault = f"{path} cannot be read as tensors ({_first_line(e)}; nothing in it was executed)"
        raise UserError(fault, "a whole .safetensors, .npz or PyTorch checkpoint", "copy or download it again") from e
    for key, tensor in tensors.items():
        if not tensor.numel() or tensor.is_complex():
            met = f"{path}: {key} is {list(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"
            raise UserError(met, "real numbers, at least one", "check how the file was made")
    return {key: t.float() if t.is_floating_point() else t for key, t in tensors.items()}


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill the model from a checkpoint; UserError naming the first missing, unexpected or misshaped keys. All or
    nothing.
    """
    fill(model, read_weights(path), path)


def fill(model: nn.Module, found: Mapping[str, Tensor], path: Path, do: str = "check MODEL") -> None:
    """load_weights with tensors that were read from `path`; do: what an error advises."""
    wanted = model.state_dict()
    missing = [key for key in wanted if key not in found]
    unknown = [key for key in found if key not in wanted]
    misshaped = [
        f"{key} {list(found[key].shape)} instead of {list(wanted[key].shape)}"
        for key in wanted
        if key in found and found[key].shape != wanted[key].shape
    ]
    faults = [
        _list_keys(*fault)
        for fault in (("missing", missing), ("unexpected", unknown), ("misshaped", misshaped))
        if fault[1]
    ]
    if faults:
        raise UserError(
            f"{path} does not fit: {'; '.join(faults)}",
            f"the {len(wanted)} keys of {type(model).__name__}",
            do,
        )
    model.load_state_dict(found)


def save_weights(model: nn.Module, path: Path, metadata: dict[str, str]) -> None:
    """The model's tensors in float16 (half the size; read back as float32), written beside and then renamed."""
    part = path.with_name(path.name + ".part")
    save_file({key: t.half().contiguous() for key, t in model.state_dict().items()}, part, metadata)
    part.replace(path)


def _list_keys(what: str, keys: list[str]) -> str:
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return f"{len(keys)} {what} ({', '.join(keys[:SHOWN])}{more})"


def hash_weights(path: Path) -> str:
    """sha256 of a checkpoint file, in hex. UserError if there is none."""
    if not path.is_file():
        raise UserError(f"no file {path}", "a checkpoint", "check the path")
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def hash_state(model: nn.Module) -> str:
    """sha256 of a model's tensors: names, shapes, types and bytes, in the order of the state dict. In hex."""
    digest = hashlib.sha256()
    for key, tensor in model.state_dict().items():
        digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _find_reader(path: Path) -> Callable[[Path], dict[str, Tensor]]:
    if path.suffix == ".npz":
        return _read_npz
    return _read_safetensors if _is_safetensors(path) else _read_torch


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


def _read_torch(path: Path) -> dict[str, Tensor]:
    from pickle import UnpicklingError

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as e:
        if "Unsupported global" not in str(e):
            raise
        raise UserError(
            f"{path} is a pickle with code in it ({_first_line(e)}), which was not executed",
            "tensors only",
            "save it with safetensors.torch.save_file(model.state_dict(), ...)",
        ) from e
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content or not all(isinstance(t, Tensor) for t in content.values()):
        raise UserError(
            f"{path} holds a {type(content).__name__}", "a state dict: names and tensors", "save model.state_dict()"
        )
    return content


def read_metadata(path: Path) -> dict[str, str]:
    """The string metadata of a safetensors file."""
    with path.open("rb") as f:
        (length,) = struct.unpack("<Q", f.read(8))
        return dict(json.loads(f.read(length)).get("__metadata__", {}))


def _first_line(e: BaseException) -> str:
    """The error's own first words; PyTorch goes on with advice that does not apply here."""
    text = str(e).split("WeightsUnpickler error:")[-1].strip()
    return f"{type(e).__name__}: {text.splitlines()[0][:160]}" if text else type(e).__name__
