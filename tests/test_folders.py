"""A folder is made whole or not at all, wherever it is; what was killed is cleared, what is somebody's is not."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from bigvit_edge.errors import UserError
from bigvit_edge.folders import LOCK, MARK, MOST_PATH, NEW, OLD, check_rights, clear_leftovers, resolve_output, staging

NOBODY = 65534


def stage(folder: Path) -> AbstractContextManager[Path]:
    return staging(folder, lambda: resolve_output(folder))


def test_what_the_block_fills_takes_the_place_whole(tmp_path: Path) -> None:
    out = tmp_path / "a" / "out"
    with stage(out) as part:
        (part / "x").write_text("new")
        assert not out.exists()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["out"]
    assert out.stat().st_mode & 0o055 == 0o055  # readable as any folder is, not mkdtemp's 0700
    assert (out / "x").read_text() == "new"


def test_a_folder_that_is_replaced_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir(mode=0o700)
    with stage(tmp_path / "out") as part:
        (part / "x").write_text("new")
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "x"]


@pytest.mark.parametrize("end", [KeyboardInterrupt, ValueError, GeneratorExit])
def test_a_bad_end_leaves_what_was_there_and_no_parents(tmp_path: Path, end: type[BaseException]) -> None:
    def fail(folder: Path) -> None:
        with stage(folder) as part:
            (part / "x").write_text("new")
            raise end

    (tmp_path / "out").mkdir()
    for folder in (tmp_path / "out", tmp_path / "deep/er/out"):
        with pytest.raises(end) as caught:
            fail(folder)
        assert caught.value.__notes__ == ["nothing was written"]
    assert [*tmp_path.rglob("*")] == [tmp_path / "out"]


def test_a_failed_swap_puts_the_old_one_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, rename = tmp_path / "out", Path.rename
    (out / "old").mkdir(parents=True)

    def interrupt(self: Path, target: Path) -> Path:
        if self.name == NEW:
            raise KeyboardInterrupt
        return rename(self, target)

    def replace_it() -> None:
        with stage(out):
            monkeypatch.setattr(Path, "rename", interrupt)

    with pytest.raises(KeyboardInterrupt):
        replace_it()
    assert [*tmp_path.rglob("*")] == [out, out / "old"]


def test_the_old_one_is_never_lost_where_somebody_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, rename = tmp_path / "out", Path.rename
    out.mkdir()
    (out / "old").write_text("mine")

    def come_between(self: Path, target: Path) -> Path:
        renamed = rename(self, target)
        if target.name == OLD:
            (out / "theirs").mkdir(parents=True)
        return renamed

    def replace_it() -> None:
        with stage(out) as part:
            (part / "x").write_text("new")
            monkeypatch.setattr(Path, "rename", come_between)

    with pytest.raises(UserError, match="made by somebody else") as caught:
        replace_it()
    monkeypatch.undo()
    kept = Path(caught.value.met.rpartition(" is in ")[2])
    with stage(tmp_path / "another"):  # clears what dead processes left
        pass
    assert (kept / "old").read_text() == "mine"
    assert [path.name for path in out.iterdir()] == ["theirs"]
    (out / "theirs").rmdir()
    out.rmdir()
    clear_leftovers(tmp_path)
    assert [path.name for path in out.iterdir()] == ["old"]


def test_what_a_killed_process_had_moved_away_is_back_before_the_first_check(tmp_path: Path) -> None:
    (make_part(tmp_path) / OLD).mkdir()

    def refuse() -> None:
        if (tmp_path / "out").exists():
            raise UserError("a bundle already", "a new folder")

    with pytest.raises(UserError, match="a bundle already"), staging(tmp_path / "out", refuse):
        pytest.fail("an hour of work for nothing")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_who_came_first_meanwhile_is_not_written_over(tmp_path: Path) -> None:
    def refuse() -> None:
        if (tmp_path / "out").exists():
            raise UserError("somebody's", "nothing")

    def come_late() -> None:
        with staging(tmp_path / "out", refuse) as part:
            (part / "x").write_text("new")
            (tmp_path / "out").mkdir()
            (tmp_path / "out/theirs").write_text("first")

    with pytest.raises(UserError):
        come_late()
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "out", tmp_path / "out/theirs"]


# ---- where a folder can be -------------------------------------------------------------------------------------------


def make_file(folder: Path) -> None:
    (folder / "file").write_text("x")


def make_circle(folder: Path) -> None:
    (folder / "loop").symlink_to("loop")
    (folder / "one").symlink_to("two")
    (folder / "two").symlink_to("one")


@pytest.mark.parametrize(
    ("make", "path", "message"),
    [
        (make_circle, "loop", "leads nowhere|is a link to itself"),
        (make_circle, "one/out", "leads nowhere|is a link to itself|is no folder"),
        (make_file, "file", "is a file"),
        (make_file, "file/out", "file is no folder"),
        (make_file, "a/" + "x" * 256, "a name of 256 bytes"),
        (make_file, "a/" + "\u00e9" * 128 + "/out", "a name of 256 bytes"),
        (make_file, "/".join(["x" * 200] * 20), "a path of"),
        (make_file, "a\0b", "leads nowhere"),
        (make_file, ".", "cannot be renamed"),
        (make_file, "..", "cannot be renamed"),
        (make_file, "", "cannot be renamed"),
    ],
)
def test_where_no_folder_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], path: str, message: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    make(tmp_path / "here")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=message):
        resolve_output(Path(path))
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(UserError, match=r"; choose another --swift$"):
        resolve_output(Path(path), "--swift")


def test_a_place_that_takes_nothing_is_told_of_what_was_to_be_made_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *args, **options: False)  # root may write to any but a disk's own
    with pytest.raises(UserError) as caught:
        check_rights(Path("there"), "--file", "a file")
    assert str(caught.value) == (
        "there, where this user may not write; expected a file where the user may make one; choose another --file"
    )


def test_the_longest_name_can_be_made(tmp_path: Path) -> None:
    for name in ("x" * 255, "\u00e9" * 127):
        with stage(resolve_output(tmp_path / name)) as part:
            (part / "x").touch()
        assert (tmp_path / name / "x").exists()


def test_a_path_is_the_same_after_the_working_directory_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here/there").mkdir(parents=True)
    (tmp_path / "here/link").symlink_to("there")
    monkeypatch.chdir(tmp_path / "here")
    found = [resolve_output(Path(path)) for path in ("out", "absent/../out", "link/../out", "link", "link/out")]
    there = tmp_path / "here/there"
    assert found == [tmp_path / "here/out"] * 3 + [there, there / "out"]


def test_a_working_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(UserError, match="leads nowhere"):
        resolve_output(Path("out"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make folders of another user")
def test_folders_of_another_user() -> None:
    def judge(folder: Path) -> str:
        try:
            with stage(folder):
                return "made"
        except UserError as e:
            return e.met.removeprefix(str(folder.parent))

    with tempfile.TemporaryDirectory() as root:  # not tmp_path, which is closed to others
        above = Path(root)
        above.chmod(0o755)
        for name, mode in (("closed", 0o755), ("open", 0o777), ("sticky", 0o1777)):
            (above / name / "theirs").mkdir(parents=True)
            (above / name).chmod(mode)
        (above / "sticky/theirs").chmod(0o777)
        before = sorted(above.rglob("*"))
        os.seteuid(NOBODY)
        try:
            paths = ("closed/out", "closed/a/b", "open/theirs", "open/theirs/out", "sticky/theirs", "open/out")
            said = [judge(above / path) for path in paths]
        finally:
            os.seteuid(0)
        assert sorted(above.rglob("*")) == sorted([*before, above / "open/out"])
    assert all("where this user may not write" in line for line in said[:4])
    assert said[4:] == ["/theirs, which is another user's", "made"]


# ---- what was killed -------------------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys, time
from pathlib import Path
from bigvit_edge.folders import staging
folder = Path(sys.argv[1])
with staging(folder, lambda: None) as part:
    (part / "x").write_text("half")
    print(part.parent.name, flush=True)
    time.sleep(60)
"""


