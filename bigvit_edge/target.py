"""Where a model is to run: presets as data (targets/*.toml), typed by these dataclasses, changed by --set."""

import math
import tomllib
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any, get_args, get_origin, get_type_hints

from bigvit_edge.errors import UserError, suggest

FORMATS = ("executorch", "litert", "coreml", "onnx", "bve")
FULL = "int8-full"  # integers from the image to the logits
PRECISIONS = ("fp32", "fp16", "int8", "int8-static", FULL, "int4", "mixed")
LAYER_PRECISIONS = ("fp32", "int8", "int8-static", "int4")  # what one Linear of a mixed model can be
OBSERVERS = ("minmax", "percentile", "mse")
DISPATCHES = ("permute", "onehot", "kernel")
BACKENDS = ("xnnpack", "coreml", "native")
PACKINGS = ("dot", "i8mm")
INPUTS = TENSOR, IMAGE = "tensor", "image"
LAYOUTS = ("NCHW", "NHWC")
# The layout that pixels have in each format, as its users expect it; Core ML's is an image's own.
PIXELS = {"executorch": "NCHW", "onnx": "NCHW", "litert": "NHWC", "coreml": "NHWC"}
EITHER = ("executorch", "onnx")  # formats that have both layouts
DEPLOYMENTS = ("iOS16", "iOS17", "iOS18")
GROUPS = (32, 64, 128, 256)  # what every runtime has a kernel for
MOST_IMAGES = 1000  # held-out images there are
HIGHEST = {"images": MOST_IMAGES, "fp32_max_abs": math.inf, "max_fragments": math.inf, "low_keep_slack": math.inf}
MOST_THREADS = 64
KINDS = {int: "a whole number", float: "a number", str: "a word", bool: "true or false"}


# Formats with a choice of BACKENDS; where the one chosen is not theirs, they stay with xnnpack.
CHOICES = {"executorch": BACKENDS, "litert": ("xnnpack", "native")}
# What our core holds, where others hold all of PRECISIONS; and since which system Core ML has a precision, if not since
# the oldest of DEPLOYMENTS. Every other pair of format and precision can be made; nothing else is put in the place of
# one that cannot.
NATIVE = ("fp32", "fp16", "int8")
SINCE = {
    ("coreml", "int8-static"): "iOS17",
    ("coreml", FULL): "iOS17",
    ("executorch/coreml", "int8-static"): "iOS17",
    ("executorch/coreml", FULL): "iOS17",
    ("executorch/coreml", "int4"): "iOS18",
}


@dataclass(frozen=True)
class Quant:
    """How Linears are quantised.

    int8: weights per output channel, activations per row at run time. int8-static: the activations' ranges are fixed
    beforehand on calibration images, per tensor. int4: weights in groups along the inputs, activations as in int8.

    keep_float: Linears with one of these words between the dots of their name stay float; norms and softmax always do,
    and so does the patch embedding but in bve, where its name is embedding.patches. The presets keep the routers and
    what writes into the stream they read, `little` and `down` (1.8 % of blvit_s): rounding there makes them take other
    tokens. group: inputs that share a scale in int4 (Core ML: output channels that share a palette). observer: how
    int8-static picks a range from calibration: all that was seen, the percentile at both ends, or the least squared
    error. candidates: what `mixed` chooses from, per Linear; p, e, router: the precision of the P-blocks, E-blocks and
    routers in `mixed`, '' to choose it by sensitivity.
    """

    keep_float: tuple[str, ...] = ("router", "little", "down")
    group: int = 32
    observer: str = "minmax"
    percentile: float = 99.99
    candidates: tuple[str, ...] = ("int4", "int8", "fp32")
    p: str = ""
    e: str = ""
    router: str = ""

    def __post_init__(self) -> None:
        _check_words("quant.candidates", self.candidates, LAYER_PRECISIONS)
        _check_word("quant.observer", self.observer, OBSERVERS)
        for part in ("p", "e", "router"):
            if getattr(self, part):
                _check_word(f"quant.{part}", getattr(self, part), LAYER_PRECISIONS)
        if self.group not in GROUPS:
            raise UserError(f"quant.group={self.group}", f"one of {', '.join(map(str, GROUPS))}")
        if not 50 <= self.percentile <= 100:
            raise UserError(f"quant.percentile={self.percentile}", "a number from 50 to 100")


