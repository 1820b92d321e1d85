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
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bigvit_edge.artifact import Artifact, Method, list_versions
from bigvit_edge.console import silenced
from bigvit_edge.export.backends.onnx import model, quantized
from bigvit_edge.export.graph import Graph
from bigvit_edge.export.half import write_as_half
from bigvit_edge.export.quantization import insert_integers
from bigvit_edge.runtime.formats.onnx import METHOD
from bigvit_edge.runtime.formats.onnx import load as load

if TYPE_CHECKING:
    from bigvit_edge.target import Target

with silenced():
    import onnx

FORMAT = "onnx"
SUFFIX = ".onnx"
SEVERAL = False
PACKAGES = ("onnx", "onnxruntime", "onnxscript", "torch")


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
    return Artifact(FORMAT, graph.precision, data, (method,), list_versions(PACKAGES), input=model.INPUT)
