"""A device's files, on a stand-in that copies into a folder: content-addressed, checked, and nothing else removed."""

import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path

import pytest

from bigvit_edge.devices import open_device
from bigvit_edge.devices.contract import BusyError, DeviceError
from bigvit_edge.devices.local import Local
from bigvit_edge.devices.store import FREE, Store


class Folder(Local):
    """This machine, to which files are copied all the same."""

    in_place = False

    def __init__(self, home: Path) -> None:
        super().__init__("local")
        self.home, self.pushed = str(home), 0

    def push(self, source: Path, target: str) -> None:
        self.pushed += 1
        super().push(source, target)


class Corrupting(Folder):
    """As a way that changes a byte."""

    def push(self, source: Path, target: str) -> None:
        data = bytearray(source.read_bytes())
        data[-1] ^= 1
        Path(target).write_bytes(data)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "a'b;c d.bve"
    path.write_bytes(b"weights")
    return path


def test_a_file_is_sent_once_and_removed_at_the_end(tmp_path: Path, model: Path) -> None:
    device = Folder(tmp_path / "it's home")
    with Store(device) as store:
        there = Path(store.place(model))
        assert there.parent.parent == Path(device.home)
        assert there.name == f"{hashlib.sha256(b'weights').hexdigest()[:16]}-a_b_c_d.bve"
        assert (there.read_bytes(), oct(there.stat().st_mode)[-3:]) == (b"weights", "600")
        assert list(there.parent.iterdir()) == [there]
        assert Path(store.place(model)) == there
        assert device.pushed == 1
        assert os.access(store.place(model, executable=True), os.X_OK)
        Path(store.reserve("answers")).write_bytes(b"1")
    assert not Path(device.home).exists()


def test_kept_files_are_found_again_and_removed_by_nobody(tmp_path: Path, model: Path) -> None:
    device = Folder(tmp_path / "home")
    with Store(device, keep=True) as store:
        there = Path(store.place(model))
        Path(store.reserve("answers")).write_bytes(b"1")
    assert list(Path(device.home).iterdir()) == [there]
    (tmp_path / "home/theirs").write_text("x")
    with Store(device) as store:
        assert Path(store.place(model)) == there
    assert device.pushed == 1
    assert set(Path(device.home).iterdir()) == {tmp_path / "home/theirs", there}


def test_no_end_removes_what_another_uses(tmp_path: Path, model: Path) -> None:
    device = Folder(tmp_path / "home")
    with Store(device) as bench:
        there = Path(bench.place(model))
        for kind in (None, BusyError, KeyboardInterrupt):
            with suppress(BusyError, KeyboardInterrupt), Store(device) as other:
                assert Path(other.place(model)) != there
                if kind:
                    raise kind("met", "expected")
            assert there.read_bytes() == b"weights"
        there.unlink()
        assert Path(bench.place(model)).read_bytes() == b"weights"  # what has gone is sent again
    assert not Path(device.home).exists()


def test_what_killed_benches_left_goes_when_it_is_old(tmp_path: Path, model: Path) -> None:
    device, old = Folder(tmp_path / "home"), time.time() - 2 * 3600
    places = [tmp_path / "home" / name for name in ("0123abcd", "89abcdef", "0123abcd-mine", "theirs77")]
    for place in places:
        place.mkdir(parents=True)
        (place / "file").write_text("x")
    (tmp_path / "home/01234567").write_text("no folder of ours")
    for place in (*places[:1], *places[2:]):
        os.utime(place, (old, old))
    with Store(device) as store:
        there = Path(store.place(model))
        store.clear()
        assert there.exists()
    left = sorted(place.name for place in Path(device.home).iterdir())
    assert left == ["01234567", "0123abcd-mine", "89abcdef", "theirs77"]


def test_a_changed_file_there_is_sent_again(tmp_path: Path, model: Path) -> None:
    device = Folder(tmp_path / "home")
    with Store(device, keep=True) as store:
        there = Path(store.place(model))
        there.write_bytes(b"weighte")
        store.place(model)
        assert there.read_bytes() == b"weights"


def test_a_corrupt_push_is_found_and_cleared(tmp_path: Path, model: Path) -> None:
    device = Corrupting(tmp_path / "home")
    with pytest.raises(DeviceError, match=r"a'b;c d.bve arrived on local with the sha256"), Store(device) as store:
        store.place(model)
    assert not Path(device.home).exists()


def test_an_answer_comes_back_whole(tmp_path: Path) -> None:
    device = Folder(tmp_path / "home")
    with Store(device) as store:
        there = store.reserve("answers")
        with pytest.raises(DeviceError, match="cannot be copied"):
            store.fetch(there, tmp_path / "answers")
        Path(there).write_bytes(b"12")
        store.fetch(there, tmp_path / "answers")
    assert list(tmp_path.iterdir()) == [tmp_path / "answers"]


def test_in_place_nothing_is_copied(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with Store(open_device("local")) as store:
        assert store.place(model) == str(model)
        reserved = Path(store.reserve("answers"))
        reserved.write_text("1")
    assert model.exists()
    assert not reserved.exists()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"gone\.bve cannot be read"):
        Store(Folder(tmp_path / "home")).place(tmp_path / "gone.bve")


@pytest.mark.parametrize(
    ("table", "free"),
    [
        ("/dev/mmcblk0p2  30450144  9000000  20180320  31% /", 20180320),  # coreutils
        ("/dev/mapper/a-very-long-name-of-a-volume\n        30450144  9000000  20180320  31% /", 20180320),  # busybox
        ("/dev/block/dm-45    111210476 36302816  74760876  33% /data/user/0", 74760876),  # toybox
        ("tmpfs 1024 1024 0 100% /tmp/a b", 0),
        ("overlay 1 2 -3 - /", -3),
    ],
)
def test_free_space_is_read_of_every_df(table: str, free: int) -> None:
    found = FREE.search(table)
    assert found
    assert int(found[1]) == free
