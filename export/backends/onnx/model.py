"""The float ONNX model of an ATen graph: constants computed, nodes named after their layers, nothing unused."""

import ast
from collections.abc import Mapping
from math import prod
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.fx import Node

from bigvit_edge.console import silenced
from bigvit_edge.export.backends.onnx.denotation import denote
from bigvit_edge.export.graph import copy_program, insert, replace_node, shape_of

with silenced():
    import onnx
    from google.protobuf.message import DecodeError
    from onnx import ModelProto, NodeProto, helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

aten = torch.ops.aten
ATTENTION = aten.scaled_dot_product_attention.default
OPSET, IR = 20, 9
INPUT, OUTPUT = "pixel_values", "logits"  # as Hugging Face's libraries feed and read image classifiers
SCOPES = "pkg.torch.onnx.name_scopes"  # as the exporter notes on nodes: modules from the outermost, then the ATen node
INTEGERS = ".int8"  # how the names of constants end that insert_integers made
LINEAR = "bigvit_edge.linear"  # our note: the Linear whose product or bias the node is


def parse(data: bytes) -> ModelProto:
    """Read a model from a file's bytes.

    ValueError if they are none.
    """
    try:
        model = onnx.load_from_string(data)
    except DecodeError as e:
        raise ValueError(f"no ONNX model: {e}") from e
    if not model.graph.node:
        raise ValueError("no ONNX model: it has no nodes")
    return model


def layer_of(node: NodeProto) -> str:
    """Name the module that a node of a finished model came from.

    'layers.3.p.mlp/Gelu' -> 'layers.3.p.mlp'; '' for the model itself.
    """
    return node.name.rpartition("/")[0]


# Kept as long as their graph, because every precision but fp16 starts from the same one.
_models: WeakKeyDictionary[ExportedProgram, ModelProto] = WeakKeyDictionary()


def export(exported: ExportedProgram) -> ModelProto:
    """Export the model, from INPUT to OUTPUT.

    It is as the exporter and its optimiser write it, with every constant computed. Nodes of Linears carry the note
    LINEAR; all values have their shapes.
    """
    if exported not in _models:
        _models[exported] = _export(exported)
    model = ModelProto()
    model.CopyFrom(_models[exported])
    return model


def _export(exported: ExportedProgram) -> ModelProto:
    program = copy_program(exported)
    widen_attention(program)
    _allow_copies(program)
    program.graph_module.recompile()
    made = torch.onnx.export(
        program, dynamo=True, opset_version=OPSET, input_names=[INPUT], output_names=[OUTPUT],
        optimize=False, verbose=False,
    )  # fmt: skip
    assert made is not None
    _note_linears(made.model.graph)
    made.optimize()
    model = made.model_proto
    _fold(model)
    _turn_weights(model)
    _part_weights(model)
    return model


def widen_attention(program: ExportedProgram) -> None:
    """Write attention in four dimensions, [B, H, N, d].

    The exporter takes no others. Where a mask leaves a query no key, the answer is zeros, where the exporter gives the
    mean of all values.
    """
    for node in program.graph.find_nodes(op="call_function", target=ATTENTION):
        query, key, value, mask, *options = (*node.args, None)[: max(4, len(node.args))]
        mask = node.kwargs.get("attn_mask", mask)
        shape = shape_of(node)
        dead = mask is not None and mask.meta["val"].dtype == torch.bool
        if len(shape) == 4 and not dead:
            continue
        whole = [_widen(node, part, shape[:-3]) for part in (query, key, value)]
        rest = {name: option for name, option in node.kwargs.items() if name != "attn_mask"}
        if mask is not None and len(shape_of(mask)) > 2 and len(shape) != 4:
            mask = _widen(node, mask, shape[:-3])
        result = insert(node, ATTENTION, *whole, mask, *options, **rest)
        if dead:
            alive = insert(node, aten.any.dim, mask, -1, True)
            result = insert(node, aten.where.ScalarOther, alive, result, 0.0)
        if len(shape) != 4:
            result = insert(node, aten.reshape.default, result, list(shape))
        replace_node(program, node, result)


def _widen(before: Node, value: Node, outer: tuple[int, ...]) -> Node:
    """[*outer, H, N, d] -> [B, H, N, d], with 1 where a dimension is not there. outer: of the attention; the value's
    own may be 1."""
    *front, rows, columns = shape_of(value)
    if len(front) == 2 and len(outer) == 1:
        return value
    heads = front.pop() if front else 1
    if front != [*outer]:
        value = insert(before, aten.expand.default, value, [*outer, heads, rows, columns])
    return insert(before, aten.reshape.default, value, [prod(outer), heads, rows, columns])


def _allow_copies(program: ExportedProgram) -> None:
    """Each view of a copy: the exporter writes attention anew, in steps whose result has other strides than the
    captured op's had, and a view of it would be refused. The optimiser drops the copies."""
    for view in (torch.ops.aten.view.default, torch.ops.aten.reshape.default):
        for node in program.graph.find_nodes(op="call_function", target=view):
            copy = insert(node, torch.ops.aten.clone.default, node.args[0], memory_format=torch.contiguous_format)
            node.args = (copy, *node.args[1:])


