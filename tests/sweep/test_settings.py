"""A sweep's file: what it may say, and what is said of what it may not."""

import re
from pathlib import Path

import pytest

from bigvit_edge.errors import UserError
from bigvit_edge.sweep.settings import Model, Sweep, read_sweep
from bigvit_edge.target import load_target

DOCS = Path(__file__).parents[2] / "docs" / "sweep.md"


def read(text: str, folder: Path) -> Sweep:
    path = folder / "sweep.toml"
    path.write_text(text)
    return read_sweep(path)


def test_what_is_not_told_is_the_targets(tmp_path: Path) -> None:
    sweep = read('models = ["vit_demo"]', tmp_path)
    host = load_target("host")
    assert sweep.models == (Model("vit_demo"),)
    assert (sweep.formats, sweep.precisions) == (host.formats, host.precisions)
    assert (sweep.devices, sweep.keeps, sweep.threads, sweep.rounds) == (("local",), (), (None,), 30)


def test_every_key_arrives(tmp_path: Path) -> None:
    text = f"""
        models = ["vit_demo", {{ model = "vit_s", weights = "w.pth", image_size = 64, calibration = "{tmp_path}" }}]
        formats = ["bve", "onnx"]
        precisions = ["int8"]
        keeps = [0.5, 1]
        devices = ["null", "ssh:pi@board"]
        clusters = ["big", "big,little", "each"]
        threads = [1, 2]
        target = "android"
        set = ["limits.images=20"]
        images = "{tmp_path}"
        minutes = 0.5
        fps = 30
        cool = 40
    """
    assert read(text, tmp_path) == Sweep(
        models=(Model("vit_demo"), Model("vit_s", weights="w.pth", image_size=64, calibration=str(tmp_path))),
        formats=("bve", "onnx"), precisions=("int8",), keeps=(0.5, 1.0), devices=("null", "ssh:pi@board"),
        clusters=("big", "big,little", "each"), threads=(1, 2), target="android", settings=("limits.images=20",),
        images=str(tmp_path), rounds=30, minutes=0.5, fps=30.0, cool=40.0, text=text,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("modls = ['a']", ["unknown key 'modls'", "did you mean models"]),
        ("formats = ['bve']", ["no models"]),
        ("models = []", ["models is an empty list"]),
        ("models = 'a'", ["models is a str"]),
        ("models = [1]", ["models[0] is an int"]),
        ("models = ['a', 'b', 'a']", ["models[2] is", "again"]),
        ("models = ['a', {weights = 'w'}]", ["models[1]: no model"]),
        ("models = ['a', {model = 'b', wieghts = 'w'}]", ["models[1]: unknown key 'wieghts'", "weights"]),
        ("models = ['a', {model = 'b', image_size = 'w'}]", ["models[1]: image_size = 'w'", "a whole number"]),
        ("models = ['a', {model = 'b', calibration = 'w'}]", ["models[1]: calibration: no folder w"]),
        ("models = ['a']\nformats = ['onyx']", ["formats[0]: unknown word 'onyx'", "did you mean onnx?"]),
        ("models = ['a']\nprecisions = ['int8', 'int8']", ["precisions[1] is 'int8' again"]),
        ("models = ['a']\nkeeps = [0.5, 0]", ["keeps[1] = 0", "above 0 and at most 1"]),
        ("models = ['a']\nkeeps = [true]", ["keeps[0] = True"]),
        ("models = ['a']\nkeeps = [nan]", ["keeps[0] = nan"]),
        ("models = ['a']\ndevices = ['local', 'shh:pi@board']", ["devices[1]: device 'shh:pi@board'", "ssh"]),
        ("models = ['a']\ndevices = ['adb:']", ["devices[0]: device 'adb:'"]),
        ("models = ['a']\nclusters = ['large']", ["clusters[0]: unknown word 'large'"]),
        ("models = ['a']\nthreads = [0]", ["threads[0] = 0"]),
        ("models = ['a']\ntarget = 'phone'", ["target: unknown target 'phone'"]),
        ("models = ['a']\nset = ['limits.imges=3']", ["set[0]: unknown setting 'limits.imges'"]),
        ("models = ['a']\nimages = 'nowhere'", ["images: no folder nowhere"]),
        ("models = ['a']\nrounds = 1.5", ["rounds = 1.5", "a whole number from 1"]),
        ("models = ['a']\nrounds = 3\nminutes = 1", ["rounds and minutes"]),
        ("models = ['a'", ["sweep.toml: "]),
        ("models = ['a']\nimages = ''", ["images is an empty word"]),
    ],
)
def test_what_cannot_be_is_told_with_its_place(text: str, told: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        read(text, tmp_path)
    assert "sweep.toml" in str(error.value)
    for words in told:
        assert words in str(error.value)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file"):
        read_sweep(tmp_path / "none.toml")
    with pytest.raises(UserError, match="no plain file"):
        read_sweep(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"models = ['\xe9']")
    with pytest.raises(UserError, match="UTF-8"):
        read_sweep(tmp_path / "latin.toml")


def test_the_documented_example_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    example = re.search(r"```toml\n(.*?)```", DOCS.read_text(), re.S)
    assert example
    assert len(read(example[1], tmp_path).models) > 1
