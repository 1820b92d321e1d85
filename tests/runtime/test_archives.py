"""runtime-libs --aar: an archive as Gradle takes it, and only where Android runs what is in it."""

import re
import zipfile
from pathlib import Path
from xml.etree import ElementTree

from bigvit_edge.runtime.archives import build_archive, pack_archive
from tests.native import ROOT
from tests.runtime.test_libraries import ask, call, require


def test_an_android_archive_has_what_gradle_takes(tmp_path: Path, ndk: Path, hollow: None) -> None:
    require("npm", "aarch64-linux-gnu-g++", "javac", "readelf")
    *_, archive = build_archive("arm64-v8a", tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["bigvit-edge.aar", "include", "lib", "share"]
    with zipfile.ZipFile(archive) as packed:
        assert packed.namelist() == [
            "AndroidManifest.xml", "R.txt", "classes.jar", "jni/arm64-v8a/libbve_jni.so", "proguard.txt",
        ]  # fmt: skip
        packed.extractall(tmp_path)
    manifest = ElementTree.parse(tmp_path / "AndroidManifest.xml").getroot()
    assert manifest.get("package") == "dev.bigvit.edge"
    assert [list(sdk.attrib.values()) for sdk in manifest.iter("uses-sdk")] == [["23"]]
    library = tmp_path / "jni/arm64-v8a/libbve_jni.so"
    assert "AArch64" in ask("readelf", "-h", library)
    assert {int(found, 16) for found in re.findall(r"LOAD .*\n.*0x(\w+)$", ask("readelf", "-l", library), re.M)} == {
        16384
    }
    with zipfile.ZipFile(tmp_path / "classes.jar") as jar:
        names = jar.namelist()
        assert {"Model", "Session", "Bve"} <= {Path(name).stem for name in names}
        assert all(name.startswith("dev/bigvit/edge/") for name in names)  # and no stand-in for Android's own
        assert {jar.read(name)[6:8] for name in names} == {b"\0\x34"}  # Java 8


def test_equal_input_gives_an_equal_archive(tmp_path: Path) -> None:
    require("javac")
    (tmp_path / "libbve_jni.so").write_bytes(b"a library")
    for name in ("one.aar", "two.aar"):
        pack_archive({"arm64-v8a": tmp_path}, ROOT / "runtime/java", tmp_path / name)
    assert (tmp_path / "one.aar").read_bytes() == (tmp_path / "two.aar").read_bytes()


def test_androids_tools_take_the_classes(tmp_path: Path) -> None:
    require("javac", "dalvik-exchange")
    pack_archive({}, ROOT / "runtime/java", tmp_path / "bare.aar")
    with zipfile.ZipFile(tmp_path / "bare.aar") as packed:
        packed.extract("classes.jar", tmp_path)
    ask(
        "dalvik-exchange",
        "--dex",
        "--min-sdk-version=23",
        f"--output={tmp_path / 'classes.dex'}",
        tmp_path / "classes.jar",
    )
    assert b"Ldev/bigvit/edge/Session;" in (tmp_path / "classes.dex").read_bytes()


def test_an_archive_is_for_android_alone(tmp_path: Path) -> None:
    said = call("--abi", "x86_64-linux", "--aar", "-o", tmp_path / "new")
    assert "--aar for x86_64-linux; expected an ABI of Android: arm64-v8a; leave --aar out" in said
    assert list(tmp_path.iterdir()) == []
