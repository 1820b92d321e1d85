"""Every wrong input ends in one message that names it, exit code 2, no traceback, nothing half-written."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from bigvit_edge import cli, load_model
from bigvit_edge.cli import app
from bigvit_edge.manifest import read_manifest

PROGRAM = [sys.executable, "-c", "from bigvit_edge.cli import main; main()"]


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def refuse(result: Result, *texts: str) -> None:
    assert result.exit_code == 2, result.output
    for text in texts:
        assert text in result.stderr
    assert "Traceback" not in result.output
    assert len(result.stderr) < 1500


def test_profile_refuses_what_is_none() -> None:
    refuse(call("profile", "nothing.bve"), "no nothing.bve; expected a model file, which ends in .bve")
    refuse(call("profile", "nothing.onnx", "--device", "ssh:pi@board"), "nothing.onnx on ssh:pi@board", "a .bve")


@pytest.mark.parametrize("words", [["--help"], ["targets"], ["models"], ["targets", "--json"], ["models", "--json"]])
def test_listing_imports_no_framework(words: list[str]) -> None:
    code = f"""
import sys
sys.argv = ['bigvit-edge', *{words}]
from bigvit_edge.cli import main
try: main()
except SystemExit as e: assert e.code == 0
assert not {{'torch', 'executorch', 'ai_edge_litert', 'numpy', 'sklearn'}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_listings_are_json_on_request() -> None:
    assert {"android", "host"} <= {preset["name"] for preset in json.loads(call("targets", "--json").stdout)}
    assert {"blvit_s", "vit_s", "blvit_demo"} <= {
        model["name"] for model in json.loads(call("models", "--json").stdout)
    }


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        (["--target", "andriod"], ["unknown target 'andriod'", "did you mean android"]),
        (["blvit_smal"], ["unknown model 'blvit_smal'", "did you mean blvit_s"]),
        (["--set", "limits.int8_cosin=1"], ["unknown setting", "did you mean limits.int8_cosine"]),
        (["--set", "threads=many"], ["threads=many", "a whole number"]),
        (["--set", "limits.int8_cosine=nan"], ["limits.int8_cosine=nan", "from 0 to 1"]),
        (["--set", "quant.keep_float=rooter"], ["quant.keep_float=rooter", "did you mean router?"]),
        (["--set", "quant.keep_float=little,layers,up,head"], ["leaves nothing for int8"]),
        (["--keep", "0"], ["keep 0", "above 0 and at most 1"]),
        (["--keep", "1.2"], ["keep 1.2", "above 0 and at most 1"]),
        (["--keep", "half"], ["'half' in --keep half", "a number"]),
        (["--keep", "0.5,0.5"], ["each ratio once"]),
        (["--keep", "0.3333333,0.33333334"], ["each ratio once"]),
        (
            ["--calibration", ".", "--set", "precisions=fp32"],
            ["int8 for our core, or integers for a model with convolutions"],
        ),
        (["--set", "quant.p=int4"], ["quant.p=int4 for fp32, int8", "precisions=mixed"]),
        (["--image-size", "100000000000"], ["--image-size 100000000000", "1 to 4096"]),
        (["vit_ti", "--keep", "0.5"], ["the model is dense", "blvit_"]),
        (["--max-fallback", "much"], ["'much'", "a number"]),
        (["--max-fallback", "500%"], ["500%", "0% to 100%"]),
        (["--format", "litert", "--calibration", "nowhere", "--set", "precisions=int8-static"], ["no folder nowhere"]),
        (["--format", "bev"], ["unknown word 'bev' in formats", "did you mean bve?"]),
        (["--format", "bve", "--set", "precisions=int4"], ["bve in int4", "one of fp32, fp16, int8"]),
        (["--set", "packing=dots"], ["unknown word 'dots' in packing", "did you mean dot?"]),
        (["--set", "quant.observer=mean"], ["unknown word 'mean' in quant.observer", "minmax"]),
        (["--set", "quant.group=48"], ["quant.group=48", "one of 32, 64"]),
        (["--target", "ios", "--set", "deployment=iOS15"], ["deployment", "iOS16"]),
        (["timm:no_such_model"], ["timm has no model 'no_such_model'"]),
        (["no.such.module:build"], ["no.such.module"]),
        (["missing.safetensors"], ["no file missing.safetensors"]),
        (["--weights", "nowhere.safetensors"], ["no file nowhere.safetensors", "check the path"]),
    ],
)
def test_export_refuses(words: list[str], texts: list[str], tmp_path: Path) -> None:
    refuse(call("export", *words, "-o", tmp_path / "out"), *texts)
    assert list(tmp_path.iterdir()) == []


