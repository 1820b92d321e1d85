"""The small program of made.py as a .tflite for test_litert.cc; as FILE.pixels, one whose input is uint8 [1, 4, 4, 3]:

python -m tests.runtime.doors.write_tflite FILE
"""

import sys
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from bigvit_edge.export.backends.litert.contents import read_model, write_model
from bigvit_edge.export.backends.litert.native import ALIGNMENT, write_file
from bigvit_edge.export.program import from_bytes
from tests.runtime.doors import made


def write(path: Path) -> Path:
    program = made.read_program()
    path.write_bytes(write_file(program, from_bytes(program).entries, {}))
    model = read_model(path.read_bytes())
    for graph in model.subgraphs:
        image = graph.tensors[graph.inputs[0]]
        image.type, image.shape = schema.TensorType.UINT8, np.int32([1, 4, 4, 3])
    Path(f"{path}.pixels").write_bytes(write_model(model, ALIGNMENT))
    return path


if __name__ == "__main__":
    write(Path(sys.argv[1]))
