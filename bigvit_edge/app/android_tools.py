"""Debian's tools for Android, each found and called: aapt2, javac, dx, zipalign, apksigner, keytool."""

import os
import re
import secrets
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bigvit_edge.devices.contract import find_cache
from bigvit_edge.errors import UserError
from bigvit_edge.interruption import shielded
from bigvit_edge.runtime.libraries import run_tool

PROGRAMS = {  # and the package that brings each
    "aapt2": "aapt", "javac": "default-jdk-headless", "keytool": "default-jdk-headless",
    "dalvik-exchange": "dalvik-exchange", "zipalign": "zipalign", "apksigner": "apksigner",
}  # fmt: skip
FRAMEWORK = Path("/usr/share/android-framework-res/framework-res.apk")  # of Android 10: the newest names of resources
CLASSES = Path("/usr/lib/android-sdk/platforms/android-23/android.jar")  # of Android 6: no newer class or method
FILES = {FRAMEWORK: "android-framework-res", CLASSES: "libandroid-23-java"}
OLDER = ("dalvik-exchange", "libandroid-23-java")  # packages that Debian 11 has, and no later one
PASSWORD = "BVE_KEYSTORE_PASSWORD"  # the environment's word for it, of a key of the user's own
OWN_PASSWORD = "bigvit-edge"  # of the key made here, which the file's mode guards
ENGLISH = ("-J-Duser.language=en", "-J-Duser.country=US")  # of keytool's words
KEY = re.compile(r"^(.+), [^,]+, \d{4}, PrivateKeyEntry, ?$", re.MULTILINE)  # in its list, with the key's name
DAYS = 36_500
ALIGNMENT = "4"  # bytes, of what is not compressed

Words = tuple[str | Path, ...]


@dataclass(frozen=True)
class Key:
    """A keystore and its password; the first key in it signs."""

    path: Path
    password: str


def check_tools() -> None:
    """Check that all that builds an app is installed.

    UserError with the line that brings what is missing.
    """
    packages = [package for name, package in PROGRAMS.items() if shutil.which(name) is None]
    packages += [package for path, package in FILES.items() if not path.is_file()]
    if not packages:
        return
    missing = list(dict.fromkeys(packages))
    older = [name for name in missing if name in OLDER]
    do = f"as root: apt-get install {' '.join(missing)}"
    if older:
        do += f" ({' and '.join(older)} from Debian 11, as docs/app.md says)"
    raise UserError(f"missing of the system: {', '.join(missing)}", "Debian's tools for Android", do)


def compile_resources(sources: Path, version: str, folder: Path) -> Path:
    """Compile the manifest and the resources; returns an archive of them.

    folder: where it and R.java, their numbers, are written.
    """
    resources, archive = folder / "resources.zip", folder / "resources.apk"
    run_tool("aapt2", "compile", "--dir", sources / "res", "-o", resources)
    run_tool(
        "aapt2", "link", "-o", archive, "-I", FRAMEWORK, "--manifest", sources / "AndroidManifest.xml", "--java",
        folder, "--custom-package", "bigvit.edge", "--version-name", version, "--version-code", number_version(version),
        resources,
    )  # fmt: skip
    return archive


def compile_classes(sources: Path, folder: Path) -> Path:
    """Compile the Java sources and R.java to classes.dex, in `folder`."""
    stubs, classes, dex = folder / "stubs", folder / "classes", folder / "classes.dex"
    for made in (stubs, classes):
        made.mkdir()
    javac: Words = (
        "javac", "-Xlint:-options", "-encoding", "UTF-8", "-source", "8", "-target", "8",
        "-bootclasspath", CLASSES,
    )  # fmt: skip
    run_tool(*javac, "-d", stubs, *sorted((sources / "stubs").rglob("*.java")))
    java = sorted((sources / "java").glob("*.java"))
    run_tool(*javac, "-classpath", stubs, "-d", classes, *java, folder / "bigvit/edge/R.java")
    run_tool("dalvik-exchange", "--dex", "--min-sdk-version=23", f"--output={dex}", classes)
    return dex


