import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bigvit_edge.app.inbox import Inbox
from bigvit_edge.errors import UserError
from bigvit_edge.results import read_result
from tests.app.made import make_sent


def test_many_at_once_have_names_of_their_own(tmp_path: Path) -> None:
    inbox, data = Inbox(tmp_path / "results"), make_sent(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        kept = list(pool.map(inbox.add, [data] * 24))
    assert len({handle for handle, _ in kept}) == len({name for _, name in kept}) == 24
    assert sorted(path.name for path in inbox.folder.iterdir()) == sorted(name for _, name in kept)
    for _, name in kept:
        read_result(inbox.folder / name)


def test_what_was_there_stays(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "mine.json").write_text("mine")
    (folder / "web-of-mine.json").write_text("mine")
    inbox, data = Inbox(folder), make_sent(tmp_path)
    _, name = inbox.add(data)
    (folder / name).write_text("changed by hand")
    _, other = Inbox(folder).add(data)
    assert other != name
    assert (folder / name).read_text() == "changed by hand"
    assert (folder / "mine.json").read_text() == "mine"
    assert inbox.list_names() == sorted([name, other], reverse=True)  # the user's own are not shown to pages


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "results")
    inbox.add(make_sent(tmp_path))
    (tmp_path / "secret.json").write_text("secret")
    (inbox.folder / "web-20260101-000000.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(KeyError):
        inbox.read("web-20260101-000000.json")
    with pytest.raises(KeyError):
        inbox.read("../secret.json")


def test_a_folder_that_cannot_be_one_is_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="a folder to make; choose another --results"):
        Inbox(tmp_path / "file")


def test_modes_are_the_users_own(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        inbox = Inbox(tmp_path / "results")
        _, name = inbox.add(make_sent(tmp_path))
    finally:
        os.umask(before)
    assert (inbox.folder / name).stat().st_mode & 0o777 == 0o640