def test_export_refuses_a_checkpoint_that_does_not_fit(tmp_path: Path) -> None:
    state = load_model("blvit_demo").state_dict() | {"head.weight": torch.zeros(3, 3)}
    del state["layers.1.p.attn.q.weight"]
    save_file(state, tmp_path / "w.safetensors")
    refuse(
        call("export", "--weights", tmp_path / "w.safetensors", "-o", tmp_path / "out"),
        "1 missing (layers.1.p.attn.q.weight)",
        "1 misshaped (head.weight [3, 3] instead of [10, 96])",
    )
    assert not (tmp_path / "out").exists()


def test_export_refuses_a_truncated_checkpoint(tmp_path: Path) -> None:
    torch.save({"head.weight": torch.zeros(9)}, tmp_path / "w.pth")
    (tmp_path / "w.pth").write_bytes((tmp_path / "w.pth").read_bytes()[:300])
    refuse(call("export", "--weights", tmp_path / "w.pth", "-o", tmp_path / "out"), "w.pth is cut short")
    assert not (tmp_path / "out").exists()


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("import pathlib; pathlib.Path('exploded').touch()",)


def test_export_does_not_execute_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"w": Bomb()}, "evil.pth")
    refuse(call("export", "--weights", "evil.pth", "-o", "out"), "pickle with code in it", "not executed")
    assert [path.name for path in tmp_path.iterdir()] == ["evil.pth"]


FACTORIES = """
import torch

class Branching(torch.nn.Module):
    def forward(self, x):
        if x.mean() > 0:
            return x.mean((2, 3))
        return x.amax((2, 3))

class Constant(torch.nn.Module):
    def forward(self, x):
        return x.mean((2, 3))

def raising():
    raise RuntimeError("no such backbone")

def wrong():
    return "a model"

def exiting():
    raise SystemExit(0)

def labelled():
    model = Constant()
    model.labels = [0, 1, 2]
    return model

class Spectrum(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(3, 4)
    def forward(self, x):
        return self.fc(torch.fft.fft2(x).abs().mean((2, 3)))

def huge():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 4))
    torch.nn.init.constant_(model[1].weight, 1e5)
    return model
"""


HALF = ["--set", "precisions=fp32,fp16,int8"]


@pytest.mark.parametrize(
    ("function", "texts"),
    [
        ("raising", ["no such backbone", "users_models.py:", "raise RuntimeError"]),
        ("wrong", ["str"]),
        ("exiting", ["exiting() raised SystemExit"]),
        ("labelled", ["the attribute `labels`", "a list of strings"]),
        ("Spectrum", ["litert does not take aten.fft", "the model itself is sound"]),
        ("huge", ["holds 100000", "at most 65504"]),
        ("absent", ["users_models:absent is nothing of that name"]),
        ("Branching", ["users_models.py:6: if x.mean() > 0", "do not depend on the image"]),
        ("Constant", ["some layer to quantise"]),
    ],
)
def test_export_refuses_users_models(
    function: str, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "users_models.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    result = call("export", f"users_models:{function}", "--target", "host", "--image-size", "32", "-o", "out", *HALF)
    sys.modules.pop("users_models", None)
    refuse(result, *texts)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [None, "notes"])
