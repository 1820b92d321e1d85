"""A device that runs nothing and answers as if it did, so that the whole path of a bench runs anywhere."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bigvit_edge.devices.contract import PIPE, DeviceError, find_cache

# In place of any program: a probe and a runner that is ready, then for each line turns of a millisecond an image.
ANSWERS = """
import json, sys, time
def tell(**answer):
    print(json.dumps(answer), flush=True)
tell(cpu='', board='', runtime='none', version='', build={}, session={}, load_ms=0, first_ms=0, cached_share=None,
     cores_allowed=[], image_floats=0)
for line in sys.stdin:
    words, start = line.split(), time.monotonic_ns()
    if words[:1] == ['frame']:
        tell(lack='nothing runs there')
        continue
    images = int(words[2]) if words[:1] == ['run'] else 0
    tell(start_ns=start, end_ns=start + images * 10**6, times_ms=[1.0] * images, cpu_ms=0, clock_mhz=[None, None],
         cores={}, thread_ms={}, throttled_periods=0) if images else tell(peak_bytes=0, anonymous_bytes=0)
"""


class Null:
    """No machine at all."""

    launch, in_place = "none", True

    def __init__(self, name: str, address: str = "") -> None:
        if name != "null":
            raise DeviceError(f"device {name!r}", "null alone, which is no machine", "leave out what follows it")
        self.name, self.home = name, str(find_cache() / "device")

    def push(self, source: Path, target: str) -> None:
        """Do nothing."""

    def shell(self, words: Sequence[str], environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start what answers each line as a bench's runner.

        Once before any, too; it ends with 0 at their end.
        """
        return subprocess.Popen(
            (sys.executable, "-c", ANSWERS), stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True
        )

    def pull(self, source: str, target: Path) -> None:
        """Write an empty file."""
        target.write_bytes(b"")

    def check(self) -> None:
        """Do nothing: it is there."""

    def close(self) -> None:
        """Do nothing: nothing is open."""
