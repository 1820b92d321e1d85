"""An .onnx, run by ONNX Runtime on its CPU provider.

On x86 without VNNI, uint8 times int8 adds pairs of products in 16 bits and saturates there. Weights of 7 bits would
lose precision everywhere, and weights as uint8 half the speed where there is VNNI; so they are int8, and load asks the
runtime for its exact kernels (session.x64quantprecision) where it needs them. Who opens a file without load must too.
"""

import platform
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from bigvit_edge.artifact import LOGITS, Array, Runner
from bigvit_edge.console import silenced
from bigvit_edge.errors import UserError
from bigvit_edge.runtime.outside_data import explain_failure, refuse_outside_data

with silenced():
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as state

METHOD = "main"  # what the graph is called in manifests; in the file it has the model's name
FLOAT = "tensor(float)"
DTYPES = {FLOAT: "float32", "tensor(uint8)": "uint8"}
FAULTS = (
    state.EPFail, state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf, state.NoModel,
    state.NotImplemented, state.RuntimeException,
)  # fmt: skip


def load(path: Path, threads: int = 1, method: str | None = None) -> Runner:
    """Open a .onnx on the CPU provider.

    It takes an image, float32 or uint8, and gives [1, num_classes], float32. UserError if it is not one, wants data
    from other files, or a method is asked for that is not 'main'.
    """
    if method not in (None, METHOD):
        raise UserError(f"{path} has no method {method!r}", METHOD, "leave the method out: an ONNX file has one graph")
    session = open_session(path, set_options(threads))
    (image,), (answer,) = session.get_inputs(), session.get_outputs()

    def run(images: NDArray[Any]) -> Array:
        return session.run([answer.name], {image.name: images})[0]  # type: ignore[no-any-return]

    shape, answered = (tuple(n if isinstance(n, int) else -1 for n in value.shape) for value in (image, answer))
    return Runner(run, shape, answered, session.get_modelmeta().custom_metadata_map, DTYPES[image.type])


def open_session(path: Path, options: Any) -> Any:
    """Open ONNX Runtime's session for a .onnx, from image to logits.

    UserError as of load.
    """
    with silenced():
        try:
            data = Path(path).read_bytes()
            refuse_outside_data(data)
            session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
            inputs, outputs = session.get_inputs(), session.get_outputs()
            one = len(inputs) == len(outputs) == 1 and inputs[0].type in DTYPES
            if not one or (outputs[0].name, outputs[0].type) != (LOGITS, FLOAT):
                found = ", ".join(f"{value.name} ({value.type})" for value in (*inputs, *outputs))
                raise ValueError(f"it goes from and to {found} instead of from an image to logits")
        except (*FAULTS, OSError, ValueError) as e:
            raise explain_failure(path, e) from e
    return session


def set_options(threads: int) -> Any:
    """Make the session's options.

    It has that many threads, no log, and exact products of int8.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.x64quantprecision", str(int(saturates())))
    return options


def saturates(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Tell whether ONNX Runtime's int8 products are inexact on this CPU.

    Unless asked for, its products of uint8 and int8 are, on x86 without VNNI. Where the processor cannot be asked, we
    take it to be so.
    """
    if platform.machine().lower() not in ("x86_64", "amd64", "i386", "i686"):
        return False
    flags = set(cpuinfo.read_text().split()) if cpuinfo.is_file() else set()
    return not flags & {"avx512_vnni", "avx_vnni", "amx_int8"}
