"""The package without its extras: what works without PyTorch and the frameworks, and what the rest asks for."""

import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from bigvit_edge.artifact import hash_file
from bigvit_edge.cli import app
from bigvit_edge.extras import BASE, EXTRAS, LIGHT
from bigvit_edge.manifest import read_manifest, write_manifest
from bigvit_edge.models.zoo import CARDS
from tests.native import ROOT
from tests.test_tiny import TINY

RUNTIMES = ["onnxruntime", "ai_edge_litert", "tflite_runtime"]
# None in sys.modules is to Python a module that is not there.
WITHOUT = """
import sys
sys.modules.update(dict.fromkeys({absent}))
sys.argv = ['bigvit-edge', *{words}]
from bigvit_edge.cli import main
main()
"""


def call(*words: object, also_absent: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    """The command line as on a board: of what the extras bring only the runtimes there, less also_absent."""
    absent = sorted({m for modules in EXTRAS.values() for m in modules} - {*RUNTIMES} | {*(also_absent or ())})
    code = WITHOUT.format(absent=absent, words=[str(word) for word in words])
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def read_project() -> dict[str, list[str]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {"": project["dependencies"], **project["optional-dependencies"]}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("extras") / "bundle"
    CARDS["tiny"] = TINY
    settings = ("--set", "precisions=fp32", "--set", "limits.images=4", "--set", "limits.untrained_cosine=0.98")
    made = CliRunner().invoke(app, ["export", "tiny", "--format", "bve,litert,onnx", "-o", str(folder), *settings])
    del CARDS["tiny"]
    assert made.exit_code == 0, made.output
    manifest, program = read_manifest(folder), folder / "tiny_fp32.pte"  # which takes too long to make
    program.write_bytes(b"never read")
    entry = replace(manifest.artifacts[0], file=program.name, format="executorch", sha256=hash_file(program), bytes=10)
    write_manifest(replace(manifest, artifacts=(*manifest.artifacts, entry)), folder)
    Image.effect_noise((40, 40), 90).convert("RGB").save(folder.parent / "picture.png")
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("suffix", "also_absent"),
    [("bve", RUNTIMES), ("tflite", ["onnxruntime"]), ("onnx", ["ai_edge_litert", "tflite_runtime", "flatbuffers"])],
)
def test_a_picture_through_a_file_without_pytorch(bundle: Path, suffix: str, also_absent: list[str]) -> None:
    (file,) = bundle.glob(f"*.{suffix}")
    words = ("run", file, bundle.parent / "picture.png", "--json")
    told = call(*words, also_absent=also_absent)
    assert told.returncode == 0, told.stderr
    expected = json.loads(CliRunner().invoke(app, [str(word) for word in words]).stdout)
    assert json.loads(told.stdout) == expected


@pytest.mark.parametrize(
    ("suffix", "line"),
    [
        ("tflite", "neither of ai_edge_litert, tflite_runtime is installed; expected one of them; pip install ai-edge"),
        ("onnx", "onnxruntime is not installed; expected the runtime of tiny_fp32.onnx; pip install onnxruntime"),
        ("pte", "torch is not installed; expected the runtime of tiny_fp32.pte; pip install 'bigvit-edge[executorch]'"),
    ],
)
def test_a_file_whose_runtime_is_missing(bundle: Path, suffix: str, line: str) -> None:
    (file,) = bundle.glob(f"*.{suffix}")
    told = call("run", file, bundle.parent / "picture.png", also_absent=RUNTIMES)
    assert told.returncode == 2
    assert told.stderr.startswith(f"error: {line}")
    assert len(told.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "extras"),
    [
        (["export", "--format", "bve"], "export,demo"),
        (["export", "--format", "bve", "--images", "."], "export"),
        (["export", "--target", "android"], "export,executorch,litert,demo"),
        (["check", "BUNDLE"], "export,litert,onnx,executorch,demo"),
        (["train"], "export,demo"),
    ],
)
def test_verbs_that_need_pytorch_say_which_extra(
    words: list[str], extras: str, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = call(*(bundle if word == "BUNDLE" else word for word in words), also_absent=RUNTIMES)
    assert told.returncode == 2
    assert told.stderr.startswith("error: torch, networkx, safetensors")
    start, _, named = told.stderr.strip().rpartition("; pip install ")
    assert start
    assert set(named.removeprefix("'bigvit-edge[").removesuffix("]'").split(",")) == set(extras.split(","))
    assert len(told.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_measuring_needs_nothing(bundle: Path, tmp_path: Path) -> None:
    (file,) = bundle.glob("*.bve")
    result = tmp_path / "result.json"
    quick = ("--rounds", "1", "--no-energy")
    for words in (
        ("devices",),
        ("bench", file, *quick, "-o", result),
        ("compare", result, result),
        ("profile", file, "--html", tmp_path / "report.html"),
    ):
        told = call(*words, also_absent=RUNTIMES)
        assert "Traceback" not in told.stderr
        assert "torch" not in told.stderr
        assert told.returncode in ((0, 1) if words[0] == "compare" else (0,)), (words[0], told.stderr, told.stdout)


@pytest.mark.parametrize("words", [["--help"], ["targets"], ["models"], ["run", "--help"], ["export", "--help"]])
def test_verbs_that_need_nothing(words: list[str]) -> None:
    assert call(*words, also_absent=RUNTIMES).returncode == 0


def test_our_own_names_need_nothing_but_pytorch_and_say_so() -> None:
    code = "import sys; sys.modules['torch'] = None; from bigvit_edge import load_model; load_model('vit_ti')"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "UserError: torch is not installed" in told.stderr
    assert "pip install 'bigvit-edge[export]'" in told.stderr


def test_extras_are_as_the_project_has_them() -> None:
    project = read_project()
    assert not any("torch" in requirement or "networkx" in requirement for requirement in project[""])
    packages = {"sklearn": "scikit-learn", "skimage": "scikit-image"}
    for extra, modules in EXTRAS.items():
        named = {requirement.partition("=")[0].partition(">")[0] for requirement in project[extra]}
        assert {packages.get(module, module.replace("_", "-")) for module in modules} <= named
        assert extra in (BASE, *LIGHT) or f"bigvit-edge[{BASE}]" in named
