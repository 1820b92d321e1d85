"""Linears of an ONNX model in int8, static int8 and int4, written into the graph; and all integers read back."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram

from bigvit_edge.artifact import Array
from bigvit_edge.console import silenced
from bigvit_edge.export.backends.onnx.model import INTEGERS, LINEAR, layer_of, parse, read_notes
from bigvit_edge.export.graph import Graph, weight_name
from bigvit_edge.export.integers import Range
from bigvit_edge.export.quantization import (
    MOST_BIAS,
    choose_scale,
    list_rounded,
    quantize_groups_weight,
    quantize_rows_weight,
)

with silenced():
    from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

CONTRIB = "com.microsoft"
MOST_ERROR = 0.1  # of a weight's power: rounding takes a hundredth, another weight doubles it
CONVOLUTIONS = ("Conv", "ConvTranspose")
PRODUCTS = (*CONVOLUTIONS, "MatMul", "Gemm")
SMALL = (TensorProto.INT8, TensorProto.UINT8, TensorProto.INT4, TensorProto.UINT4)
REPORT = "this is a bug of bigvit-edge: please report it with the model's name and these words"


@dataclass(frozen=True)
class Linear:
    """A Linear in the float graph.

    nodes: its product, then the addition of its bias if that is a node of its own; weight [out, in]; bias: name of the
    constant [out]; shape: of the output.
    """

    layer: str
    nodes: tuple[NodeProto, ...]
    input: str
    output: str
    weight: torch.Tensor
    bias: str | None
    shape: tuple[int, ...]


def quantize(model: ModelProto, graph: Graph) -> None:
    """Write the Linears in graph.layers as it says.

    Those that read the same value share its quantisation.
    """
    writer = _Writer(model, graph)
    linears = {linear.nodes[0].output[0]: linear for linear in _find_linears(model, graph)}
    replaced = {node.output[0] for linear in linears.values() for node in linear.nodes}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        if node.output[0] in linears:
            nodes += writer.write(linears[node.output[0]])
        elif node.output[0] not in replaced:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _find_linears(model: ModelProto, graph: Graph) -> list[Linear]:
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    values = (*model.graph.value_info, *model.graph.output)
    shapes = {value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim) for value in values}
    noted = [(node, read_notes(node).get(LINEAR, "")) for node in model.graph.node]
    linears = []
    for node, layer in noted:
        if layer not in graph.layers or node.op_type == "Add":
            continue
        adds = [n for n, name in noted if name == layer and n.op_type == "Add" and node.output[0] in n.input]
        names = node.input[2:] if node.op_type == "Gemm" else [i for n in adds for i in n.input if i != node.output[0]]
        weight = numpy_helper.to_array(constants[node.input[1]])
        if node.op_type == "MatMul" or not any(a.name == "transB" and a.i for a in node.attribute):
            weight = weight.T
        output = (*adds, node)[0].output[0]
        linears.append(
            Linear(
                layer, (node, *adds), node.input[0], output, torch.tensor(weight), names[0] if names else None,
                shapes[output],
            )
        )  # fmt: skip
    return linears


class _Writer:
    """Quantised forms of a model's Linears; adds their constants to the model."""

    def __init__(self, model: ModelProto, graph: Graph) -> None:
        self.model, self.graph = model, graph
        self.inputs: dict[tuple[str, ...], list[str]] = {}  # a value and how it is quantised -> what came of it
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.nodes: list[NodeProto] = []  # of the Linear being written
        self.values = 0

    def write(self, linear: Linear) -> list[NodeProto]:
        self.nodes = []
        write = {"int8": self._write_int8, "int8-static": self._write_static, "int4": self._write_int4}
        write[self.graph.layers[linear.layer]](linear)
        return self.nodes

    def _write_int8(self, linear: Linear) -> None:
        name = linear.layer
        key = ("dynamic", linear.input)
        if key not in self.inputs:
            self.inputs[key] = self._add(name, "DynamicQuantizeLinear", linear.input, outputs=3)
        value, scale, zero = self.inputs[key]
        weight, scales = (t.numpy() for t in quantize_rows_weight(linear.weight))
        (product,) = self._add(name, "MatMulInteger", value, self._constant(f"{name}.weight_int8", weight.T), zero)
        (product,) = self._add(name, "Cast", product, to=TensorProto.FLOAT)
        (both,) = self._add(name, "Mul", scale, self._constant(f"{name}.weight_scale", scales))
        (product,) = self._add(name, "Mul", product, both)
        self._write_bias(linear, product)

    def _write_int4(self, linear: Linear) -> None:
        name, group = linear.layer, self.graph.group
        outputs, inputs = linear.weight.shape
        weight, scales = (t.numpy() for t in quantize_groups_weight(linear.weight, group))
        nibbles = (weight + 8).astype(np.uint8).reshape(outputs, inputs // group, group // 2, 2)
        packed = nibbles[..., 0] | nibbles[..., 1] << 4  # [out, in / group, group / 2]
        (product,) = self._add(
            name, "MatMulNBits", linear.input, self._constant(f"{name}.weight_int4", packed),
            self._constant(f"{name}.weight_scale", scales.reshape(-1)), domain=CONTRIB, K=inputs, N=outputs, bits=4,
            block_size=group, accuracy_level=4,
        )  # fmt: skip
        self._write_bias(linear, product)

    def _write_bias(self, linear: Linear, product: str) -> None:
        if linear.bias is not None:
            self._add(linear.layer, "Add", product, linear.bias)
        self.nodes[-1].output[0] = linear.output

    def _write_static(self, linear: Linear) -> None:
        name, ranges = linear.layer, self.graph.ranges[linear.layer]
        flat = (prod(linear.shape[:-1]), linear.weight.shape[1])
        value = self._reshape(name, linear.input, flat) if len(linear.shape) > 2 else linear.input
        scale, _ = choose_scale(ranges.input)
        value = self._round(name, value, ranges.input)
        bias = None if linear.bias is None else self._read(linear.bias)  # [out]
        weight, scales = _quantize_for_bias(linear.weight, bias, scale)
        zeros = self._constant(f"{name}.weight_zero", np.zeros(len(scales), np.int8))
        names = self._constant(f"{name}.weight_int8", weight.T), self._constant(f"{name}.weight_scale", scales), zeros
        parts = [value, *self._add(name, "DequantizeLinear", *names, axis=1)]
        if bias is not None:
            steps = np.float32(scale) * scales
            integers = np.round(bias / steps).astype(np.int32)
            zeros = self._constant(f"{name}.bias_zero", np.zeros(len(scales), np.int32))
            names = self._constant(f"{name}.bias_int32", integers), self._constant(f"{name}.bias_scale", steps), zeros
            parts += self._add(name, "DequantizeLinear", *names, axis=0)
        (product,) = self._add(name, "Gemm", *parts)
        result = self._round(name, product, ranges.output)
        if len(linear.shape) > 2:
            self._reshape(name, result, linear.shape)
        self.nodes[-1].output[0] = linear.output

    def _round(self, name: str, value: str, span: Range) -> str:
        """The value as uint8 and back."""
        scale, zero = choose_scale(span)
        key = ("static", value, str(scale), str(zero))
        if key not in self.inputs:
            parts = [
                self._shared_constant(f"scale_{scale!r}", np.array(scale, np.float32)),
                self._shared_constant(f"zero_{zero + 128}", np.array(zero + 128, np.uint8)),
            ]
            (rounded,) = self._add(name, "QuantizeLinear", value, *parts)
            self.inputs[key] = self._add(name, "DequantizeLinear", rounded, *parts)
        return self.inputs[key][0]

    def _reshape(self, name: str, value: str, shape: tuple[int, ...]) -> str:
        key = ("reshape", value, str(shape))
        if key not in self.inputs:
            words = "x".join(map(str, shape))
            self.inputs[key] = self._add(
                name, "Reshape", value, self._shared_constant(f"shape_{words}", np.array(shape))
            )
        return self.inputs[key][0]

    def _add(
        self, layer: str, op: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: Any
    ) -> list[str]:
        names = [f"{layer}/{op}_{self.values + number}" for number in range(outputs)]
        self.values += outputs
        self.nodes.append(
            helper.make_node(op, inputs, names, name=f"{layer}/{op}", domain=domain or None, **attributes)
        )
        return names

    def _constant(self, name: str, data: NDArray[Any]) -> str:
        """A constant of one use's own: session.x64quantprecision fails on an int8 weight or zero point that two ops
        read, as those of a Linear called twice would be."""
        count = sum(other.partition("#")[0] == name for other in self.constants)
        return self._shared_constant(f"{name}#{count + 1}" if count else name, data)

    def _shared_constant(self, name: str, data: NDArray[Any]) -> str:
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(data), name)
            self.model.graph.initializer.append(self.constants[name])
        return name

    def _read(self, name: str) -> NDArray[Any]:
        return numpy_helper.to_array(self.constants[name])


