"""Swift, where it is at hand: on this system, or in the root that `make swift-root` unpacks."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.native import ROOT

SWIFT_ROOT = ROOT / "build/swift-root"
SECONDS = 900


def run_swift(shared: Path, package: str, verb: str, *words: str, **environment: Path) -> str:
    """`swift VERB` in a package's folder of `shared`, from which alone it reads; environment: paths in there.

    Skips the test where there is no Swift, in CI too: it takes 2.4 GB, and has no part in what is shipped.
    """
    if swift := shutil.which("swift"):
        command, folder = [swift], shared
        prefix: list[str | Path] = []
    elif (SWIFT_ROOT / ".ready").exists() and os.geteuid() == 0:
        folder = Path("/mnt")
        command = ["/usr/libexec/swift/bin/swift"]
        prefix = [ROOT / "tests/enter_root.sh", SWIFT_ROOT, shared, "/usr/bin/env"]
        prefix += ["PATH=/usr/libexec/swift/bin:/usr/bin:/bin"]
    else:
        pytest.skip("no Swift: it is 2.4 GB, and nothing that is shipped needs it; make swift-root, as root")
    values = {name: str(folder / path.relative_to(shared)) for name, path in environment.items()}
    command += [verb, "--package-path", str(folder / package), "--disable-sandbox", *words]
    if prefix:
        prefix += [f"{name}={value}" for name, value in values.items()]
    done = subprocess.run(
        [*prefix, *command],
        env=os.environ | values,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout
