"""The programs that the delegates' tests run: the small one that the fuzzer starts from, which is told here how it
takes pictures, and the one of several ports that tests/runtime/ports_program.h makes."""

import json
from dataclasses import replace

from bigvit_edge.export.program import from_bytes, to_bytes
from bigvit_edge.preprocessing import Preprocessing
from tests.native import ROOT

PROGRAM = ROOT / "tests/runtime/corpus/valid_tiny.bve"
PORTS = ROOT / "tests/runtime/files/version2_ports_fp32.bve"


def read_program() -> bytes:
    how = Preprocessing(4, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    return to_bytes(replace(from_bytes(PROGRAM.read_bytes()), metadata={"preprocessing": json.dumps(how.spell())}))
