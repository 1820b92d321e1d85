"""The lock of a device: one word tells who has it, another user's is seen, and no folder of one's own splits it."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from bigvit_edge.bench.cases import list_cases
from bigvit_edge.bench.measurement import Plan, measure
from bigvit_edge.devices.contract import BusyError
from bigvit_edge.devices.local import Local
from bigvit_edge.devices.occupancy import LOOK, NAME, OVERRIDE, check_free, lock
from bigvit_edge.devices.store import Store
from bigvit_edge.results import Protocol
from tests.native import ROOT, run_program, skip

BVE_RUN = ROOT / "build/host/bve-run"
NOBODY = 65534


class Counting(Local):
    """This machine, which notes what is run on it."""

    def __init__(self) -> None:
        super().__init__("local")
        self.asked: list[str] = []

    def shell(self, words: Sequence[str], environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        self.asked.append(Path(words[0]).name)
        return super().shell(words, environment)


@contextmanager
def holding(file: Path, *before: str) -> Iterator[subprocess.Popen[str]]:
    run_program("bve-run", "--version")  # or skip
    words = [*before, str(BVE_RUN), "hold", str(file), "--by=them"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        yield holder
        holder.kill()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(OVERRIDE, str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("has_flock", [True, False])
def test_a_bench_that_is_refused_has_asked_one_word(
    has_flock: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if has_flock and not shutil.which("flock"):
        skip("no flock", "apt-get install util-linux")
    monkeypatch.setattr("bigvit_edge.devices.occupancy.LOOK", LOOK if has_flock else LOOK.replace("flock", "no_flock"))
    device = Counting()

    def install(store: object) -> str:
        raise AssertionError("brought before the lock was asked for")

    with holding(folder / NAME):
        then = time.time() - 7 * 60 - 5
        os.utime(folder / NAME, (then, then))
        with pytest.raises(BusyError, match="local has been measured for 7 minutes by them"):
            measure([], device, install, Plan(Protocol(0.001, 2, 2, 0, 0, None, "none")), folder / "result.json")
    assert device.asked == ["sh"]


def test_a_lock_whose_holder_was_killed_is_free(folder: Path) -> None:
    with holding(folder / NAME):
        pass
    assert (folder / NAME).exists()
    assert check_free(Local("local")) == str(folder)
    with lock(Local("local"), str(BVE_RUN)), pytest.raises(BusyError, match=f"process {os.getpid()}"):
        check_free(Local("local"))


def test_a_look_is_no_lock(folder: Path) -> None:
    (folder / NAME).write_text("")
    with subprocess.Popen(
        ["flock", "-s", str(folder / NAME), "sh", "-c", "echo looks; sleep 0.05"], stdout=subprocess.PIPE
    ) as look:
        assert look.stdout
        assert look.stdout.readline() == b"looks\n"
        with holding(folder / NAME):
            pass


def test_no_folder_of_ones_own_splits_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(OVERRIDE)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("bigvit_edge.devices.occupancy.NAME", f"{tmp_path.parent.name}-{os.getpid()}.lock")
    assert check_free(Local("local")) == "/tmp"


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root, to be two users")
def test_another_users_lock_is_seen_and_its_file_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bigvit_edge.devices.occupancy.FOLDERS", ("/tmp",))
    name = f"bigvit-edge-test-{os.getpid()}.lock"
    monkeypatch.setattr("bigvit_edge.devices.occupancy.NAME", name)
    monkeypatch.delenv(OVERRIDE)
    file, other = Path("/tmp") / name, ("setpriv", f"--reuid={NOBODY}", "--clear-groups")
    program = shutil.copy(BVE_RUN, f"/tmp/{name}.program")  # where the other may run it
    words = [*other, program, "hold", str(file), "--by=me"]
    try:
        with holding(file):
            done = subprocess.run(words, input="", capture_output=True, text=True, check=False)
            assert (done.returncode, done.stdout.split()[0], done.stdout.split()[2]) == (1, "busy", "them"), done
        assert file.stat().st_uid == os.getuid()  # it was killed
        assert oct(file.stat().st_mode)[-3:] == "666"
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(BusyError, match="by me"):
                check_free(Local("local"))
    finally:
        file.unlink(missing_ok=True)
        Path(program).unlink(missing_ok=True)


def test_a_benchs_files_go_while_it_still_holds_the_device(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_program("bve-run", "--version")
    held = []

    def remove(store: Store) -> None:
        with suppress(BusyError):
            held.append(check_free(store.device) and False)
            return
        held.append(True)

    monkeypatch.setattr(Store, "remove", remove)
    cases = list_cases([ROOT / "tests/runtime/corpus/valid_tiny.bve"])
    plan = Plan(Protocol(0.001, 2, 1, 0, 0, None, "none"), energy=False)
    measure(cases, Local("local"), lambda store: str(BVE_RUN), plan, folder / "result.json")
    assert held == [True, False]