@dataclass(frozen=True)
class Limits:
    """What a file must reach against PyTorch, on `images` images.

    All: the centred cosine of the logits, without what every image's have in common. fp32: the largest difference of
    any logit, over what PyTorch's logits span, and the smallest cosine. Every other precision: the mean cosine, and but
    for int4 the smallest, which falls far below the mean where a rounding makes the router take another token. All: the
    share of equal top-1; int8-static and int4 have limits of their own for it, and a share misses its limit only where
    the upper end of its 95 % interval does. Files with convolutions in int8, whatever their precision is called, are
    held to the limits of that name.

    A model with random weights is held to untrained_cosine (the smallest; int4: untrained_int4_cosine) instead of those
    cosines, and no top-1 is asked of it. docs/parity.md has the measurements behind the figures.

    low_keep_slack: below keep 0.5, where one token taken differently moves an answer further, departures from 1 may be
    so many times as large (fp32 excepted). max_fallback: share of the multiply-accumulates, 0..1, that may stay outside
    the intended unit; max_fragments: pieces that one layer may be cut into.
    """

    fp32_max_abs: float = 1e-3
    fp32_cosine: float = 0.99999
    fp16_cosine: float = 0.9999
    int8_cosine: float = 0.999
    static_cosine: float = 0.99
    convolved_cosine: float = 0.99
    int4_cosine: float = 0.98
    mixed_cosine: float = 0.999
    fp32_centred: float = 0.9999
    fp16_centred: float = 0.999
    int8_centred: float = 0.98
    static_centred: float = 0.95
    convolved_centred: float = 0.95
    int4_centred: float = 0.75
    mixed_centred: float = 0.98
    cosine_min: float = 0.5
    untrained_cosine: float = 0.99
    untrained_int4_cosine: float = 0.7
    top1_agreement: float = 0.99
    static_agreement: float = 0.98
    convolved_agreement: float = 0.96
    int4_agreement: float = 0.92
    low_keep_slack: float = 4.0
    images: int = 1000
    max_fallback: float = 0.05
    max_fragments: int = 4

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            high = HIGHEST.get(f.name, 1)
            low = 1 if f.type in (int, "int") or f.name == "low_keep_slack" else 0
            if not low <= value <= high or not math.isfinite(
                value
            ):  # NaN is in no range, and no manifest holds infinity
                raise UserError(f"limits.{f.name}={value}", f"a number from {low} to {high}")