def test_export_refuses_a_calibration_folder_without_pictures(content: str | None, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    if content:
        (folder / "notes.txt").write_text(content)
    words = ["--format", "litert", "--set", "precisions=int8-static", "--calibration", folder, "-o", tmp_path / "out"]
    refuse(call("export", *words), "no picture in", "or below" if content is None else "1 .txt")
    assert not (tmp_path / "out").exists()


def test_export_never_overwrites_what_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    for force in ([], ["--force"]):
        refuse(call("export", "-o", tmp_path, *force), "exists and is not a bundle of this version", "thesis.tex")
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_an_output_where_nothing_can_be(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("x")
    for command in (["export"], ["runtime-libs", "--abi", "x86_64-linux"], ["train"]):
        refuse(call(*command, "-o", tmp_path / "loop"), "loop", "choose another -o")
        refuse(call(*command, "-o", tmp_path / "file"), "file is a file", "choose another -o")
        refuse(call(*command, "-o", tmp_path / "new" / ("x" * 256)), "a name of 256 bytes", "choose another -o")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "loop"]


CHDIR = """
import os, torch

class Small(torch.nn.Module):
    image_size = 16
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(768, 4)
    def forward(self, x):
        return self.fc(x.flatten(1))

def elsewhere():
    os.chdir("/")
    return Small()
"""


def test_a_factory_that_changes_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wandering.py").write_text(CHDIR)
    monkeypatch.chdir(tmp_path)
    Path("pictures").mkdir()
    Image.new("RGB", (16, 16), "red").save("pictures/a.png")
    weight = torch.randn(4, 768, generator=torch.Generator().manual_seed(0))
    save_file({"fc.weight": weight, "fc.bias": torch.zeros(4)}, "w.safetensors")
    words = ["--format", "onnx", "--set", "precisions=int8-static", "--calibration", "pictures"]
    words += ["--weights", "w.safetensors", "--set", "limits.static_cosine=0", "--set", "limits.static_agreement=0"]
    words += ["--set", "limits.cosine_min=0", "--set", "limits.static_centred=0"]
    result = call("export", "wandering:elsewhere", *words, "-o", "out")
    sys.modules.pop("wandering", None)
    assert result.exit_code == 0, result.output
    assert read_manifest(tmp_path / "out").weights == "file"
    assert [path.name for path in (tmp_path / "out").glob("*.onnx")] == ["wandering_elsewhere_int8-static.onnx"]
    assert Path.cwd() == tmp_path


def test_a_signal_outside_of_any_verb_has_its_code_and_a_word(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """As Typer takes the exception for Ctrl-C, and ends by itself."""

    def parse() -> None:
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        raise SystemExit(130)

    monkeypatch.setattr(cli, "app", parse)
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with pytest.raises(SystemExit) as ended:
            cli.main()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 143
    assert "interrupted" in capsys.readouterr().err


def test_run_refuses_what_is_not_there(tmp_path: Path) -> None:
    refuse(call("run", tmp_path / "a.pte", tmp_path / "b.png"), "no file", "a.pte")
    (tmp_path / "a.pte").write_bytes(b"alone")
    refuse(call("run", tmp_path / "a.pte", tmp_path / "b.png"), "a.pte lies alone: no manifest.json beside it")


def test_check_refuses_what_is_no_bundle(tmp_path: Path) -> None:
    refuse(call("check", tmp_path), "no manifest.json in")


def test_an_unknown_recipe(tmp_path: Path) -> None:
    refuse(call("train", "--recipe", "dem", "-o", tmp_path / "run"), "unknown recipe 'dem'", "did you mean demo?")


@pytest.mark.parametrize(
    ("number", "stage"), [(signal.SIGINT, "new/*"), (signal.SIGTERM, "new"), (signal.SIGHUP, "new")]
)
def test_a_signal_in_the_middle_of_an_export_leaves_nothing(number: signal.Signals, stage: str, tmp_path: Path) -> None:
    """stage: what is there by then; 'new': nothing is loaded yet."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [*PROGRAM, "export", "--target", "host", "-o", "deep/out"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # a background job ignores some
    )  # fmt: skip
    deadline, filling = time.monotonic() + 300, f"deep/.bigvit-edge.*.part/{stage}"
    while not list(tmp_path.glob(filling)) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None, "the export ended before it could be interrupted"
    process.send_signal(number)  # once: one that a framework's callback swallows shows at the next step
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 128 + number
    assert "interrupted; nothing was written" in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []
