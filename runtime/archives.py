"""An Android archive (.aar): the Java API and its libraries, packed without Gradle."""

import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path

from bigvit_edge.errors import UserError
from bigvit_edge.runtime.libraries import Step, build_libraries, find_sources, find_tool, run_tool

ARCHIVE = "bigvit-edge.aar"
ANDROID_ABIS = ("arm64-v8a",)
JNI = "jni"  # where CMake puts the library for Java
RELEASE = "8"  # of Java: what every Android's tools take
EPOCH = (1980, 1, 1, 0, 0, 0)  # so that equal input gives equal bytes


def build_archive(abi: str, folder: Path, step: Step = nullcontext) -> list[Path]:
    """Build what build_libraries does, and beside it bigvit-edge.aar.

    Returns the libraries and the archive. UserError as there, where Android does not run `abi`, and where the Java API
    cannot be compiled.
    """
    if abi not in ANDROID_ABIS:
        met = f"--aar for {abi}"
        raise UserError(met, f"an ABI of Android: {', '.join(ANDROID_ABIS)}", "leave --aar out, or change --abi")
    _find_javac()  # which is needed last

    def finish(part: Path) -> None:
        pack_archive({abi: part / JNI}, find_sources() / "runtime/java", part / ARCHIVE)
        shutil.rmtree(part / JNI)

    built = build_libraries(abi, folder, step, options=("-DBVE_JNI=ON",), finish=finish)
    return [*built, built[0].parent.parent / ARCHIVE]


def pack_archive(folders: Mapping[str, Path], sources: Path, archive: Path) -> None:
    """Pack the folders of libraries, by ABI, with the classes of `sources`.

    sources: runtime/java. UserError where javac is missing or fails.
    """
    with tempfile.TemporaryDirectory(prefix="bigvit-edge-") as scratch:
        classes, jar = Path(scratch, "classes"), Path(scratch, "classes.jar")
        # android.graphics.Bitmap is not at hand: the stubs have what is called of it, and stay out.
        run_tool(
            _find_javac(), "--release", RELEASE, "-Xlint:-options", "-encoding", "UTF-8", "-d", classes,
            "-sourcepath", sources / "stubs", *sorted((sources / "dev").rglob("*.java")),
        )  # fmt: skip
        _zip(jar, ((path.relative_to(classes).as_posix(), path) for path in (classes / "dev").rglob("*.class")))
        entries: list[tuple[str, Path | None]] = [
            ("AndroidManifest.xml", sources / "AndroidManifest.xml"),
            ("R.txt", None),
            ("classes.jar", jar),
            ("proguard.txt", sources / "proguard.txt"),
        ]
        for abi, folder in folders.items():
            entries += ((f"jni/{abi}/{path.name}", path) for path in folder.glob("*.so"))
        _zip(archive, entries)


def _zip(archive: Path, entries: Iterable[tuple[str, Path | None]]) -> None:
    """In order of name; None is an empty file."""
    with zipfile.ZipFile(archive, "w") as written:
        for name, path in sorted(entries, key=lambda entry: entry[0]):
            info = zipfile.ZipInfo(name, EPOCH)
            info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            written.writestr(info, b"" if path is None else path.read_bytes())


def _find_javac() -> str:
    return find_tool("javac", "apt-get install default-jdk-headless", "which compiles the Java API")
