"""The app's own bytecode and its own bve-run, as they are shipped, on a JVM and on an ARM CPU that qemu plays."""

import subprocess
from pathlib import Path

from tests.devices.android.java import java, need_root

__all__ = ("java",)

ROOM = "400k"
LIMIT_S = 300


def test_every_verb_of_the_page(java: list[str], tmp_path: Path) -> None:
    need_root()
    small = tmp_path / "small"
    small.mkdir()
    tests = (*java, f"-Dsmall={small}", "org.junit.runner.JUnitCore", "bigvit.edge.BridgeTest")
    mount = f'mount -t tmpfs -o size={ROOM} small "$0" && exec "$@"'
    words = ("unshare", "--mount", "sh", "-c", mount, small, *tests)
    done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stdout
    assert "OK (1" in done.stdout  # and not none
