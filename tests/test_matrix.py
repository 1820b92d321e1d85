"""Format x precision on a tiny big.LITTLE model: every cell that can be made holds its limit, one that a format
does not have says which it has, and one that a system does not have says since which it does.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from bigvit_edge.cli import app
from bigvit_edge.manifest import read_manifest
from bigvit_edge.models.load import build
from bigvit_edge.models.zoo import CARDS, DIGITS, Card
from bigvit_edge.target import CHOICES, DEPLOYMENTS, FORMATS, FULL, NATIVE, PRECISIONS, SINCE

SMALL = Card(
    "small", 64, 32, depth=2, head_dim=32, little_head_dim=16, patch=8, image_size=32, num_classes=10, labels=DIGITS
)
# Of weights drawn at random, large enough that layers differ: the smallest cosine over 8 images.
LEAST = {"fp32": 0.99999, "fp16": 0.9999, "int8": 0.998, "int8-static": 0.98, "int4": 0.8, "mixed": 0.85}
# In int8 a router takes another token of one image: our core rounds patches too, ONNX has one scale for a whole input.
COARSE = 0.95
KINDS: dict[str, set[str]] = {"fp32": set(), "fp16": set(), "mixed": {"int4", "int8"}}
OURS = [("bve", "xnnpack"), *((name, "native") for name in CHOICES)]  # what our core runs, which lacks the rest
# int8-full is for models without a router, whose scores one range for all tokens does not bear: tests/export/test_full
CELLS = [(name, "xnnpack", p) for name in FORMATS if name != "bve" for p in PRECISIONS if p != FULL]
CELLS += [(name, backend, precision) for name, backend in OURS for precision in NATIVE]
MISSING = [(name, backend, precision) for name, backend in OURS for precision in PRECISIONS if precision not in NATIVE]


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Weights for a model called 'small', so spread that no layer is idle."""
    CARDS["small"] = SMALL
    model, generator = build(SMALL), torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if name.endswith("weight") and parameter.dim() == 2:
            parameter.data.normal_(0, 1.4 / parameter.shape[1] ** 0.5, generator=generator)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_file(model.state_dict(), path)
    yield path
    del CARDS["small"]


def export(name: str, precision: str, weights: Path, folder: Path, *words: str) -> Result:
    loose = [
        f"limits.{key}_{what}=0.1" for key in ("mixed", "int4", "int8", "static") for what in ("cosine", "centred")
    ]
    loose += ["limits.cosine_min=0.0", "limits.top1_agreement=0.0", "limits.int4_agreement=0.0", "limits.images=8"]
    settings = [f"formats={name}", f"precisions={precision}", "deployment=iOS18", *loose, *words]
    settings += ["quant.p=int4", "quant.e=int8"] if precision == "mixed" else []
    options = ["--weights", weights, "-o", folder]
    options += ["--allow-fallback"] * ((name, precision) == ("coreml", "fp32"))  # the Neural Engine has no fp32
    return call("export", "small", "--target", "host", *options, *(w for s in settings for w in ("--set", s)))


@pytest.mark.parametrize(("name", "backend", "precision"), CELLS)
def test_cell(name: str, backend: str, precision: str, weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    result = export(name, precision, weights, folder, f"backend={backend}")
    assert result.exit_code == 0, result.output
    (entry,) = read_manifest(folder).artifacts
    (method,) = entry.methods
    assert (entry.format, entry.precision, method.keep) == (name, precision, 0.5)
    coarse = precision == "int8" and ((name, backend) in OURS or name == "onnx")
    least = COARSE if coarse else LEAST[precision]
    assert method.parity.cosine_min >= least, method.parity
    # what is rounded cannot be exact: proof that the precision was not quietly left out
    assert precision == "fp32" or method.parity.max_abs > 1e-5
    assert set(entry.layers.values()) == KINDS.get(precision, {precision})
    assert (name, backend) not in OURS or (method.delegates, method.leftovers) == (1, ())
    checked = call("check", folder, "--weights", weights)
    assert checked.exit_code == 0, checked.output


@pytest.mark.parametrize("precision", [precision for precision in PRECISIONS if precision != FULL])
def test_executorch_for_core_ml(precision: str, weights: Path, tmp_path: Path) -> None:
    result = export("executorch", precision, weights, tmp_path / "out", "backend=coreml", "dispatch=onehot")
    assert result.exit_code == 0, result.output
    (entry,) = read_manifest(tmp_path / "out").artifacts
    assert entry.evaluated
    assert entry.methods[0].parity.cosine_min >= LEAST[precision]


@pytest.mark.parametrize(("name", "backend", "precision"), MISSING)
def test_what_our_core_does_not_have_is_refused(
    name: str, backend: str, precision: str, weights: Path, tmp_path: Path
) -> None:
    result = export(name, precision, weights, tmp_path / "out", f"backend={backend}")
    assert result.exit_code == 2
    met, do = ("", f"{name} out of") if name == "bve" else (", backend=native", "add --set backend=xnnpack")
    assert f"{name} in {precision}{met}; expected one of {', '.join(NATIVE)}" in result.stderr
    assert f"leave {precision} out of --set precisions=, or {do}" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("key", "precision"), [pair for pair in SINCE if pair[1] != FULL])
def test_what_a_system_does_not_have_is_refused(key: str, precision: str, weights: Path, tmp_path: Path) -> None:
    name, _, backend = key.partition("/")
    before = DEPLOYMENTS[DEPLOYMENTS.index(SINCE[key, precision]) - 1]
    words = [f"deployment={before}", *([f"backend={backend}"] if backend else [])]
    for asked in (precision, "mixed"):
        result = export(name, asked, weights, tmp_path / "out", *words, f"quant.candidates={precision}")
        assert result.exit_code == 2
        assert f"{name} in {precision} for {before}; expected {SINCE[key, precision]} or later" in result.stderr
    assert list(tmp_path.iterdir()) == []