def _quantize_for_bias(weight: torch.Tensor, bias: Array | None, scale: float) -> tuple[NDArray[np.int8], Array]:
    """The weight [out, in] and its scales [out], larger ones where the bias would not fit an int32 otherwise."""
    integers, scales = quantize_rows_weight(weight)
    if bias is not None:
        needed = torch.from_numpy(np.abs(bias) / (scale * MOST_BIAS)).float()
        small = needed > scales
        scales = torch.maximum(scales, needed)
        integers[small] = torch.round(weight[small] / scales[small].unsqueeze(1)).to(torch.int8)
    return integers.numpy(), scales.numpy()


# ---- reading it back -------------------------------------------------------------------------------------------------


def check(data: bytes, graph: Graph) -> None:
    """Check that exactly the layers in graph.layers are quantised.

    RuntimeError unless they are so as it says and with their own weights. Linears that read nothing of the image are
    not in the file, their results are.
    """
    others = _find_constant(graph.exported) | list_rounded(graph)
    expected = {layer: precision for layer, precision in graph.layers.items() if layer not in others}
    model = parse(data)
    _check_integers(model, graph)
    found = {layer: (precision, weight) for layer, precision, weight in read_linears(model)}
    if {layer: precision for layer, (precision, _) in found.items()} != expected:
        missed, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
        other = sorted(layer for layer in found.keys() & expected.keys() if found[layer][0] != expected[layer])
        raise RuntimeError(
            f"the ONNX file left out {missed}, took {extra} and has another precision in {other}, expected exactly the "
            f"Linears named; {REPORT}"
        )
    originals = {name.removesuffix(".weight"): weight for name, weight in graph.exported.state_dict.items()}
    for layer, (_, weight) in found.items():
        original = originals[layer].detach().numpy()
        if np.square(weight - original).sum() > MOST_ERROR * np.square(original).sum():
            raise RuntimeError(f"the ONNX file has another weight in {layer}, expected its own; {REPORT}")


