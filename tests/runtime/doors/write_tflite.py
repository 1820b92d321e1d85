"""The small program that the fuzzer starts from, as a .tflite for test_litert.cc:

python -m tests.runtime.doors.write_tflite FILE
"""

import sys
from pathlib import Path

from bigvit_edge.export.backends.litert.native import write_file
from bigvit_edge.export.program import from_bytes
from tests.native import ROOT

PROGRAM = ROOT / "tests/runtime/corpus/valid_tiny.bve"


def write(path: Path) -> Path:
    program = PROGRAM.read_bytes()
    path.write_bytes(write_file(program, from_bytes(program).entries, {}))
    return path


if __name__ == "__main__":
    write(Path(sys.argv[1]))
