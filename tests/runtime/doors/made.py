"""The small program that the fuzzer starts from, which is told here how it takes pictures."""

import json
from dataclasses import replace

from bigvit_edge.export.program import from_bytes, to_bytes
from bigvit_edge.preprocessing import Preprocessing
from tests.native import ROOT

PROGRAM = ROOT / "tests/runtime/corpus/valid_tiny.bve"


def read_program() -> bytes:
    how = Preprocessing(4, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    return to_bytes(replace(from_bytes(PROGRAM.read_bytes()), metadata={"preprocessing": json.dumps(how.spell())}))
