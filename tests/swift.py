"""Swift, where it is at hand: on this system, or in the root that `make swift-root` unpacks."""

import os
import shutil
import subprocess
from pathlib import Path

from tests.native import ROOT, skip

SWIFT_ROOT = ROOT / "build/swift-root"
SWIFT_BIN = "/usr/libexec/swift/bin"  # in there
SECONDS = 900


def run_swift(shared: Path, tool: str, *words: str | Path, **environment: Path) -> None:
    """Run swift or swiftc. It sees of this machine the folder `shared` alone, in which all paths are.

    Skips the test where there is no Swift, which `make test` does not bring: it takes 2.4 GB. `.ci/run` does.
    """
    if found := shutil.which(tool):
        command, folder = [found], shared
    elif (SWIFT_ROOT / ".ready").exists() and os.geteuid() == 0:
        root, folder = [str(ROOT / "tests/enter_root.sh"), str(SWIFT_ROOT), str(shared)], Path("/mnt")
        command = [*root, "/usr/bin/env", f"PATH={SWIFT_BIN}:/usr/bin:/bin"]
        command += [f"{name}={folder / path.relative_to(shared)}" for name, path in environment.items()]
        command.append(f"{SWIFT_BIN}/{tool}")
    else:
        skip("no Swift, which takes 2.4 GB", "make swift-root, as root")
    command += [str(folder / word.relative_to(shared)) if isinstance(word, Path) else word for word in words]
    values = os.environ | {name: str(path) for name, path in environment.items()}
    done = subprocess.run(
        command, env=values, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
