"""What an export leaves behind: model files and the manifest that describes them."""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigvit_edge.errors import UserError, suggest
from bigvit_edge.measures import Accuracy, Confusion, Coverage, Evaluated, Parity, Span
from bigvit_edge.preprocessing import FLOAT32, Preprocessing
from bigvit_edge.target import (
    BACKENDS,
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

Array = NDArray[np.float32]
Pixels = NDArray[np.uint8]  # RGB, [..., S, S, 3]
Run = Callable[[NDArray[Any]], Array]  # an image as the file takes it (Preprocessing) -> logits [1, num_classes]

MANIFEST = "manifest.json"
SAMPLES = "use"  # the folder of samples in a bundle
VERSION = 4  # of the manifest's layout
SUFFIXES = {".bve": "bve", ".tflite": "litert", ".onnx": "onnx", ".pte": "executorch"}  # of files that run here
PACKAGES = ("coreml",)  # formats whose file is a package, which is a folder
MOST_SIZE, MOST_CLASSES = 4096, 1_000_000  # of an image's side, and of a model: more is taken for a mistake
# Where a model's weights come from; FACTORY: whatever the user's own function put there.
WEIGHTS = SHIPPED, RANDOM, FILE, PRETRAINED, FACTORY = "shipped", "random", "file", "pretrained", "factory"
IMAGE = "image"  # the name of an input
# names of outputs, the last as Core ML calls them
OUTPUTS = LOGITS, PROBABILITIES, CLASS_PROBABILITIES = "logits", "probabilities", "classLabel_probs"
FAINTEST = np.float32(np.finfo(np.float32).tiny)  # of a probability whose logarithm is asked


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
    answers, '' if it can; input, output: their names in the file.
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
    input: str = IMAGE
    output: str = LOGITS


@dataclass(frozen=True)
class Runner:
    """An entry point of a file, ready to run in its runtime.

    image, logits: the shapes that the file itself declares; -1 in a place that it leaves open. words: what it says of
    itself, of Subject's metadata, where it can be asked. dtype: of the image. output: the name of what
    `run` answers, one of OUTPUTS; read_logits: of a file of probabilities, what its softmax is given.
    """

    run: Callable[[NDArray[Any]], Array]
    image: tuple[int, ...]
    logits: tuple[int, ...]
    words: Mapping[str, str] = field(default_factory=dict)
    dtype: str = FLOAT32
    output: str = LOGITS
    read_logits: Callable[[NDArray[Any]], Array] | None = None

    @property
    def probabilities(self) -> bool:
        """Tell whether `run` answers with probabilities.

        It does of a file that ends with a softmax of ours.
        """
        return self.output != LOGITS

    def __call__(self, images: NDArray[Any]) -> Array:
        """Run an image to logits.

        Of probabilities to what their softmax is given, where the file can be asked for that, else to their logarithms,
        which are logits less a number an image.
        """
        if self.read_logits is not None:
            return self.read_logits(images)
        answer = self.run(images)
        return np.log(np.maximum(answer, FAINTEST)) if self.probabilities else answer


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
class Tensor:
    """The specification of an input or output.

    shape is in elements. Outputs called logits are those before the softmax, those called probabilities behind it.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = FLOAT32


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
        if len(shapes) != 2 or len(shapes[0]) != 4 or len(shapes[1]) != 2 or min(map(min, shapes)) < 1:
            raise ValueError(f"inputs and outputs of shapes {shapes}, where one image and its logits are expected")
        if shapes[1][0] != 1 or max(shapes[0]) > MOST_SIZE or shapes[1][1] > MOST_CLASSES:
            most = f"at most {MOST_SIZE} pixels and {MOST_CLASSES} classes"
            raise ValueError(f"inputs and outputs of shapes {shapes}, where one image and its logits have {most}")
        if (shapes[0], self.inputs[0].dtype) != (self.preprocessing.shape, self.preprocessing.dtype):
            raise ValueError(f"{self.preprocessing} does not make an input of {self.inputs[0]}")
        if self.outputs[0].dtype != FLOAT32 or self.outputs[0].name not in OUTPUTS:
            raise ValueError(
                f"an output of {self.outputs[0]}, where one of {', '.join(OUTPUTS)} in {FLOAT32} is expected"
            )
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
        if self.labels is not None and len(self.labels) != shapes[1][1]:
            raise ValueError(f"{len(self.labels)} labels for an output of shape {shapes[1]}")


@dataclass(frozen=True)
class Manifest:
    """The content of a bundle's manifest.json.

    model, image_size, num_classes, weights_key, heads: as they were given to the export, None if they were not;
    weights: 'shipped', 'random', 'file', 'pretrained' or 'factory'; weights_sha256: of the checkpoint, or of the
    tensors where there is none, None if random; dispatch, backend, deployment, quant, limits, threads: the target's,
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
    backend: str
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
            ("dispatch", self.dispatch, DISPATCHES), ("backend", self.backend, BACKENDS),
            ("deployment", self.deployment, DEPLOYMENTS), ("weights", self.weights, WEIGHTS),
            ("input", self.input, INPUTS),
        ):  # fmt: skip
            if word not in known:
                raise ValueError(f"{what} {word!r}, where one of {', '.join(known)} is expected")

    @property
    def trained(self) -> bool:
        """Tell whether the weights mean anything."""
        return self.weights != RANDOM


def name_method(keep: float | None) -> str:
    """Name a keep ratio's entry point in a file of several: 'keep_0_25'."""
    return f"keep_{keep:g}".replace(".", "_")


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
