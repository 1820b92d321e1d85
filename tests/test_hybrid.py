"""A convolution-and-attention hybrid of others (timm's MaxViT, by a user's factory) goes through every format that
takes models of others.
"""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bigvit_edge.artifact import Entry
from bigvit_edge.cli import app
from bigvit_edge.manifest import read_manifest
from bigvit_edge.target import FORMATS

MODEL = "tests.models.hybrid:build"
OPEN = tuple(name for name in FORMATS if name != "bve")  # formats that hold models of others


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hybrid") / "out"
    settings = [f"formats={','.join(OPEN)}", "precisions=fp16,int8", "limits.images=4", "deployment=iOS17"]
    words = [word for setting in settings for word in ("--set", setting)]
    result = call("export", MODEL, "--target", "host", *words, "-o", folder)
    assert result.exit_code == 0, result.output
    return folder


@pytest.mark.parametrize("name", OPEN)
def test_each_format_has_it_in_half_and_in_int8(exported: Path, name: str) -> None:
    entries: dict[str, Entry] = {e.precision: e for e in read_manifest(exported).artifacts if e.format == name}
    assert set(entries) == {"fp16", "int8"}
    for entry in entries.values():
        (method,) = entry.methods
        assert method.parity.cosine_min > 0.999, (entry.file, method.parity)
        assert method.keep is None
        assert sum(leftover.mac_share for leftover in method.leftovers) < 0.05
    int8 = set(entries["int8"].layers)
    assert {layer.rpartition(".")[2] for layer in int8} >= {"qkv", "proj", "fc1", "fc2"}


def test_check_runs_a_users_code_only_when_it_is_named(exported: Path) -> None:
    refused = call("check", exported)
    assert refused.exit_code == 2
    assert f"add --model {MODEL}" in refused.stderr
    assert call("check", exported, "--model", MODEL).exit_code == 0


@pytest.mark.parametrize(
    ("words", "name", "do"),
    [
        (["--format", "bve"], "bve", "take another format, such as litert"),
        (["--format", "litert,bve"], "bve", "take another format, such as litert"),
        (["--format", "litert,onnx", "--set", "backend=native"], "litert", "add --set backend=xnnpack"),
        (["--target", "android-native"], "executorch, litert", "add --set backend=xnnpack"),
    ],
)
def test_our_core_refuses_it_when_asked_for(words: list[str], name: str, do: str, tmp_path: Path) -> None:
    result = call("export", MODEL, *words, "-o", tmp_path / "out")
    around = "" if name == "bve" else ", or a model around one of them"
    assert result.exit_code == 2
    assert f"MaxxVit) in {name}; expected a ViT or big.LITTLE ViT of this package{around}; {do}" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_preset_goes_without_that_format_and_says_so(tmp_path: Path) -> None:
    words = ["--target", "linux-arm", "--set", "precisions=fp32", "--set", "limits.images=2"]
    result = call("export", MODEL, *words, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "in bve, which takes a ViT or big.LITTLE ViT of this package" in result.stdout
    assert {entry.format for entry in read_manifest(tmp_path / "out").artifacts} == {"onnx", "litert"}