def align(archive: Path, target: Path) -> None:
    """Align what an archive holds uncompressed, as Android 11 wants it."""
    run_tool("zipalign", "-f", ALIGNMENT, archive, target)


def sign(archive: Path, key: Key, target: Path) -> None:
    """Sign an archive in all three ways.

    Androids 6, 7 and 9 began with one each. target: in a folder that nobody else can read.
    """
    password = target.with_suffix(".password")  # not among the words, which all users of this machine see
    password.write_text(key.password)
    schemes = (word for n in (1, 2, 3) for word in (f"--v{n}-signing-enabled", "true"))
    words: Words = ("--ks", key.path, "--ks-pass", f"file:{password}", *schemes, "--v4-signing-enabled", "false")
    run_tool("apksigner", "sign", *words, "--out", target, archive)


def find_key(keystore: Path | None) -> Key:
    """Find the key to sign with.

    keystore: a user's own, whose password is in $BVE_KEYSTORE_PASSWORD; without one a key in this user's cache, made on
    first use. Who loses it cannot update an installed app, but install it anew. UserError where there is none, and
    where a user's own does not open or has not one private key of that same password.
    """
    if keystore is not None:
        if not keystore.is_file():
            raise UserError(f"no keystore {keystore}", "a file made by keytool", "check the path")
        if not (password := os.environ.get(PASSWORD)):
            raise UserError("a keystore without a password", f"it in ${PASSWORD}", f"export {PASSWORD}=...")
        _check_keystore(keystore)
        return Key(keystore, password)
    path = find_cache() / "android.keystore"
    if not path.is_file():
        _make_key(path)
    return Key(path, OWN_PASSWORD)


def _check_keystore(path: Path) -> None:
    """As apksigner opens it at the very end."""
    do = f"export {PASSWORD}=..."
    status, said = _ask_keytool("-list", path)
    if "password was incorrect" in said:
        raise UserError(f"{path}: ${PASSWORD} is not its password", "the keystore's password", do)
    if status:
        why = next((line.removeprefix("keytool error: ") for line in reversed(said.splitlines()) if line), "")
        raise UserError(f"{path} is no keystore of Java ({why})", "a file made by keytool", "check the path")
    keys = KEY.findall(said)
    if len(keys) != 1:
        expected = "one, which signs the app"
        raise UserError(f"{path} holds {len(keys)} private keys", expected, "make a keystore of that key alone")
    _, said = _ask_keytool("-certreq", path, "-alias", keys[0], "-keypass:env", PASSWORD)
    if "UnrecoverableKeyException" in said:
        met = f"{path}: ${PASSWORD} is not the password of its key {keys[0]!r}"
        raise UserError(met, "one password for the keystore and its key", "change the key's: keytool -keypasswd")


def _ask_keytool(verb: str, path: Path, *more: str) -> tuple[int, str]:
    """Status and words, in English; the password does not stand among the command's, which all users of this machine
    see.
    """
    words: Words = ("keytool", *ENGLISH, verb, "-keystore", path, "-storepass:env", PASSWORD, *more)
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
    )
    return done.returncode, done.stdout + done.stderr


def number_version(version: str) -> str:
    """Number a version 'a.b.c': a later one higher."""
    major, minor, patch = (int(part) for part in version.split("."))
    return str((major * 1000 + minor) * 1000 + patch)


def _make_key(path: Path) -> None:
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    words: Words = (
        "-genkeypair", "-keystore", part, "-storetype", "PKCS12", "-storepass", OWN_PASSWORD, "-alias", "bench",
        "-keyalg", "RSA", "-keysize", "3072", "-validity", str(DAYS), "-dname", "CN=bigvit-edge bench",
    )  # fmt: skip
    try:
        run_tool("keytool", *words)
        part.chmod(0o600)
        with shielded():
            if not path.is_file():  # another may have come first
                part.replace(path)
    finally:
        part.unlink(missing_ok=True)