@dataclass(frozen=True)
class Target:
    """The choices of an export: for what, and how.

    name: the preset; formats and precisions: one file for each pair; threads: of the runtime when checking and timing;
    dispatch: how the model arranges its tokens, 'permute' (top-k and gather) or 'onehot' (comparisons and a matrix
    product, for accelerators without those two), 'kernel' (one op of ours, which libbve_executorch brings); backend:
    what ExecuTorch and LiteRT files delegate to, 'xnnpack', 'native' (our core does what it can hold, by
    libbve_executorch or libbve_litert) or 'coreml' (ExecuTorch alone); packing: how our core's int8 weights lie, for
    dot products of 4 ('dot': sdot, VNNI) or matrix products of 8 ('i8mm'), and a CPU that wants the other way repacks
    them when it loads the file; input: what files take, a 'tensor', float32 [1, 3, S, S] and normalised, or the
    'image', its pixels in uint8 (a .bve takes both, whatever this says); layout: of the pixels, NCHW or NHWC, '' what a
    format's users expect; deployment: the oldest system that a Core ML model must load on.
    """

    name: str
    summary: str
    formats: tuple[str, ...]
    precisions: tuple[str, ...] = ("fp32", "int8")
    threads: int = 1
    dispatch: str = "permute"
    backend: str = "xnnpack"
    packing: str = "dot"
    input: str = TENSOR
    layout: str = ""
    deployment: str = "iOS17"
    quant: Quant = field(default_factory=Quant)
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        _check_words("formats", self.formats, FORMATS)
        _check_words("precisions", self.precisions, PRECISIONS)
        _check_word("dispatch", self.dispatch, DISPATCHES)
        _check_word("backend", self.backend, BACKENDS)
        _check_word("packing", self.packing, PACKINGS)
        _check_word("input", self.input, INPUTS)
        if self.layout:
            _check_word("layout", self.layout, LAYOUTS)
        _check_word("deployment", self.deployment, DEPLOYMENTS)
        if not 1 <= self.threads <= MOST_THREADS:
            raise UserError(f"threads={self.threads}", f"a whole number from 1 to {MOST_THREADS}")

    def takes_pixels(self, name: str) -> bool:
        """Tell whether files of that format take the pixels themselves.

        Those for Core ML inside ExecuTorch take tensors all the same: it hands that one nothing else.
        """
        return self.input == IMAGE and name in PIXELS and self.find_backend(name) != "coreml"

    def find_layout(self, name: str) -> str:
        """Find the layout of what files of that format take."""
        if not self.takes_pixels(name):
            return "NCHW"
        return self.layout or PIXELS[name] if name in EITHER else PIXELS[name]

    def gives_probabilities(self, name: str) -> bool:
        """Tell whether files of that format, where asked for, answer with probabilities."""
        libraries = name == "coreml" or (name == "litert" and not self.is_native(name))
        return libraries and name in self.formats and self.takes_pixels(name)

    def find_backend(self, name: str) -> str:
        """Find what files of that format delegate to, '' without a choice."""
        choices = CHOICES.get(name, ("",))
        return self.backend if self.backend in choices else choices[0]

    def is_native(self, name: str) -> bool:
        """Tell whether our core runs files of that format.

        Such files hold models of this package; where a framework is around our core, also models that have one of them
        inside.
        """
        return name == "bve" or self.find_backend(name) == "native"

    def calibrates(self) -> bool:
        """Tell whether a file is made by what Linears see on images.

        That is: ranges, a mixture of precisions, the rounding in files of our core.
        """
        native = "int8" in self.precisions and any(map(self.is_native, self.formats))
        return native or bool({"int8-static", FULL, "mixed"} & set(self.precisions))

    def has_integers(self) -> bool:
        """Tell whether a file is to compute in integers outside our core."""
        return bool(set(self.precisions) - {"fp32", "fp16"}) and not all(map(self.is_native, self.formats))

    def list_cells(self) -> list[tuple[str, str]]:
        """List every (format, precision) to make, by precision.

        UserError on one that the format or the system lacks.
        """
        cells = [(name, precision) for precision in self.precisions for name in self.formats]
        parts = [c for c in (*self.quant.candidates, self.quant.p, self.quant.e, self.quant.router) if c]
        fixed = [part for part in ("p", "e", "router") if getattr(self.quant, part)]
        if fixed and "mixed" not in self.precisions:
            met = f"quant.{fixed[0]}={getattr(self.quant, fixed[0])} for {', '.join(self.precisions)}"
            raise UserError(met, "precisions=mixed, which it is for", "leave it out")
        inside = [(name, part) for name, precision in cells if precision == "mixed" for part in parts]
        self._check_layout()
        for name, precision in cells + inside:
            if self.is_native(name) and precision not in NATIVE:
                other = "add --set backend=xnnpack" if name in CHOICES else f"{name} out of --set formats="
                met = f"{name} in {precision}" + (", backend=native" if name in CHOICES else "")
                do = f"leave {precision} out of --set precisions=, or {other}"
                raise UserError(met, f"one of {', '.join(NATIVE)}", do)
            if self.dispatch == "kernel" and (name, self.find_backend(name)) != ("executorch", "xnnpack"):
                met = f"dispatch=kernel for {name}" + (f", backend={self.backend}" if name in CHOICES else "")
                raise UserError(met, "executorch files with backend=xnnpack", "add --set dispatch=permute")
            key = f"{name}/coreml" if self.find_backend(name) == "coreml" else name
            since = SINCE.get((key, precision), DEPLOYMENTS[0])
            if DEPLOYMENTS.index(self.deployment) < DEPLOYMENTS.index(since):
                met = f"{name} in {precision} for {self.deployment}"
                raise UserError(met, f"{since} or later, which has it", f"add --set deployment={since}")
        return cells

    def _check_layout(self) -> None:
        """UserError on a layout that no file of the target would have, or that one cannot."""
        laid = [name for name in self.formats if self.takes_pixels(name) and name != "coreml"]
        if self.layout and not laid:
            met = f"layout={self.layout} for {', '.join(self.formats)} with input={self.input}"
            raise UserError(met, f"input=image and one of {', '.join(EITHER)}, whose pixels have one", "leave it out")
        for name in laid if self.layout else ():
            if name not in EITHER and self.layout != PIXELS[name]:
                raise UserError(f"layout={self.layout} for {name}", PIXELS[name], "leave it out")

    def list_modules(self) -> list[str]:
        """List the modules of export/backends that the target's formats need."""
        core_ml = ["coreml"] if "executorch" in self.formats and self.backend == "coreml" else []
        native = [f"{name}.native" for name in self.formats if name in CHOICES and self.is_native(name)]
        return list(dict.fromkeys([*self.formats, *core_ml, *native]))