def _check_integers(model: ModelProto, graph: Graph) -> None:
    """RuntimeError unless each layer of graph.integers reads and gives integers, with its own weights."""
    makers = {name: node for node in model.graph.node for name in node.output}
    readers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found: list[bytes] = []
    for node in model.graph.node:
        weight = makers.get(node.input[1]) if node.op_type in PRODUCTS and len(node.input) > 1 else None
        if weight is None or weight.op_type != "DequantizeLinear" or not weight.input[0].endswith(INTEGERS):
            continue
        value, result = makers.get(node.input[0]), readers.get(node.output[0], [])
        while value is not None and value.op_type in ("Pad", "Reshape"):
            value = makers.get(value.input[0])
        while len(result) == 1 and result[0].op_type in ("Relu", "Clip", "Reshape", "Add"):
            result = readers.get(result[0].output[0], [])
        kinds = ["" if value is None else value.op_type, *(reader.op_type for reader in result)]
        if kinds != ["DequantizeLinear", "QuantizeLinear"]:
            raise RuntimeError(f"{node.name} of the ONNX file has {kinds} around it, expected integers; {REPORT}")
        integers = numpy_helper.to_array(constants[weight.input[0]])
        straight = node.op_type in CONVOLUTIONS or any(a.name == "transB" and a.i for a in node.attribute)
        found.append((integers if straight else integers.T).tobytes())
    wanted = [rounded.integers.numpy().tobytes() for rounded in graph.integers.weights.values()]
    if sorted(set(found)) != sorted(set(wanted)):
        counts = f"{len(found)} layers of the ONNX file have integer weights, expected {len(wanted)}"
        raise RuntimeError(f"{counts} with their own; {REPORT}")


def _find_constant(exported: ExportedProgram) -> set[str]:
    """The Linears that depend on constants alone, such as those that make a table of relative positions."""
    reached, constant = set(exported.graph_signature.user_inputs), set()
    for node in exported.graph.nodes:
        if any(source.name in reached for source in node.all_input_nodes):
            reached.add(node.name)
        elif node.target is torch.ops.aten.linear.default and (name := weight_name(exported, node)):
            constant.add(name.removesuffix(".weight"))
    return constant


def read_linears(model: ModelProto) -> Iterator[tuple[str, str, Array]]:
    """Read every quantised Linear of a file.

    Each is its layer, its precision, its weight [out, in] back in float; those of insert_integers are left out.
    RuntimeError at any other matrix of integers.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    readers = {name: node for node in model.graph.node for name in node.input}  # the last one: ours are alone
    small = {name for name, t in constants.items() if t.data_type in SMALL and len(t.dims) > 1}
    small = {name for name in small if not name.endswith(INTEGERS)}
    for node in model.graph.node:
        source = makers.get(node.input[1]) if node.op_type == "Gemm" else None
        if node.op_type == "MatMulInteger":
            scaling = readers[readers[node.output[0]].output[0]]  # past the cast
            both = next(makers[name] for name in scaling.input if makers[name].op_type == "Mul")
            precision, name, scale = "int8", node.input[1], both.input[1]
        elif source is not None and source.op_type == "DequantizeLinear" and not source.input[0].endswith(INTEGERS):
            precision, (name, scale) = "int8-static", source.input[:2]
        elif node.op_type == "MatMulNBits":
            precision, (name, scale) = "int4", node.input[1:3]
        else:
            continue
        small.discard(name)
        weight, scales = numpy_helper.to_array(constants[name]), numpy_helper.to_array(constants[scale])
        yield layer_of(node), precision, _unpack(weight, scales) if precision == "int4" else weight.T * scales[:, None]
    if small:
        raise RuntimeError(f"the ONNX file has integers in {sorted(small)}, expected them in Linears alone; {REPORT}")


def _unpack(packed: NDArray[np.uint8], scales: Array) -> Array:
    """[out, in / group, group / 2] of two nibbles each -> [out, in]"""
    nibbles = np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:2], -1).astype(np.float32) - 8
    weight: Array = (nibbles * scales.reshape(*packed.shape[:2], 1)).reshape(packed.shape[0], -1)
    return weight
