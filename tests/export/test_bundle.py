"""A bundle is written whole or not at all."""

from dataclasses import replace
from pathlib import Path

import pytest

from bigvit_edge.artifact import write_manifest
from bigvit_edge.errors import UserError
from bigvit_edge.export.bundle import writing
from tests.test_artifact import MANIFEST


def fill(folder: Path, text: str) -> None:
    write_manifest(replace(MANIFEST, model=text), folder)


def test_a_good_end_leaves_the_folder_and_nothing_beside_it(tmp_path: Path) -> None:
    with writing(tmp_path / "a" / "out", force=False) as part:
        fill(part, "new")
        assert not (tmp_path / "a" / "out").exists()
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["out"]
    assert (tmp_path / "a" / "out").stat().st_mode & 0o055 == 0o055  # readable as any folder is, not mkdtemp's 0700


@pytest.mark.parametrize("end", [KeyboardInterrupt, ValueError])
def test_a_bad_end_leaves_what_was_there(tmp_path: Path, end: type[BaseException]) -> None:
    out = tmp_path / "out"
    with writing(out, force=False) as part:
        fill(part, "old")
    before = (out / "manifest.json").read_text()

    def spoil() -> None:
        with writing(out, force=True) as part:
            fill(part, "new")
            raise end

    with pytest.raises(end):
        spoil()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert (out / "manifest.json").read_text() == before


def test_force_replaces_a_bundle(tmp_path: Path) -> None:
    for text in ("old", "new"):
        with writing(tmp_path / "out", force=True) as part:
            fill(part, text)
    assert '"new"' in (tmp_path / "out" / "manifest.json").read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_an_empty_folder_may_be_filled_and_a_file_may_not(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with writing(tmp_path / "empty", force=False) as part:
        fill(part, "new")
    assert (tmp_path / "empty" / "manifest.json").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"is a file"), writing(tmp_path / "file", force=True):
        pass


def test_a_link_stays_one(tmp_path: Path) -> None:
    with writing(tmp_path / "real", force=False) as part:
        fill(part, "old")
    (tmp_path / "link").symlink_to("real")
    with writing((tmp_path / "link").resolve(), force=True) as part:
        fill(part, "new")
    assert (tmp_path / "link").is_symlink()
    assert '"new"' in (tmp_path / "real" / "manifest.json").read_text()


def test_the_working_directory_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"cannot be renamed"), writing(tmp_path, force=True):
        pass


def test_folders_made_on_the_way_vanish_too_and_the_error_says_so(tmp_path: Path) -> None:
    def spoil() -> None:
        with writing(tmp_path / "deep" / "er" / "out", force=False):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        spoil()
    assert list(tmp_path.iterdir()) == []
    assert caught.value.__notes__ == ["nothing was written"]


def test_a_failed_swap_puts_the_old_bundle_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    with writing(out, force=False) as part:
        fill(part, "old")
    rename = Path.rename

    def interrupt(self: Path, target: Path) -> Path:
        if self.suffix == ".part":
            raise KeyboardInterrupt
        return rename(self, target)

    def replace_it() -> None:
        with writing(out, force=True) as part:
            fill(part, "new")
            monkeypatch.setattr(Path, "rename", interrupt)

    with pytest.raises(KeyboardInterrupt):
        replace_it()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert '"old"' in (out / "manifest.json").read_text()
