"""ONNX (.onnx), run by ONNX Runtime on its CPU provider, or in a browser by onnxruntime-web.

One file per keep ratio: an ONNX model has one graph. Opset 20 is the first with Gelu as one op (LayerNormalization came
with 17), and IR version 9 is the one that belongs to it (ONNX 1.15), so ONNX Runtime and onnxruntime-web load the files
from 1.17 on. Nodes are called 'layer/Op'; weights that a MatMul reads are kept as it wants them, [in, out].

int8: DynamicQuantizeLinear, MatMulInteger, and the two scales and the bias on top, which ONNX Runtime fuses into
DynamicQuantizeMatMul, or where several Linears read one value into MatMulIntegerToFloat. The op has one scale for the
whole input, not one a row as Graph says: ONNX has nothing finer.
int8-static: uint8 activations between QuantizeLinear and DequantizeLinear around a Gemm with int32 bias, which becomes
QGemm; a weight without zero points, or a float bias before an output that is not rounded, stays a float product.
Convolutions in int8, with what lies between them: QuantizeLinear and DequantizeLinear around each op, which ONNX
Runtime fuses into QLinearConv and its kin; activations uint8, weights int8, biases int32.
int4: MatMulNBits of com.microsoft with int8 activations per row and block (accuracy_level 4). It saves bytes, not time.
fp16: the CPU provider has hardly any half kernels outside ARM. It casts, and computes all matrix products, softmax and
gelu in float32; the file is half as large and slower than fp32 there. GPU providers compute in half.

On x86 without VNNI, uint8 times int8 adds pairs of products in 16 bits and saturates there. Weights of 7 bits would
lose precision everywhere, and weights as uint8 half the speed where there is VNNI; so they are int8, and load asks the
runtime for its exact kernels (session.x64quantprecision) where it needs them. Who opens a file without load must too.
"""

import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigvit_edge.artifact import Array, Artifact, Method, Runner, list_versions
from bigvit_edge.errors import UserError
from bigvit_edge.export.backends.onnx import model, quantized
from bigvit_edge.export.console import silenced
from bigvit_edge.export.graph import Graph
from bigvit_edge.export.half import write_as_half
from bigvit_edge.export.quantization import insert_integers

if TYPE_CHECKING:
    from bigvit_edge.target import Target

with silenced():
    import onnx
    import onnxruntime
    from google.protobuf.message import Message
    from onnxruntime.capi import onnxruntime_pybind11_state as state

FORMAT = "onnx"
SUFFIX = ".onnx"
SEVERAL = False
PACKAGES = ("onnx", "onnxruntime", "onnxscript", "torch")
FLOAT = "tensor(float)"
METHOD = "main"  # what the graph is called in manifests; in the file it has the model's name


def lower(graphs: Sequence[Graph], target: "Target", metadata: Mapping[str, str]) -> Artifact:
    """Lower the one graph to an .onnx.

    RuntimeError if the quantised layers are not exactly those of graph.layers; ValueError if a parameter is beyond
    half, or a Linear's inputs are no multiple of the int4 group.
    """
    (graph,) = graphs
    with silenced():
        exported = write_as_half(graph.exported) if graph.precision == "fp16" else graph.exported
        exported = insert_integers(exported, graph.integers, unsigned=True)
        proto = model.export(exported)
        quantized.quantize(proto, graph)
        model.finish(proto, metadata)
        onnx.checker.check_model(proto)
        data = proto.SerializeToString(deterministic=True)
        quantized.check(data, graph)
    # no delegate and nothing left over: the CPU provider runs it all, or refuses a file with an op that it has not
    method = Method(METHOD, graph.keep, 0, (), {})
    return Artifact(FORMAT, graph.precision, data, (method,), list_versions(PACKAGES))


FAULTS = (
    state.EPFail, state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf, state.NoModel,
    state.NotImplemented, state.RuntimeException,
)  # fmt: skip


def load(path: Path, threads: int = 1, method: str | None = None) -> Runner:
    """Open a .onnx on the CPU provider.

    It takes [1, 3, S, S] and gives [1, num_classes], float32. UserError if it is not one, wants data from other files,
    or a method is asked for that is not 'main'.
    """
    if method not in (None, METHOD):
        raise UserError(f"{path} has no method {method!r}", METHOD, "leave the method out: an ONNX file has one graph")
    with silenced():
        try:
            data = Path(path).read_bytes()
            refuse_outside_data(data)
            session = onnxruntime.InferenceSession(data, set_options(threads), providers=["CPUExecutionProvider"])
            values = [*session.get_inputs(), *session.get_outputs()]
            if [(value.name, value.type) for value in values] != [("image", FLOAT), ("logits", FLOAT)]:
                found = ", ".join(f"{value.name} ({value.type})" for value in values)
                raise ValueError(f"it goes from and to {found} instead of from image to logits")
        except (*FAULTS, OSError, ValueError, onnx.onnx_cpp2py_export.checker.ValidationError) as e:
            words = " ".join(str(e).split()) or type(e).__name__
            raise UserError(
                f"{path}: ONNX Runtime cannot load it ({words})", "an .onnx file as exported", "export the model again"
            ) from e

    def run(images: Array) -> Array:
        return session.run(["logits"], {"image": images})[0]  # type: ignore[no-any-return]

    image, logits = (tuple(n if isinstance(n, int) else -1 for n in value.shape) for value in values)
    return Runner(run, image, logits, session.get_modelmeta().custom_metadata_map)


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


def refuse_outside_data(data: bytes) -> None:
    """Refuse a model that takes a tensor from outside itself.

    ValueError, as for bytes that are no ONNX model.
    """
    proto = model.parse(data)
    for tensor in _list_messages(proto, onnx.TensorProto):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise ValueError(f"its tensor {tensor.name!r} is in another file")


def _list_messages(message: Message, kind: type) -> Iterator[Any]:
    """Every message of that kind, at any depth."""
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in (value,) if isinstance(value, Message) else value:
                if isinstance(inner, kind):
                    yield inner
                yield from _list_messages(inner, kind)
