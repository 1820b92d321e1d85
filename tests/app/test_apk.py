"""The app as Android's own tools see it: signed, aligned, of what it is said to be; and what the verb refuses."""

import errno
import os
import re
import shutil
import struct
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bigvit_edge.app import android_tools, apk
from bigvit_edge.app.android_tools import PASSWORD, Key, find_key, number_version, sign
from bigvit_edge.app.apk import build_apk
from bigvit_edge.artifact import hash_file
from bigvit_edge.cli import app
from bigvit_edge.devices.binaries import OVERRIDE
from bigvit_edge.errors import UserError
from bigvit_edge.manifest import read_manifest, write_manifest
from tests.app.apks import SMALL, Built, build_watched, make_bundle, need_tools

PERMISSIONS = {"android.permission.FOREGROUND_SERVICE", "android.permission.FOREGROUND_SERVICE_DATA_SYNC"}


def ask(*words: str | Path) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=120).stdout


def list_entries(path: Path) -> dict[str, bytes]:
    """What an archive holds, but for its signature."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.startswith("META-INF/")}


def list_alignments(elf: bytes) -> list[int]:
    """Those of the segments that are loaded."""
    start, count = struct.unpack_from("<Q", elf, 32)[0], struct.unpack_from("<H", elf, 56)[0]
    segments = [struct.unpack_from("<II5QQ", elf, start + 56 * i) for i in range(count)]
    return [segment[-1] for segment in segments if segment[0] == 1]


def test_three_signatures_verify(built: Built) -> None:
    said = ask("apksigner", "verify", "--verbose", "--min-sdk-version", "23", built.path)
    found = dict(re.findall(r"Verified using v([123]) scheme .*: (\w+)", said))
    assert found == {"1": "true", "2": "true", "3": "true"}


def test_a_changed_byte_breaks_the_signature(built: Built, tmp_path: Path) -> None:
    data = bytearray(built.path.read_bytes())
    data[data.index(b"classes.dex") + 100] ^= 1
    (tmp_path / "changed.apk").write_bytes(data)
    done = subprocess.run(["apksigner", "verify", tmp_path / "changed.apk"], capture_output=True, check=False)
    assert done.returncode


def test_it_is_for_android_6_to_14_on_arm_and_wants_no_permission(built: Built) -> None:
    said = ask("aapt", "dump", "badging", built.path)
    assert re.findall(r"sdkVersion:'(\d+)'|targetSdkVersion:'(\d+)'", said) == [("23", ""), ("", "34")]
    assert set(re.findall(r"uses-permission: name='([^']*)'", said)) == PERMISSIONS
    assert f"package: name='{apk.PACKAGE}'" in said
    assert "launchable-activity: name='bigvit.edge.MainActivity'" in said
    assert re.findall(r"native-code: (.*)", said) == ["'arm64-v8a'"]


def test_the_manifest_lets_others_start_the_window_alone(built: Built) -> None:
    tree = ask("aapt", "dump", "xmltree", built.path, "AndroidManifest.xml")
    kinds = re.findall(r"E: (activity|service|provider|receiver) ", tree)
    exported = re.findall(r"exported\(0x[0-9a-f]+\)=\(type 0x12\)(0x[0-9a-f]+)", tree)
    assert kinds == ["activity", "service", "provider"]
    assert [value != "0x0" for value in exported] == [True, False, False]
    assert re.search(r"extractNativeLibs\(0x[0-9a-f]+\)=\(type 0x12\)0xffffffff", tree)
    (kept,) = re.findall(r"configChanges\(0x[0-9a-f]+\)=\(type 0x11\)(0x[0-9a-f]+)", tree)
    assert int(kept, 16) & 0x280 == 0x280  # neither nightfall nor a rotation makes the window anew in a run
    assert re.search(r"foregroundServiceType\(0x[0-9a-f]+\)=\(type 0x11\)0x1\b", tree)  # dataSync


def test_it_is_small_but_for_its_models(built: Built) -> None:
    assert built.path.stat().st_size < 1_000_000  # tests/bench_app.py holds the demo's, models and all, under 6 MB


def test_what_is_not_compressed_is_aligned(built: Built) -> None:
    ask("zipalign", "-c", "4", built.path)
    with zipfile.ZipFile(built.path) as archive:
        stored = [info.filename for info in archive.infolist() if info.compress_type == zipfile.ZIP_STORED]
    assert stored == ["resources.arsc"]


def test_the_bytecode_is_android_6s(built: Built) -> None:
    dex = built.content / "classes.dex"
    assert dex.read_bytes()[:8] == b"dex\n035\0"
    said = ask("dexdump", "-d", dex)
    ours = set(re.findall(r"Class descriptor  : 'L([^;]*);'", said))
    assert {f"bigvit/edge/{name}" for name in ("MainActivity", "HoldService", "FilesProvider", "Bridge")} <= ours
    assert all(name.startswith("bigvit/edge/") for name in ours)  # no class of a stub's
    assert "invoke-custom" not in said
    assert "invoke-polymorphic" not in said
    assert "Lambda" not in said


def test_it_holds_the_bundles_bve_files_the_page_and_the_program(built: Built) -> None:
    entries = list_entries(built.path)
    assert [name for name in entries if name.startswith("assets/bundle/")] == [
        "assets/bundle/manifest.json", "assets/bundle/tiny.bve",
    ]  # fmt: skip
    assert entries["assets/bundle/tiny.bve"] == SMALL.read_bytes()
    (entry,) = read_manifest(built.content / "assets/bundle").artifacts
    assert entry.sha256 == hash_file(SMALL)
    page = {path.name for path in apk.PAGE.iterdir()} - set(apk.BROWSERS) | {"pages.css"}
    assert {"index.html", "main.js", "android.js"} <= page
    assert {name.removeprefix("assets/page/") for name in entries if name.startswith("assets/page/")} == page
    program = entries["lib/arm64-v8a/libbve-run.so"]
    assert (program[:4], struct.unpack_from("<H", program, 18)[0]) == (b"\x7fELF", 183)
    assert b"ld-linux" not in program  # a static one, which needs nothing of a phone
    assert min(list_alignments(program)) >= 16384  # newer phones' pages
    assert built.notes == ("left out, as the app runs .bve files alone: tiny.tflite",)


def test_the_same_input_gives_the_same_bytes_but_for_the_signature(built: Built, tmp_path: Path) -> None:
    _, unsigned = build_watched(tmp_path / "again.apk", built.bundle)
    assert unsigned == built.unsigned
    assert list_entries(tmp_path / "again.apk") == list_entries(built.path)
    with zipfile.ZipFile(built.path) as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_the_key_is_made_once_and_is_this_users_alone(built: Built, cache: Path) -> None:
    key = cache / "bigvit-edge/android.keystore"
    assert key.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in key.parent.iterdir()] == [key.name]


def test_a_file_that_is_there_stays(built: Built, tmp_path: Path) -> None:
    there = tmp_path / "there.apk"
    there.write_text("mine")
    for output, met in ((there, "is there already"), (tmp_path, "is a folder"), (there / "below.apk", "is a file")):
        done = CliRunner().invoke(app, ["app", "apk", "-o", str(output), "--bundle", str(built.bundle)])
        assert (done.exit_code, met in done.stderr) == (2, True), done.stderr
    assert there.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["there.apk"]


def test_a_disk_without_room_is_told_with_the_file(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(self: Path, data: bytes) -> int:
        self.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", fill)
    with pytest.raises(UserError) as caught:
        apk._put(built.path, tmp_path / "new.apk", False)
    size = f"{built.path.stat().st_size:,}"
    assert str(caught.value) == (
        f"{tmp_path}/new.apk cannot be written (No space left on device); expected a place with room for its {size} "
        "bytes; choose another -o, or free some"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("spoil", "met"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "no manifest.json"),
        (lambda folder: (folder / "tiny.bve").unlink(), "tiny.bve"),
        (lambda folder: (folder / "tiny.bve").write_text("other"), "tiny.bve"),
    ],
)
def test_a_bundle_that_is_not_as_exported_is_refused(
    built: Built, tmp_path: Path, spoil: Callable[[Path], object], met: str
) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    spoil(bundle)
    with pytest.raises(UserError, match=met):
        build_apk(tmp_path / "a.apk", bundle)
    assert not (tmp_path / "a.apk").exists()


def test_a_bundle_without_a_bve_file_is_refused(built: Built, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    manifest = read_manifest(bundle)
    write_manifest(replace(manifest, artifacts=manifest.artifacts[1:], sha256=None), bundle)
    with pytest.raises(UserError, match=r"no \.bve file \(tiny\.tflite\)"):
        build_apk(tmp_path / "a.apk", bundle)


def test_a_program_of_another_machine_is_refused(built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OVERRIDE, str(shutil.which("true")))
    with pytest.raises(UserError, match="a bve-run for aarch64, which a phone is"):
        build_apk(tmp_path / "a.apk", built.bundle)


def test_what_is_missing_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(android_tools, "FILES", {tmp_path / "android.jar": "libandroid-23-java"})
    monkeypatch.setenv("PATH", str(tmp_path))
    done = CliRunner().invoke(app, ["app", "apk", "-o", str(tmp_path / "a.apk")])
    assert done.exit_code == 2
    line = "apt-get install aapt default-jdk-headless dalvik-exchange zipalign apksigner libandroid-23-java"
    assert line in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_keystore_of_ones_own(built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keystore = tmp_path / "own.keystore"
    words = ("-storepass", "secret", "-alias", "mine", "-keyalg", "RSA", "-dname", "CN=mine")
    ask("keytool", "-genkeypair", "-keystore", keystore, *words)
    with pytest.raises(UserError, match="a keystore without a password"):
        find_key(keystore)
    with pytest.raises(UserError, match="Failed to load signer") as caught:
        sign(built.path, Key(keystore, "wrong"), tmp_path / "a.apk")
    assert "password was incorrect" in str(caught.value)
    assert "\tat " not in str(caught.value)
    monkeypatch.setenv(PASSWORD, "secret")
    sign(built.path, find_key(keystore), tmp_path / "a.apk")
    assert "CN=mine" in ask("apksigner", "verify", "--print-certs", tmp_path / "a.apk")


def test_a_keystore_that_cannot_sign_is_one_line_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_tools()
    paths = {name: tmp_path / name for name in ("own.ks", "two.ks", "other.ks", "no.ks", "empty.ks")}
    words = ("keytool", "-genkeypair", "-storepass", "secret", "-keyalg", "EC", "-dname", "CN=mine", "-keystore")
    ask(*words, paths["own.ks"], "-alias", "a, b")
    for name in ("a", "b"):
        ask(*words, paths["two.ks"], "-alias", name)
    ask(*words, paths["other.ks"], "-alias", "a, b", "-storetype", "JKS", "-keypass", "another")
    paths["no.ks"].write_text("none")
    paths["empty.ks"].touch()
    monkeypatch.setenv(PASSWORD, "secret")
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    assert find_key(paths["own.ks"]) == Key(paths["own.ks"], "secret")
    before = sorted(tmp_path.iterdir())
    for name, password, met in (
        ("own.ks", "wrong", f"${PASSWORD} is not its password; expected the keystore's password; export {PASSWORD}="),
        ("other.ks", "wrong", f"${PASSWORD} is not its password"),
        ("other.ks", "secret", f"${PASSWORD} is not the password of its key 'a, b'"),
        ("two.ks", "secret", "holds 2 private keys; expected one"),
        ("no.ks", "secret", "is no keystore of Java (java."),
        ("empty.ks", "secret", "is no keystore of Java (java.lang.Exception: Keystore file exists, but is empty"),
    ):
        monkeypatch.setenv(PASSWORD, password)
        done = CliRunner().invoke(app, ["app", "apk", "-o", str(tmp_path / "a.apk"), "--keystore", str(paths[name])])
        assert (done.exit_code, done.stderr.count("\n"), met in done.stderr) == (2, 1, True), done.stderr
        assert str(paths[name]) in done.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_later_versions_have_larger_numbers() -> None:
    versions = ("0.1.0", "0.1.1", "0.2.0", "0.10.0", "1.0.0")
    numbers = [int(number_version(version)) for version in versions]
    assert sorted(set(numbers)) == numbers
