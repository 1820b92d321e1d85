"""The wheel on a board: Debian for arm64 under qemu, with Python and what pip brings; no compiler, no PyTorch."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from bigvit_edge.cli import app
from bigvit_edge.models.zoo import CARDS
from bigvit_edge.results import read_result
from bigvit_edge.runtime import Session
from tests.native import ROOT, skip
from tests.test_tiny import TINY
from tests.test_wheels import MOST_BYTES, find_wheel

BOARD = ROOT / "build/board-root"
PLATFORMS = [f"--platform=manylinux_{glibc}_aarch64" for glibc in ("2_17", "2_27", "2_28")]
SECONDS = 600
PROGRAM = ("python3", "-c", "from bigvit_edge.cli import main; main()")

SESSION = """
import sys
import numpy as np
from bigvit_edge.runtime import Session
image = np.random.default_rng(0).standard_normal((1, 3, 32, 32), np.float32)
with Session("/mnt/bundle/tiny_int8.bve") as session:
    np.save("/mnt/logits.npy", session.run(image))
assert "torch" not in sys.modules
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the package installed for the board, in site/, a bundle and a picture."""
    if os.geteuid() or not (BOARD / ".ready").is_file() or not shutil.which("qemu-aarch64"):
        skip("no root for boards, no right to enter it, or no qemu-aarch64", "make board-root, as root")
    folder = tmp_path_factory.mktemp("board")
    python = next(BOARD.glob("usr/bin/python3.1[0-9]")).name.removeprefix("python")
    subprocess.run(
        [
            sys.executable, "-m", "pip", "install", "-q", "--target", folder / "site", "--only-binary=:all:",
            "--implementation=cp", f"--python-version={python}", *PLATFORMS, find_wheel("aarch64"),
        ],
        check=True,
    )  # fmt: skip
    CARDS["tiny"] = TINY
    limits = ("--set", "limits.images=4", "--set", "limits.untrained_cosine=0.98", "--set", "precisions=int8")
    made = CliRunner().invoke(app, ["export", "tiny", "--format", "bve", "-o", str(folder / "bundle"), *limits])
    del CARDS["tiny"]
    assert made.exit_code == 0, made.output
    Image.effect_noise((40, 40), 90).convert("RGB").save(folder / "picture.png")
    folder.chmod(0o777)  # root there is another here
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def call(shared: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A program on the board."""
    script = 'export PATH=/mnt/site/bin:/usr/bin PYTHONPATH=/mnt/site PYTHONDONTWRITEBYTECODE=1; cd /tmp; exec "$@"'
    command = [ROOT / "tests/enter_root.sh", BOARD, shared, "/usr/bin/sh", "-c", script, "sh", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)


def test_a_picture_has_the_classes_that_it_has_here(shared: Path) -> None:
    words = ("run", "bundle/tiny_int8.bve", "picture.png", "--json")
    there = call(shared, *PROGRAM, *(f"/mnt/{w}" if "." in w else w for w in words))
    assert there.returncode == 0, there.stderr
    here = CliRunner().invoke(app, [str(shared / w) if "." in w else w for w in words]).stdout
    expected, found = ({g["label"]: g["probability"] for g in json.loads(text)} for text in (here, there.stdout))
    assert list(found) == list(expected)
    assert found == pytest.approx(expected, abs=0.01)


def test_a_session_answers_as_it_does_here(shared: Path) -> None:
    done = call(shared, "python3", "-c", SESSION)
    assert done.returncode == 0, done.stderr
    with Session(shared / "bundle/tiny_int8.bve") as session:
        expected = session.run(np.random.default_rng(0).standard_normal((1, 3, 32, 32), np.float32))
    np.testing.assert_allclose(np.load(shared / "logits.npy"), expected, atol=0.02 * np.abs(expected).max())


def test_bve_run_measures(shared: Path) -> None:
    done = call(shared, "bve-run", "bench", "/mnt/bundle/tiny_int8.bve", "--seconds", "0.2")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


def test_a_bench_measures_there(shared: Path) -> None:
    words = ("bench", "/mnt/bundle", "--rounds", "1", "--no-energy", "-o", "/mnt/result.json")
    done = call(shared, *PROGRAM, *words)
    assert done.returncode == 0, done.stderr
    result = read_result(shared / "result.json")
    (row,) = result.rows
    assert (row.file, row.error) == ("tiny_int8.bve", "")
    assert "asimd" in result.machine.isa
    assert row.latency_ms
    assert row.latency_ms.p50 > 0


def test_an_export_names_its_extra(shared: Path) -> None:
    done = call(shared, *PROGRAM, "export", "--format", "bve")
    assert done.returncode == 2
    assert done.stderr.startswith("error: torch, networkx, safetensors, sklearn, skimage are not installed")
    assert done.stderr.strip().endswith("pip install 'bigvit-edge[export,demo]'")


def test_it_is_small_and_wants_no_compiler(shared: Path) -> None:
    own = sum(path.stat().st_size for path in (shared / "site/bigvit_edge").rglob("*") if path.is_file())
    assert own < MOST_BYTES
    assert not [name for name in ("torch", "networkx", "safetensors") if (shared / "site" / name).exists()]
    assert call(shared, "sh", "-c", "command -v cc gcc g++ c++ cmake").stdout == ""
