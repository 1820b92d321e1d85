"""What an export leaves behind: model files and the manifest that describes them."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigvit_edge.errors import UserError, suggest
from bigvit_edge.measures import Accuracy, Confusion, Coverage, Evaluated, Parity, Span
from bigvit_edge.preprocessing import FLOAT32, Preprocessing
from bigvit_edge.signature import Array, Run, Signature, Tensor
from bigvit_edge.target import (
    DELEGATES,
    DEPLOYMENTS,
    DISPATCHES,
    FORMATS,
    INPUTS,
    MOST_THREADS,
    PRECISIONS,
    TENSOR,
    Limits,
    Quant,
)

Pixels = NDArray[np.uint8]  # RGB, [..., S, S, 3]

MANIFEST = "manifest.json"
SAMPLES = "use"  # the folder of samples in a bundle
VERSION = 5  # of the manifest's layout
SUFFIXES = {".bve": "bve", ".tflite": "litert", ".onnx": "onnx", ".pte": "executorch"}  # of files that run here
PACKAGES = ("coreml",)  # formats whose file is a package, which is a folder
MOST_SIZE = 4096  # of an image's side: more is taken for a mistake
# Where a model's weights come from; FACTORY: whatever the user's own function put there.
WEIGHTS = SHIPPED, RANDOM, FILE, PRETRAINED, FACTORY = "shipped", "random", "file", "pretrained", "factory"


@dataclass(frozen=True)
class Leftover:
    """An op that the intended unit (delegate, accelerator) does not take.

    Given are its name, the module it belongs to, its share of the model's multiply-accumulates in 0..1, and why it was
    not taken.
    """

    op: str
    layer: str
    mac_share: float
    reason: str


@dataclass(frozen=True)
class Method:
    """One entry point of a file.

    name: as the file has it; keep: its keep ratio (None: the model has none). delegates: pieces that the intended unit
    got; fragments: in how many of them each layer ('layers.3') is; coverage: what is in which precision, empty in a
    manifest of version 2; conversions: between float and int8 on ranges, on the way of one image, None in an older one;
    spans: of an int8-full file, the range of every value.
    """

    name: str
    keep: float | None
    delegates: int
    leftovers: tuple[Leftover, ...]
    fragments: dict[str, int]
    coverage: tuple[Coverage, ...] = field(default=(), kw_only=True)
    conversions: int | None = field(default=None, kw_only=True)
    spans: tuple[Span, ...] = field(default=(), kw_only=True)


@dataclass(frozen=True)
class Artifact:
    """A lowered model.

    data: the file's bytes, or of a package (a folder) its files' by relative path; tools: versions of what made it;
    evaluated: its own runtime is another system's, so here our evaluator stands in for it; layers: the precision of
    what it quantises besides the Linears of the graph; products: that of products of two activations, by the name of
    the module around them ('': the model), where they are not float; unchecked: why the evaluator cannot say what it
    answers, '' if it can; names: what the file calls inputs and outputs that have another name in the model.
    """

    format: str
    precision: str
    data: bytes | dict[str, bytes]
    methods: tuple[Method, ...]
    tools: dict[str, str]
    evaluated: bool = False
    layers: Mapping[str, str] = field(default_factory=dict)
    products: Mapping[str, str] = field(default_factory=dict)
    unchecked: str = ""
    names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Runner:
    """An entry point of a file, ready to run in its runtime.

    signature: what the file itself declares; -1 in a place that it leaves open. words: what it says of itself, of
    Subject's metadata, where it can be asked. before_softmax: of a file that ends with a softmax of ours, the same run
    to what that is given.
    """

    run: Run
    signature: Signature
    words: Mapping[str, str] = field(default_factory=dict)
    before_softmax: Run | None = None

    def __call__(self, array: NDArray[Any]) -> Array:
        """Run the one array that it takes to the one that it gives."""
        (answer,) = self.run({self.signature.inputs[0].name: array}).values()
        return answer


@dataclass(frozen=True)
class Verified(Method):
    """An entry point and how well it does.

    parity is None in a file that is unchecked, accuracy where nobody says what the images show too; confusions: of the
    user's pictures, the classes it does worst.
    """

    parity: Parity | None
    accuracy: Accuracy | None
    confusions: tuple[Confusion, ...] = field(default=(), kw_only=True)


@dataclass(frozen=True)
class Entry:
    """One file of a bundle, or package (a folder).

    sha256 and bytes are its own (see hash_file); layers: the precision of each quantised Linear, by its module's name;
    evaluated: see Artifact; unchecked: why it was kept without being compared with PyTorch, '' if it was compared.
    """

    file: str
    format: str
    precision: str
    sha256: str
    bytes: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    preprocessing: Preprocessing
    labels: tuple[str, ...] | None
    methods: tuple[Verified, ...]
    layers: dict[str, str]
    tools: dict[str, str]
    evaluated: bool = False
    unchecked: str = ""

    def __post_init__(self) -> None:
        if not self.methods:
            raise ValueError(f"file {self.file!r} has no methods")
        reserved = ("", "..", MANIFEST, SAMPLES)
        if Path(self.file).name != self.file or self.file in reserved or not self.file.isprintable():
            raise ValueError(f"file {self.file!r} is not in the bundle")
        shapes = [tensor.shape for tensor in (*self.inputs, *self.outputs)]
        if not self.inputs or not self.outputs or min(map(min, filter(None, shapes)), default=1) < 1:
            raise ValueError(f"inputs and outputs of shapes {shapes}, where at least one of each is expected")
        if self.preprocessing.size > MOST_SIZE:
            raise ValueError(f"an input {self.inputs[0]}, where an image has at most {MOST_SIZE} pixels")
        if (self.inputs[0].shape, self.inputs[0].dtype) != (self.preprocessing.shape, self.preprocessing.dtype):
            raise ValueError(f"{self.preprocessing} does not make an input of {self.inputs[0]}")
        if others := [str(tensor) for tensor in self.outputs if tensor.dtype != FLOAT32]:
            raise ValueError(f"an output of {', '.join(others)}, where one in {FLOAT32} is expected")
        if bool(self.unchecked) != any(method.parity is None for method in self.methods):
            raise ValueError(f"file {self.file!r} is unchecked and says how well it does, or neither")
        if self.unchecked and not self.evaluated:
            raise ValueError(f"file {self.file!r} is unchecked, where its runtime can check it")
        if len({method.name for method in self.methods}) < len(self.methods):
            raise ValueError(f"file {self.file!r} has two methods of one name")
        if not all(method.keep is None or 0 < method.keep <= 1 for method in self.methods):
            raise ValueError(f"file {self.file!r} has a keep ratio that is not above 0 and at most 1")
        if self.format not in FORMATS or self.precision not in PRECISIONS:
            raise ValueError(f"{self.format} {self.precision} is no format and precision of this version")

    @property
    def signature(self) -> Signature:
        """Tell what the file takes and gives."""
        return Signature(self.inputs, self.outputs)


@dataclass(frozen=True)
class Manifest:
    """The content of a bundle's manifest.json.

    task: what the model is for, of bigvit_edge.tasks; before version 5 there was classification alone;
    model, image_size, num_classes, weights_key, heads: as they were given to the export, None if they were not;
    weights: 'shipped', 'random', 'file', 'pretrained' or 'factory'; weights_sha256: of the checkpoint, or of the
    tensors where there is none, None if random; dispatch, delegate, deployment, quant, limits, threads: the target's,
    limits being what `check` holds the files to; pictures: the user's own, if they were given; calibrated: the
    beginnings of the sha256 of those that it was calibrated on; samples: the sha256 of each, by its path ('use/...');
    extras: that of each file beside the models which other libraries read, by its name; an older manifest has neither;
    input: what the files take, as of Target; sha256: of the manifest itself, before this was added; None in one of
    version 2.
    """

    model: str
    image_size: int | None
    num_classes: int | None
    target: str
    dispatch: str
    delegate: str
    deployment: str
    quant: Quant
    weights: str
    weights_sha256: str | None
    limits: Limits
    threads: int
    artifacts: tuple[Entry, ...]
    weights_key: str | None = None
    heads: int | None = None
    pictures: Evaluated | None = None
    calibrated: tuple[str, ...] = ()
    samples: dict[str, str] = field(default_factory=dict)
    extras: dict[str, str] = field(default_factory=dict)
    input: str = TENSOR
    task: str = "classification"
    version: int = VERSION
    sha256: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.threads <= MOST_THREADS or not self.artifacts:
            raise ValueError(f"{self.threads} threads, {len(self.artifacts)} artifacts; at least one of each is needed")
        if len({entry.file for entry in self.artifacts}) < len(self.artifacts):
            raise ValueError("two artifacts of one file")
        for name in self.samples:
            if PurePosixPath(name).parts != (SAMPLES, PurePosixPath(name).name) or not name.isprintable():
                raise ValueError(f"sample {name!r}, which is not in {SAMPLES}/")
        taken = {"", "..", MANIFEST, SAMPLES, *(entry.file for entry in self.artifacts)}
        for name in self.extras:
            if Path(name).name != name or name in taken or not name.isprintable():
                raise ValueError(f"file {name!r} is not in the bundle, or another's")
        for what, word, known in (
            ("dispatch", self.dispatch, DISPATCHES), ("delegate", self.delegate, DELEGATES),
            ("deployment", self.deployment, DEPLOYMENTS), ("weights", self.weights, WEIGHTS),
            ("input", self.input, INPUTS),
        ):  # fmt: skip
            if word not in known:
                raise ValueError(f"{what} {word!r}, where one of {', '.join(known)} is expected")

    @property
    def trained(self) -> bool:
        """Tell whether the weights mean anything."""
        return self.weights != RANDOM


def find_format(path: Path) -> str:
    """Find the format of a model file that runs here.

    By its ending. UserError if it is not there, is no file, or ends otherwise.
    """
    known = ", ".join(SUFFIXES)
    expected = f"a model file, which ends in {known}"
    if not os.path.lexists(path):
        raise UserError(f"no {path}", expected, "check the path")
    if path.suffix not in SUFFIXES:
        met = f"{path}, whose runtime is not one of this system" if path.suffix == ".mlpackage" else str(path)
        near = suggest(path.suffix, SUFFIXES) if len(path.suffix) > 4 else ""
        raise UserError(met, expected, near or "name a file of a bundle")
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "a pipe, a device or a link to nothing"
        raise UserError(f"{path}, which is {kind}", expected, "check the path")
    return SUFFIXES[path.suffix]


def write_data(data: bytes | dict[str, bytes], path: Path) -> None:
    """Write an artifact's data as a file or a package (a folder)."""
    for name, content in data.items() if isinstance(data, dict) else [("", data)]:
        file = path / name if name else path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def list_data(path: Path) -> list[Path]:
    """List a file itself, or a package's files in order of name.

    UserError if something there is neither file nor folder, or leads elsewhere: reading it could take forever.
    """
    found = sorted(path.rglob("*")) if path.is_dir() else []
    for file in (path, *found):
        if (file.is_symlink() and file is not path) or not (file.is_file() or file.is_dir()):
            raise UserError(f"{file} is a link or a device", "plain files and folders", "export the model again")
    return [file for file in found if file.is_file()] if path.is_dir() else [path]


def hash_file(path: Path) -> str:
    """Compute the sha256 of a file or package, in hex.

    A package's is that of the lines 'sha256  relative/path' of its files in order.
    """
    if path.is_dir():
        lines = "".join(f"{hash_file(file)}  {file.relative_to(path).as_posix()}\n" for file in list_data(path))
        return hashlib.sha256(lines.encode()).hexdigest()
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def measure_size(path: Path) -> int:
    """Count the bytes of a file or of a package's files."""
    return sum(file.stat().st_size for file in list_data(path))


def list_versions(packages: Iterable[str]) -> dict[str, str]:
    """List the installed version of each package, this one's first."""
    return {package: _find_version(package) for package in ("bigvit-edge", *packages)}


def _find_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
