"""bve-run on a program of two inputs and two outputs: arrays by name, in and out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.native import ROOT
from tests.runtime.test_main import FILE as IMAGE_FILE
from tests.runtime.test_main import bve_run, refuse

FILE = ROOT / "tests/runtime/files/version2_ports_fp32.bve"
PORTS = "left=FILE [1, 2, 4], right=FILE [16]"
Named = dict[str, str]


@pytest.fixture
def files(tmp_path: Path) -> Named:
    left, right = np.arange(8, dtype="<f4").reshape(1, 2, 4), np.arange(20, 36, dtype="<f4")
    np.save(tmp_path / "left.npy", left)
    (tmp_path / "right").write_bytes(right.tobytes())
    np.save(tmp_path / "right.npy", right)
    np.save(tmp_path / "flat.npy", left.ravel())
    np.save(tmp_path / "turned.npy", np.asfortranarray(left.reshape(2, 4))[None])
    np.save(tmp_path / "double.npy", left.astype(float))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "left.npy").read_bytes()[:-4])
    return {path.name: str(path) for path in tmp_path.iterdir()}


@pytest.mark.parametrize("right", ["right", "right.npy"])
def test_run_takes_arrays_by_name_and_gives_them_so(right: str, files: Named) -> None:
    outputs = bve_run("run", FILE, f"right={files[right]}", f"left={files['left.npy']}")["outputs"]
    assert outputs["turned"] == {"shape": [3, 4], "values": [4, 5, 6, 7, 0, 1, 2, 3, 0, 1, 2, 3]}
    assert outputs["doubled"] == {"shape": [2, 2, 4], "values": list(range(40, 72, 2))}


def test_an_image_can_be_given_by_name_too(tmp_path: Path) -> None:
    image = np.linspace(-1, 1, 48, dtype="<f4")
    (tmp_path / "image").write_bytes(image.tobytes())
    named = bve_run("run", IMAGE_FILE, f"image={tmp_path}/image")
    assert named == bve_run("run", IMAGE_FILE, "--input", tmp_path / "image")


def test_profile_makes_up_what_it_is_not_given(files: Named) -> None:
    named: tuple[Any, ...] = (f"left={files['left.npy']}", f"right={files['right']}")
    for arrays in ((), named):
        found = bve_run("profile", FILE, *arrays, "--runs=2", "--warmup=0")
        assert [op["name"] for op in found["session"]["ops"]] == ["rows", "turned", "doubled"]
        assert len(found["traced"]["runs"]) == 20


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), f"no left, expected {PORTS}; give each input's float32, raw or as .npy"),
        (("left={left.npy}",), f"no right, expected {PORTS}"),
        (("center={right}",), f"an input center, expected of {PORTS}; give these alone"),
        (("left={left.npy}", "left={left.npy}"), "left twice, expected it once"),
        (("turned={left.npy}",), f"an input turned, expected of {PORTS}"),
        (("left={right}",), "right with 64 bytes of numbers, expected 32: float32 [1, 2, 4] for left"),
        (("left={cut.npy}",), "cut.npy with 28 bytes of numbers, expected 32"),
        (("left={flat.npy}",), "row by row, of shape (1, 2, 4), for left; save it so with numpy.save"),
        (("left={double.npy}",), "'descr': '<f8'"),
        (("left={turned.npy}",), "'fortran_order': True"),
        (("left=nowhere.npy",), "nowhere.npy"),
        (("left={left.npy}", "--input={left.npy}"), "one of them; leave one out"),
        (("left={left.npy}", "picture.ppm"), " beside picture.ppm, expected one of them"),
        (("picture.ppm",), f"no left, expected {PORTS}"),
    ],
)
def test_wrong_arrays_are_refused_with_the_ports_names(words: tuple[str, ...], says: str, files: Named) -> None:
    given = [word[: word.index("{")] + files[word[word.index("{") + 1 : -1]] if "{" in word else word for word in words]
    assert says in refuse("run", FILE, *given)