def start(folder: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that fills a folder, and where it does."""
    paths = os.pathsep.join(path for path in sys.path if path)
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder)], stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": paths},
    )  # fmt: skip
    assert process.stdout is not None
    return process, folder.parent / process.stdout.readline().strip()


def test_what_a_killed_process_left_is_cleared_by_the_next_and_what_a_living_one_fills_is_not(tmp_path: Path) -> None:
    dead, left = start(tmp_path / "out")
    living, filled = start(tmp_path / "other")
    dead.send_signal(signal.SIGKILL)
    dead.wait()
    assert (left / NEW / "x").read_text() == "half"
    with stage(tmp_path / "third"):
        pass
    try:
        assert not left.exists()
        assert (filled / NEW / "x").read_text() == "half"
    finally:
        living.kill()
        living.wait()


def make_part(above: Path, name: str = "abcdefgh", mark: bytes | None = MARK + b"/elsewhere/out") -> Path:
    part = above / f".bigvit-edge.{name}.part"
    (part / NEW).mkdir(parents=True)
    (part / NEW / "x").write_text("half")
    if mark is not None:
        (part / LOCK).write_bytes(mark)
    return part


def test_what_was_about_to_be_replaced_is_put_back(tmp_path: Path) -> None:
    part = make_part(tmp_path)
    (part / OLD).mkdir()
    (part / OLD / "manifest.json").write_text("mine")
    clear_leftovers(tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} == {"out", "out/manifest.json"}


def test_what_only_looks_like_ours_stays(tmp_path: Path) -> None:
    kept = [make_part(tmp_path, "nomarked", None), make_part(tmp_path, "othermrk", b"my notes")]
    kept += [make_part(tmp_path, "withmore"), make_part(tmp_path, "longername")]
    (kept[2] / "mine").write_text("mine")
    (tmp_path / ".bigvit-edge.linklink.part").symlink_to(make_part(tmp_path / "behind"))
    piped = make_part(tmp_path, "pipepipe", None)
    os.mkfifo(piped / LOCK)
    before = sorted(tmp_path.rglob("*"))
    clear_leftovers(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before
    assert MOST_PATH > 1024
