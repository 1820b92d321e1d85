"""The app's own bytecode and its own bve-run, as they are shipped, on a JVM and on an ARM CPU that qemu plays."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.app.apks import Built
from tests.native import ROOT, emulate, skip

HERE = Path(__file__).parent
SOURCES = ROOT / "devices/android/java"
JARS = {
    Path("/usr/share/java/junit4.jar"): "junit4",
    Path("/usr/share/java/hamcrest-core.jar"): "junit4",
    Path("/usr/share/java/com.android.json.jar"): "libandroid-json-java",
}
PACKAGES = Path("/usr/lib/python3/dist-packages/enjarify")  # which the system's own Python runs
ROOM = "400k"
LIMIT_S = 300


def need_jars() -> None:
    for path, package in {**JARS, PACKAGES: "enjarify"}.items():
        if not path.exists():
            skip(f"no {path}", f"apt-get install {package}")
    if os.geteuid():
        skip("not root", "run it as root, who alone may mount a folder of little room")


@pytest.fixture(scope="module")
def classes(built: Built, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give a class path: the shipped bytecode turned back into a JVM's, and the tests of it."""
    need_jars()
    folder = tmp_path_factory.mktemp("classes")
    words = ("/usr/bin/python3", "-O", "-m", "enjarify.main", "-o", folder / "app.jar", built.content / "classes.dex")
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert " 0 classes had errors" in done.stdout
    compiled, tests = folder / "compiled", folder / "tests"  # enjarify leaves out what only a compiler reads
    sources = [path for path in SOURCES.glob("*.java") if "import android." not in path.read_text()]
    jars = ":".join(map(str, JARS))
    subprocess.run(("javac", "-cp", jars, "-d", compiled, *sources), check=True)
    subprocess.run(("javac", "-cp", f"{jars}:{compiled}", "-d", tests, HERE / "BridgeTest.java"), check=True)
    return f"{folder / 'app.jar'}:{jars}:{tests}"


def test_every_verb_of_the_page(classes: str, built: Built, tmp_path: Path) -> None:
    program = built.content / "lib/arm64-v8a/libbve-run.so"
    program.chmod(0o755)
    launcher = "|".join(map(str, (*emulate("cortex-a76"), program)))
    small = tmp_path / "small"
    small.mkdir()
    java = ("java", "-cp", classes, f"-Dbundle={built.content / 'assets/bundle'}", f"-Dlauncher={launcher}")
    tests = (*java, f"-Dsmall={small}", "org.junit.runner.JUnitCore", "bigvit.edge.BridgeTest")
    mount = f'mount -t tmpfs -o size={ROOM} small "$0" && exec "$@"'
    words = ("unshare", "--mount", "sh", "-c", mount, small, *tests)
    done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stdout
    assert "OK (1" in done.stdout  # and not none
