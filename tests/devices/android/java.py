"""The app's shipped bytecode on a JVM, beside tests of it in Java."""

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


@pytest.fixture(scope="module")
def java(built: Built, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Give the words that start a JVM with the app's classes, told where its bundle is and how to start its bve-run."""
    for path, package in {**JARS, PACKAGES: "enjarify"}.items():
        if not path.exists():
            skip(f"no {path}", f"apt-get install {package}")
    folder = tmp_path_factory.mktemp("classes")
    words = ("/usr/bin/python3", "-O", "-m", "enjarify.main", "-o", folder / "app.jar", built.content / "classes.dex")
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert " 0 classes had errors" in done.stdout
    compiled, tests = folder / "compiled", folder / "tests"  # enjarify leaves out what only a compiler reads
    sources = [path for path in SOURCES.glob("*.java") if "import android." not in path.read_text()]
    jars = ":".join(map(str, JARS))
    subprocess.run(("javac", "-cp", jars, "-d", compiled, *sources), check=True)
    subprocess.run(("javac", "-cp", f"{jars}:{compiled}", "-d", tests, *sorted(HERE.glob("*.java"))), check=True)
    program = built.content / "lib/arm64-v8a/libbve-run.so"
    program.chmod(0o755)
    launcher = "|".join(map(str, (*emulate("cortex-a76"), program)))
    told = (f"-Dbundle={built.content / 'assets/bundle'}", f"-Dlauncher={launcher}")
    return ["java", "-XX:TieredStopAtLevel=1", "-cp", f"{folder / 'app.jar'}:{jars}:{tests}", *told]


def need_root() -> None:
    if os.geteuid():
        skip("not root", "run it as root, who alone may mount a folder of little room")
