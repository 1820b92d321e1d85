"""The app, built once for all tests of a process: of a bundle with a small file that runs and one that is left out."""

import os
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from bigvit_edge.app import android_tools, apk
from bigvit_edge.app.android_tools import Key, check_tools
from bigvit_edge.artifact import hash_file
from bigvit_edge.devices.binaries import OVERRIDE
from bigvit_edge.errors import UserError
from bigvit_edge.manifest import write_manifest
from tests.native import ROOT, skip
from tests.test_artifact import ENTRY, MANIFEST

SMALL = ROOT / "tests/runtime/corpus/valid_tiny.bve"
PROGRAM = ROOT / "build/aarch64/bve-run"


class Built(NamedTuple):
    """An app, the bundle it was built of, the notes on that, its content, unpacked, its bytes before it was signed."""

    path: Path
    bundle: Path
    notes: tuple[str, ...]
    content: Path
    unsigned: bytes


def need_tools() -> None:
    """Skip a test where something that builds an app is missing."""
    try:
        check_tools()
    except UserError as e:
        skip(e.met, e.do)


def make_bundle(folder: Path) -> Path:
    """A .bve file that runs, and a .tflite that is none."""
    folder.mkdir()
    (folder / "tiny.bve").write_bytes(SMALL.read_bytes())
    (folder / "tiny.tflite").write_text("of another runtime")
    entries = (
        replace(ENTRY, file=name, format=kind, sha256=hash_file(folder / name), bytes=(folder / name).stat().st_size)
        for name, kind in (("tiny.bve", "bve"), ("tiny.tflite", "litert"))
    )
    write_manifest(replace(MANIFEST, artifacts=tuple(entries)), folder)
    return folder


@pytest.fixture(scope="module")  # what it sets is no other module's
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give a cache of the tests' own, and `make native-arm`'s bve-run in place of one that takes minutes to build."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        if not os.environ.get(OVERRIDE):
            if not PROGRAM.is_file():
                skip(f"no {PROGRAM.relative_to(ROOT)}", "make native-arm")
            patch.setenv(OVERRIDE, str(PROGRAM))
        yield folder


def build_watched(path: Path, bundle: Path) -> tuple[tuple[str, ...], bytes]:
    """Build an app; returns the notes, and its bytes before it was signed."""
    seen: list[bytes] = []

    def sign(archive: Path, key: Key, target: Path) -> None:
        seen.append(archive.read_bytes())
        android_tools.sign(archive, key, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(apk, "sign", sign)
        return apk.build_apk(path, bundle), seen[0]


@pytest.fixture(scope="module")
def built(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Give the app."""
    need_tools()
    folder = tmp_path_factory.mktemp("app")
    bundle, path = make_bundle(folder / "bundle"), folder / "bench.apk"
    notes, unsigned = build_watched(path, bundle)
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder / "content")
    return Built(path, bundle, notes, folder / "content", unsigned)
