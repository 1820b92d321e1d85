"""What a file is that is given as a checkpoint and is none, by its first bytes or the names inside a zip."""

import re
import zipfile
from pathlib import Path

from bigvit_edge.errors import UserError

SAVE = "save the PyTorch model's state_dict() with torch.save or safetensors"
CONVERT = "convert its weights to a PyTorch state dict first"
KINDS = (  # what the first bytes match, what that is, what to do
    (rb"\Z", "empty", "copy or download it again"),
    (rb"version https://git-lfs", "a Git LFS pointer, not the file that it stands for", "git lfs pull"),
    (rb"\s*<(!DOCTYPE|!doctype|html|\?xml)", "a web page", "download the file itself"),
    (rb"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes", CONVERT),
    (rb".{4}TFL3", "a LiteRT (TensorFlow Lite) model", SAVE),
    (rb".{4}ET\d\d", "an ExecuTorch program", SAVE),
    (rb"GGUF", "a GGUF file", CONVERT),
    (rb"\x1f\x8b|\xfd7zXZ|7z\xbc\xaf|\x28\xb5\x2f\xfd|BZh", "a compressed file", "unpack it first"),
)
SUFFIXES = {
    ".onnx": ("an ONNX model", SAVE),
    ".h5": ("a Keras file", CONVERT),
    ".msgpack": ("a Flax checkpoint", CONVERT),
    ".pb": ("a TensorFlow graph", CONVERT),
    ".pdparams": ("a PaddlePaddle checkpoint", CONVERT),
    ".mlmodel": ("a Core ML model", SAVE),
}
ZIP = b"PK\x03\x04"  # what torch.save's files and .npz begin with
TEXT = re.compile(rb"[\t\n\r -~]+")
TENSORFLOW = re.compile(r".*(\.data-\d+-of-\d+|\.index|\.meta)")  # a checkpoint's parts
MEMBERS = (  # what a name inside a zip ends with
    (
        r"constants\.pkl|code/.*\.py",
        "a TorchScript program",
        "save its state dict: torch.save(torch.jit.load(FILE).state_dict(), ...)",
    ),
    (
        r"archive_format|serialized_exported_program\.json",
        "a program of torch.export",
        "save its state dict: torch.save(torch.export.load(FILE).state_dict, ...)",
    ),
    (r"model\.weights\.h5", "a Keras model", CONVERT),
)


def refuse_other_kinds(path: Path) -> None:
    """Refuse a file that is known to be no checkpoint.

    UserError naming its kind; nothing where that is not known.
    """
    with path.open("rb") as f:
        head = f.read(32)
    if head[8:9] == b"{":  # safetensors: in front stands a length, which can be any bytes
        return
    kind = next(((what, do) for pattern, what, do in KINDS if re.match(pattern, head, re.DOTALL)), None)
    kind = kind or SUFFIXES.get(path.suffix.lower()) or _name_zip(path, head)
    if not kind and TEXT.fullmatch(head) and path.suffix != ".json":  # of which an index is
        kind = "a text", SAVE
    if not kind and path.suffix == ".safetensors" and head.startswith((ZIP, b"\x80")):
        kind = "a PyTorch file under another's name", "rename it to .pth"
    if TENSORFLOW.fullmatch(path.name) and not kind:
        kind = "a part of a TensorFlow checkpoint", CONVERT
    if kind:
        raise UserError(f"{path} is {kind[0]}", "a .safetensors, .npz or PyTorch checkpoint", kind[1])


def _name_zip(path: Path, head: bytes) -> tuple[str, str] | None:
    if not zipfile.is_zipfile(path):
        cut = head.startswith(ZIP[: len(head)])
        return ("cut short: of a checkpoint as zip, the end is missing", "copy or download it again") if cut else None
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    for pattern, what, do in MEMBERS:
        if any(re.search(rf"(^|/)({pattern})$", name) for name in names):
            return what, do
    plain = path.suffix != ".npz" and not any(re.search(r"(^|/)data\.pkl$", name) for name in names)
    return (f"a zip file ({', '.join(names[:3])})", "unpack it first") if plain else None