def _note_linears(graph: Any) -> None:
    """While a weight still has the name of its parameter."""
    for node in graph:
        if node.op_type not in ("MatMul", "Gemm"):
            continue
        weight = node.inputs[1]
        maker = weight.producer()
        if maker is not None and maker.op_type == "Transpose":
            weight = maker.inputs[0]
        if weight.name in graph.initializers:
            bias = [user for user, _ in node.outputs[0].uses() if user.op_type == "Add"]
            for part in (node, *bias):
                if part.metadata_props[SCOPES] == node.metadata_props[SCOPES]:
                    part.metadata_props[LINEAR] = weight.name.removesuffix(".weight")


def _fold(model: ModelProto) -> None:
    """What depends on constants alone; the exporter's optimiser stops at large ones."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in list(model.graph.node):
        if node.op_type != "DequantizeLinear" and all(name in constants for name in node.input):
            values = {name: numpy_helper.to_array(constants[name]) for name in node.input}
            for name, result in zip(node.output, ReferenceEvaluator(node).run(None, values), strict=True):
                constants[name] = numpy_helper.from_array(np.ascontiguousarray(result), name)
                model.graph.initializer.append(constants[name])
            model.graph.node.remove(node)


def _turn_weights(model: ModelProto) -> None:
    """Integer weights of Linears as a MatMul reads them, [in, out]: turned behind it they are turned in every run."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    for turn in [node for node in model.graph.node if node.op_type == "Transpose"]:
        weight = makers.get(turn.input[0])
        if weight is None or weight.op_type != "DequantizeLinear" or weight.input[0] not in constants:
            continue
        integers = constants[weight.input[0]]
        turned = np.ascontiguousarray(numpy_helper.to_array(integers).T)
        integers.CopyFrom(numpy_helper.from_array(turned, integers.name))
        del weight.attribute[:]
        weight.attribute.append(helper.make_attribute("axis", 1))
        weight.output[0] = turn.output[0]
        model.graph.node.remove(turn)


def _part_weights(model: ModelProto) -> None:
    """Each reader of an integer weight has that, its scales and zero points to itself: session.x64quantprecision, which
    x86 without VNNI needs, fails on one that two ops read."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    seen: set[str] = set()
    nodes: list[NodeProto] = []
    readers: dict[str, list[tuple[NodeProto, int]]] = {}
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            readers.setdefault(name, []).append((node, place))
    for node in model.graph.node:
        several = [node]
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            for number, (reader, place) in enumerate(readers.get(node.output[0], [])[1:], 1):
                copy = NodeProto()
                copy.CopyFrom(node)
                copy.output[0] = reader.input[place] = f"{node.output[0]}#{number}"
                several.append(copy)
            for each in several:
                for place, name in enumerate(each.input):
                    if name in seen:
                        own = f"{each.output[0]}/{place}{INTEGERS if place == 0 else ''}"
                        model.graph.initializer.append(
                            numpy_helper.from_array(numpy_helper.to_array(constants[name]), own)
                        )
                        each.input[place] = own
                    seen.add(name)
        nodes += several
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def read_notes(node: NodeProto) -> dict[str, str]:
    """Read what the exporter and we noted on a node."""
    return {note.key: note.value for note in node.metadata_props}


def finish(model: ModelProto, metadata: Mapping[str, str]) -> None:
    """Name the nodes, drop what is unused, and add the metadata.

    Dropped are the exporter's notes too.
    """
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:], model.graph.value_info[:], model.graph.metadata_props[:], model.metadata_props[:]
    model.graph.initializer.extend(kept)
    _name_nodes(model)
    for part in (*kept, *model.graph.input, *model.graph.output, *model.graph.node):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    domains = {"": OPSET, **{node.domain: 1 for node in model.graph.node if node.domain}}
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(*domain) for domain in sorted(domains.items()))
    model.ir_version, model.producer_name, model.producer_version = IR, "bigvit-edge", ""
    model.graph.name = metadata.get("model", "model")
    helper.set_model_props(model, denote(model, metadata))


def _name_nodes(model: ModelProto) -> None:
    """'layer/Op', and with a number where a layer has several; a Linear's weight after its layer."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    taken: dict[str, int] = {}
    renamed: dict[str, str] = {}
    for node in model.graph.node:
        notes = read_notes(node)
        if SCOPES in notes:
            module = "".join(ast.literal_eval(notes[SCOPES])[:-1][-1:])
            node.name = f"{module}/{node.op_type}".removeprefix("/")
        count = taken[node.name] = taken.get(node.name, 0) + 1
        node.name += f"_{count}" if count > 1 else ""
        weight = f"{layer_of(node)}.weight"
        if node.op_type == "MatMul" and node.input[1] in tensors and weight not in {*tensors, *renamed.values()}:
            renamed.setdefault(node.input[1], weight)
    for node in model.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    for old, new in renamed.items():
        tensors[old].name = new