def list_targets() -> list[str]:
    """List the names of all presets."""
    return sorted(f.name.removesuffix(".toml") for f in _folder().iterdir() if f.name.endswith(".toml"))


@cache
def load_target(name: str) -> Target:
    """Load a preset by name.

    UserError with the nearest names if there is none.
    """
    known = list_targets()
    if name not in known:
        raise UserError(f"unknown target {name!r}", f"one of {', '.join(known)}", suggest(name, known))
    try:
        data = tomllib.loads((_folder() / f"{name}.toml").read_text())
    except tomllib.TOMLDecodeError as e:
        raise UserError(f"targets/{name}.toml: {e}", "a TOML file") from e
    target: Target = _build(Target, {"name": name, **data}, f"targets/{name}.toml")
    return target


def override(target: Target, settings: Iterable[str]) -> Target:
    """Apply 'key=value' settings to a target.

    Examples are 'limits.int8_cosine=0.99' and 'formats=litert,executorch'; the last of one key counts. UserError on an
    unknown key or a value of the wrong type.
    """
    for setting in settings:
        key, equals, text = setting.partition("=")
        keys = list_settings()
        if not equals:
            raise UserError(f"--set {setting!r}", "key=value", f"for example --set {next(iter(keys))}=...")
        if key not in keys:
            raise UserError(f"unknown setting {key!r}", f"one of {', '.join(keys)}", suggest(key, keys))
        value = _parse(key, text, keys[key])
        group, dot, name = key.partition(".")
        target = replace(target, **{group: replace(getattr(target, group), **{name: value}) if dot else value})
    return target


def list_settings() -> dict[str, Any]:
    """List every key that `--set` takes, with its type."""
    types: dict[str, Any] = {}
    for name, kind in get_type_hints(Target).items():
        if is_dataclass(kind):
            types |= {f"{name}.{inner}": t for inner, t in get_type_hints(kind).items()}
        elif name not in ("name", "summary"):
            types[name] = kind
    return types


def _folder() -> Any:
    return files("bigvit_edge") / "targets"


def _parse(key: str, text: str, kind: Any) -> Any:
    if get_origin(kind) is tuple:
        return tuple(word.strip() for word in text.split(",") if word.strip())
    try:
        return kind(text)
    except ValueError:
        raise UserError(f"{key}={text}", KINDS.get(kind, kind.__name__)) from None


def _build(cls: Any, data: dict[str, Any], where: str) -> Any:
    """A dataclass from a TOML table, refusing what it does not know."""
    types = get_type_hints(cls)
    known = [f.name for f in fields(cls)]
    for f in fields(cls):
        if f.default is MISSING and f.default_factory is MISSING and f.name not in data:
            raise UserError(f"no {f.name!r} in {where}", "a value for it")
    for key in data:
        if key not in known:
            raise UserError(f"unknown key {key!r} in {where}", f"one of {', '.join(known)}", suggest(key, known))
    return cls(**{key: _convert(value, types[key], f"{where}: {key}") for key, value in data.items()})


def _convert(value: Any, kind: Any, where: str) -> Any:
    if is_dataclass(kind) and isinstance(value, dict):
        return _build(kind, value, where)
    if get_origin(kind) is tuple and isinstance(value, list) and all(isinstance(v, get_args(kind)[0]) for v in value):
        return tuple(value)
    if kind is float and type(value) is int:
        return float(value)
    if get_origin(kind) is not tuple and type(value) is kind:
        return value
    raise UserError(f"{where} = {value!r}", KINDS.get(kind, "a table" if is_dataclass(kind) else "a list of words"))


def _check_words(key: str, words: tuple[str, ...], known: tuple[str, ...]) -> None:
    if not words:
        raise UserError(f"{key} is empty", f"one or more of {', '.join(known)}")
    if len(set(words)) < len(words):
        raise UserError(f"{key} = {','.join(words)}", "each word once")
    for word in words:
        _check_word(key, word, known)


def _check_word(key: str, word: str, known: tuple[str, ...]) -> None:
    if word not in known:
        raise UserError(f"unknown word {word!r} in {key}", f"one of {', '.join(known)}", suggest(word, known))
