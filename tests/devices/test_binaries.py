"""Which bve-run a device gets: the one named, the newest built, or one that is built now; and what is refused."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from bigvit_edge.devices import binaries, open_device
from bigvit_edge.devices.binaries import OVERRIDE, find_bve_run, install_bve_run
from bigvit_edge.devices.contract import Device, DeviceError
from bigvit_edge.devices.local import Local
from bigvit_edge.devices.occupancy import lock
from bigvit_edge.devices.store import Store
from bigvit_edge.errors import UserError
from tests.native import ROOT, skip


class Board(Local):
    """This machine, to which files would be copied, and which says that it is of another kind."""

    in_place = False

    def __init__(self, kind: str) -> None:
        super().__init__("local")
        self.kind = kind

    def shell(self, words: object, environment: object = None) -> subprocess.Popen[bytes]:
        return super().shell(("echo", self.kind))


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a checkout of few files, and no cache."""
    folder = tmp_path / "checkout"
    for name in ("runtime/a.cc", "kernels_arm/b.inc", "CMakeLists.txt", "pyproject.toml"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    monkeypatch.setattr(binaries, "find_sources", lambda: folder)
    monkeypatch.setattr(binaries, "_build", lambda sources, architecture, target: build(target))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(OVERRIDE, raising=False)
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    return folder


def build(target: Path) -> None:
    target.parent.mkdir(parents=True)
    target.write_text("built")


@pytest.mark.parametrize("kind", ["armv7l", "riscv64", "mips; reboot", ""])
def test_other_architectures_are_refused(kind: str, sources: Path) -> None:
    with pytest.raises(DeviceError, match=f"a machine of {kind or 'no known kind'}; expected aarch64 or x86_64"):
        find_bve_run(Board(kind))


@pytest.mark.parametrize("kind", ["aarch64", "armv8l", "arm64", "x86_64"])
def test_one_is_built_once_for_each_state_of_the_sources(kind: str, sources: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="was built yet"):
        find_bve_run(Board(kind), build=False)
    first = find_bve_run(Board(kind))
    assert first.is_relative_to(tmp_path / "cache")
    assert find_bve_run(Board(kind), build=False) == first
    (sources / "runtime/a.cc").write_text("changed")
    assert find_bve_run(Board(kind)) != first


def test_a_machine_of_this_kind_gets_the_installed_one(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(binaries, "_find_installed", lambda: Path("installed"))
    assert find_bve_run(Board("x86_64"), build=False) == Path("installed")
    assert find_bve_run(Board("aarch64")) != Path("installed")
    assert find_bve_run(Board("x86_64"), installed=False) != Path("installed")


def test_one_is_built_where_the_installed_one_lacks_its_libraries(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = tmp_path / "lacking"
    lacking.write_text("#!/bin/sh\necho no libc.so.6 >&2; exit 127\n")
    built = tmp_path / "built"
    built.write_text("#!/bin/sh\necho 1.0\n")
    for path in (lacking, built):
        path.chmod(0o755)
    monkeypatch.setattr("platform.machine", lambda: os.uname().machine)
    monkeypatch.setattr(binaries, "_find_installed", lambda: lacking)

    def copy_built(sources: Path, architecture: str, target: Path) -> None:
        target.parent.mkdir(parents=True)
        shutil.copy(built, target)

    monkeypatch.setattr(binaries, "_build", copy_built)
    board = Local("local")
    monkeypatch.setattr(board, "in_place", False)
    board.home = str(tmp_path / "home")
    with Store(board) as store:
        there = install_bve_run(board, store)
        assert Path(there).read_text() == built.read_text()
    monkeypatch.setattr(binaries, "can_build", lambda: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another cache"))
    with Store(board) as store, pytest.raises(DeviceError, match=r"does not run .*no libc\.so"):
        install_bve_run(board, store)


def test_the_checkout_s_own_is_taken_while_it_is_newest(sources: Path) -> None:
    made = sources / "build/aarch64/bve-run"
    made.parent.mkdir(parents=True)
    made.write_text("made")
    assert find_bve_run(Board("aarch64")) == made
    os.utime(made, (1, 1))
    assert find_bve_run(Board("aarch64")) != made


def test_one_that_is_named_must_be_for_the_device(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + bytes((2, 0, 183, 0))
    for name, content in (("arm", header), ("script", b"#!/bin/sh\n"), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
    monkeypatch.setenv(OVERRIDE, str(tmp_path / "arm"))
    assert find_bve_run(Board("aarch64")) == tmp_path / "arm"
    for name, kind in (("arm", "x86_64"), ("script", "aarch64"), ("empty", "aarch64"), ("gone", "aarch64")):
        monkeypatch.setenv(OVERRIDE, str(tmp_path / name))
        with pytest.raises(UserError, match=f"expected a bve-run for {kind}.*unset it"):
            find_bve_run(Board(kind))


def test_without_zig_the_ways_out_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"no ziglang to build it; .*pip install ziglang cmake ninja"):
        binaries._build(tmp_path, "aarch64", tmp_path / "bve-run")


def test_a_lock_is_left_by_no_one(tmp_path: Path) -> None:
    program = ROOT / "build/host/bve-run"
    if not program.is_file():
        skip(f"no {program}", "make native")
    local: Device = open_device("local")
    told = "local has been measured for"
    with lock(local, str(program)), pytest.raises(DeviceError, match=told), lock(local, str(program)):
        pass
    (tmp_path / "link").symlink_to(tmp_path / "victim")
    for file, told in ((tmp_path / "link", "expected a file to lock"), (tmp_path, "Is a directory")):
        done = subprocess.run([program, "hold", file], capture_output=True, text=True, check=False, input="")
        assert (done.returncode, told in done.stderr) == (2, True), done
    assert not (tmp_path / "victim").exists()
    done = subprocess.run([program, "hold", tmp_path / "lock"], capture_output=True, text=True, check=False, input="")
    assert (done.returncode, done.stdout, (tmp_path / "lock").exists()) == (0, "held\n", False)
