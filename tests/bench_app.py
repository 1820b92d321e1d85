"""Size of the demo's app and the time that it takes to build: `python tests/bench_app.py`. Fails at 6 MB.

The demo and bve-run are made before, where this user's cache has them not.
"""

import tempfile
import time
import zipfile
from collections import Counter
from pathlib import Path

from bigvit_edge.app.apk import build_apk

MOST_BYTES = 6_000_000


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "demo.apk"
        build_apk(path)
        start = time.monotonic()
        build_apk(path, force=True)
        took_s, size = time.monotonic() - start, path.stat().st_size
        parts: Counter[str] = Counter()
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                parts["/".join(info.filename.split("/")[:2])] += info.compress_size
    print(f"{size / 1e6:.2f} MB, built in {took_s:.1f} s; of it:")
    for part, count in parts.most_common(5):
        print(f"  {count / 1e6:.3f} MB  {part}")
    assert size < MOST_BYTES


if __name__ == "__main__":
    main()
