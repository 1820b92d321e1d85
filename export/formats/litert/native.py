"""LiteRT files that the bve runtime runs: each signature is one op of ours, which libbve_litert.so takes whole; of a
model that has more than the runtime can run, each piece for it is such an op, and the rest as without us.

What each precision means is in export/native.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from litert_converter.mlir import ir
from litert_converter.mlir.dialects import stablehlo
from litert_torch.backend.lowerings import registry
from litert_torch.backend.lowerings.context import LoweringContext

from bigvit_edge.artifact import Artifact, list_versions
from bigvit_edge.console import silenced
from bigvit_edge.entry_points import name_method
from bigvit_edge.errors import UserError
from bigvit_edge.export.formats.litert import FORMAT, PACKAGES, SINGLE, lower_float
from bigvit_edge.export.formats.litert.contents import (
    Model,
    add_buffer,
    read_model,
    store_strings,
    write_model,
)
from bigvit_edge.export.formats.litert.delegation import describe_method
from bigvit_edge.export.formats.litert.quantization import quantize_file
from bigvit_edge.export.graph import Graph
from bigvit_edge.export.native import Lowered, count_fragments, describe_entry, join, lower_pieces, take_rest
from bigvit_edge.export.pieces import CALL
from bigvit_edge.export.program import Entry
from bigvit_edge.runtime.litert import load_delegate, load_library
from bigvit_edge.runtime.tflite import CUSTOM_OP, list_methods

if TYPE_CHECKING:
    from bigvit_edge.target import Target

try:
    load_library()  # a missing library shows on import, as other backends' packages do
except UserError as e:
    raise UserError(e.met, e.expected, f"{e.do}, or add --set delegate=xnnpack") from e

ALONE = ("ai-edge-litert", "torch")  # packages that a file without a graph around the program needs
ALIGNMENT = 64  # of the program in the file, which is then used where it lies
MOST_BYTES = 2**31 - 2**20  # offsets in a .tflite are of 31 bits; the rest of the file needs less than that difference
FLOATS, BYTES = schema.TensorType.FLOAT32, schema.TensorType.UINT8
PLACE = f"custom_call.{CUSTOM_OP.decode()}."  # before a piece's number: the converter makes custom ops of such calls


def lower(graphs: Sequence[Graph], target: "Target", metadata: Mapping[str, str]) -> Artifact:
    """Lower a model to a .tflite, the largest keep ratio first."""
    lowered = lower_pieces(graphs, target, metadata)
    if graphs[0].pieces:
        return lower_around(sorted(graphs, key=lambda graph: -(graph.keep or 0)), lowered, metadata)
    (whole,) = lowered
    data = write_file(whole.data, whole.entries, metadata, _list_pixels(graphs[0]))
    names = _name([entry.keep for entry in whole.entries])
    methods = tuple(describe_entry(entry, name) for entry, name in zip(whole.entries, names, strict=True))
    versions, precision = list_versions(ALONE), graphs[0].precision
    return Artifact(FORMAT, precision, data, methods, versions, layers=whole.layers, products=whole.products)


def lower_around(graphs: Sequence[Graph], pieces: Sequence[Lowered], metadata: Mapping[str, str]) -> Artifact:
    """Lower graphs around pieces, the largest keep ratio first."""
    names, methods = _name([graph.keep for graph in graphs]), []
    with silenced():
        data = write_around(graphs, [piece.data for piece in pieces], metadata)
        for name, graph in zip(names, graphs, strict=True):
            macs = sum(entry.macs for piece in pieces for entry in piece.entries if entry.keep == graph.keep)
            method = describe_method(data, name, graph.keep, [load_delegate(1)], macs)
            methods.append(replace(method, fragments=count_fragments(graph, method.fragments)))
    layers, versions = pieces[0].layers, list_versions(PACKAGES)
    precision = graphs[0].precision
    return Artifact(FORMAT, precision, data, tuple(methods), versions, layers=layers, products=join(pieces))


def write_around(graphs: Sequence[Graph], programs: Sequence[bytes], metadata: Mapping[str, str]) -> bytes:
    """Write the .tflite of graphs around pieces.

    programs: of the pieces, each a .bve with an entry for each graph. Errors as of write_file.
    """
    names, rest = _name([graph.keep for graph in graphs]), [take_rest(graph) for graph in graphs]
    model = read_model(quantize_file(lower_float(rest, names)[0], rest))
    numbers = {}
    for code in model.operatorCodes:
        if code.customCode and code.customCode.startswith(PLACE.encode()):
            numbers[id(code)] = int(code.customCode.removeprefix(PLACE.encode()))
            code.customCode = CUSTOM_OP
    options = [np.frombuffer(program, np.uint8) for program in programs]
    for signature, graph in zip(model.signatureDefs, graphs, strict=True):  # other subgraphs are ops' insides
        content = model.subgraphs[signature.subgraphIndex]
        content.tensors.append(_build_tensor(b"keep", [], add_buffer(model, np.float32(graph.keep or 0).tobytes())))
        for op in content.operators:
            number = numbers.get(id(model.operatorCodes[op.opcodeIndex]))
            if number is not None:
                op.inputs = np.array([*op.inputs, len(content.tensors) - 1], np.int32)
                op.customOptions = options[number]
    return _write(model, programs, names, metadata)


@registry.lower(CALL)  # type: ignore[untyped-decorator]
def _lower_call(
    context: LoweringContext, inputs: list[ir.Value], piece: int, ranks: list[int], sides: list[int]
) -> list[ir.Value]:
    ends = [0, *accumulate(ranks)]
    kinds = [ir.RankedTensorType.get(sides[first:end], ir.F32Type.get()) for first, end in pairwise(ends)]
    call = stablehlo.CustomCallOp(kinds, inputs, ir.StringAttr.get(f"{PLACE}{piece}"))
    return list(call.results)


def _list_pixels(graph: Graph) -> tuple[int, ...] | None:
    """The shape of the pixels that a file takes; None of one that takes the normalised image."""
    if graph.outline is None:
        return None
    (image,), _ = graph.outline.example_inputs
    return tuple(image.shape)


def write_file(
    program: bytes, entries: Sequence[Entry], metadata: Mapping[str, str], pixels: tuple[int, ...] | None = None
) -> bytes:
    """Write the .tflite of a .bve that has those entries.

    pixels: the shape of the first input in uint8; without, it is of float32 as its port. RuntimeError if a signature of
    the file has anything but one op of ours with the whole program; UserError if that is too large for the format.
    """
    names = _name([entry.keep for entry in entries])
    return _write(_build_model(program, entries, names, pixels), [program], names, metadata)


def _write(model: Model, programs: Sequence[bytes], names: Sequence[str], metadata: Mapping[str, str]) -> bytes:
    if (size := sum(map(len, programs))) > MOST_BYTES:
        raise UserError(f"a program of {size} bytes for litert", f"at most {MOST_BYTES}", "use executorch or bve")
    store_strings(model, metadata)
    data = write_model(model, ALIGNMENT)
    _check(data, programs, names)
    return data


def _name(keeps: Sequence[float | None]) -> list[str]:
    return [name_method(keep) for keep in keeps] if len(keeps) > 1 else [SINGLE]


def _build_model(
    program: bytes, entries: Sequence[Entry], names: Sequence[str], pixels: tuple[int, ...] | None
) -> Model:
    model = schema.ModelT(version=3, description=b"bigvit-edge", buffers=[schema.BufferT()])
    code = schema.BuiltinOperator.CUSTOM
    model.operatorCodes = [schema.OperatorCodeT(code, CUSTOM_OP, 1, code)]
    options = np.frombuffer(program, np.uint8)
    model.subgraphs = [
        _build_graph(model, options, entry, name, pixels) for entry, name in zip(entries, names, strict=True)
    ]
    model.signatureDefs = [
        schema.SignatureDefT(
            *(_map_ports(graph, numbers) for numbers in (graph.inputs, graph.outputs)), name.encode(), i
        )
        for i, (graph, name) in enumerate(zip(model.subgraphs, names, strict=True))
    ]
    return model


def _map_ports(graph: Model, numbers: np.ndarray) -> list[Model]:
    return [schema.TensorMapT(graph.tensors[number].name, int(number)) for number in numbers]


def _build_graph(model: Model, program: np.ndarray, entry: Entry, name: str, pixels: tuple[int, ...] | None) -> Model:
    """The signature of an entry: one op on the tensors of its ports, between them the keep ratio."""
    keep = add_buffer(model, np.float32(entry.keep or 0).tobytes())
    tensors = [_build_tensor(port.name.encode(), port.shape) for port in entry.ports]
    if pixels:
        tensors[0] = _build_tensor(tensors[0].name, pixels, type_=BYTES)
    count = sum(not port.is_output for port in entry.ports)
    tensors.insert(count, _build_tensor(b"keep", [], keep))
    inputs, outputs = np.arange(count, dtype=np.int32), np.arange(count + 1, len(tensors), dtype=np.int32)
    op = schema.OperatorT(inputs=np.append(inputs, np.int32(count)), outputs=outputs, customOptions=program)
    return schema.SubGraphT(tensors, inputs, outputs, [op], name.encode())


def _build_tensor(name: bytes, shape: Sequence[int], buffer: int = 0, type_: int = FLOATS) -> Model:
    return schema.TensorT(np.array(shape, np.int32), type_, buffer, name, hasRank=True)


def _check(data: bytes, programs: Sequence[bytes], names: Sequence[str]) -> None:
    model, methods = read_model(data), list_methods(data)
    if list(methods) != list(names):
        raise RuntimeError(f"signatures {', '.join(methods)}; expected {', '.join(names)}")
    for name, number in methods.items():
        graph = model.subgraphs[number]
        ours = [op for op in graph.operators if model.operatorCodes[op.opcodeIndex].customCode == CUSTOM_OP]
        if not ours or {bytes(op.customOptions) for op in ours} - set(programs) or len(ours) > len(programs):
            raise RuntimeError(f"signature {name} has {len(ours)} ops of ours; expected one for each whole program")
