import base64
import hashlib
import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

from bigvit_edge.app import packages
from bigvit_edge.app.packages import PACKAGES, Package, find_packages
from bigvit_edge.errors import UserError


def make_archive(files: dict[str, bytes]) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return held.getvalue()


ARCHIVE = make_archive(
    {
        "package/dist/index.js": b'import { a } from "@litertjs/wasm-utils";',
        "package/dist/not-asked-for.js": b"",
        "package/../../outside.js": b"out",
    }
)


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An npm that brings one archive; its words are beside it."""
    program = tmp_path / "bin/npm"
    program.parent.mkdir()
    (tmp_path / "archive.tgz").write_bytes(ARCHIVE)
    program.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\ncp {tmp_path}/archive.tgz a-1.0.0.tgz\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    sha512 = base64.b64encode(hashlib.sha512(ARCHIVE).digest()).decode()
    monkeypatch.setattr(packages, "PACKAGES", (Package("@a/b", "1.0.0", sha512, {"litert.js": "dist/index.js"}),))
    return program


def test_npm_is_asked_once_and_only_for_what_is_served(npm: Path, tmp_path: Path) -> None:
    found = find_packages()
    assert find_packages() == found
    assert (tmp_path / "asked").read_text() == "pack --silent --ignore-scripts @a/b@1.0.0\n"
    assert found["litert.js"].read_bytes() == b'import { a } from "./wasm-utils.js";'
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert kept == [tmp_path / "cache/bigvit-edge/npm/@a+b-1.0.0/litert.js"]
    assert not list(tmp_path.rglob("outside.js"))


def test_other_bytes_than_were_published_are_refused(npm: Path, tmp_path: Path) -> None:
    (tmp_path / "archive.tgz").write_bytes(make_archive({"package/dist/index.js": b"evil"}))
    with pytest.raises(UserError, match=r"what npm brought for @a/b@1\.0\.0 has SHA-512"):
        find_packages()
    assert not (tmp_path / "cache").exists()


def test_an_npm_without_network_is_told(npm: Path) -> None:
    npm.write_text("#!/bin/sh\necho 'npm error code ENOTFOUND' >&2\nexit 1\n")
    with pytest.raises(UserError, match=r"npm did not bring @a/b@1\.0\.0 \(npm error code ENOTFOUND\).*a network"):
        find_packages()


def test_no_npm_is_told(npm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"no npm; .*apt-get install npm"):
        find_packages()


def test_all_that_is_served_is_named_and_pinned() -> None:
    for package in PACKAGES:
        assert len(base64.b64decode(package.sha512)) == 64
        assert package.version.count(".") == 2
    names = [name for package in PACKAGES for name in package.files]
    assert len(names) == len(set(names))
