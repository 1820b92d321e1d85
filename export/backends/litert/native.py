"""LiteRT files that our own core runs: each signature is one op of ours, which libbve_litert.so takes whole; of a model
of others, what it has of ours is that op, and the rest as without us.

What each precision means is in export/native.py.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from litert_converter.mlir import ir
from litert_converter.mlir.dialects import stablehlo
from litert_torch.backend.lowerings import registry
from litert_torch.backend.lowerings.context import LoweringContext

from bigvit_edge.artifact import Artifact, list_versions, name_method
from bigvit_edge.console import silenced
from bigvit_edge.errors import UserError
from bigvit_edge.export.backends.litert import FORMAT, PACKAGES, SINGLE, lower_float
from bigvit_edge.export.backends.litert.contents import (
    Model,
    add_buffer,
    read_model,
    store_strings,
    write_model,
)
from bigvit_edge.export.backends.litert.delegation import describe_method
from bigvit_edge.export.backends.litert.quantization import quantize_file
from bigvit_edge.export.graph import Graph
from bigvit_edge.export.inlay import PROGRAM, rest_of
from bigvit_edge.export.native import describe_entry, lower_native
from bigvit_edge.export.program import Entry
from bigvit_edge.runtime.litert import load_delegate, load_library
from bigvit_edge.runtime.tflite import CUSTOM_OP, list_methods

if TYPE_CHECKING:
    from bigvit_edge.target import Target

try:
    load_library()  # a missing library shows on import, as other backends' packages do
except UserError as e:
    raise UserError(e.met, e.expected, f"{e.do}, or add --set backend=xnnpack") from e

ALONE = ("ai-edge-litert", "torch")  # packages that a file without a graph around the program needs
ALIGNMENT = 64  # of the program in the file, which is then used where it lies
MOST_BYTES = 2**31 - 2**20  # offsets in a .tflite are of 31 bits; the rest of the file needs less than that difference
FLOATS, BYTES = schema.TensorType.FLOAT32, schema.TensorType.UINT8
PLACE = f"custom_call.{CUSTOM_OP.decode()}"  # the converter makes a custom op of what is called so


def lower(graphs: Sequence[Graph], target: "Target", metadata: Mapping[str, str]) -> Artifact:
    """Lower a model to a .tflite, the largest keep ratio first."""
    lowered = lower_native(graphs, target, metadata)
    names = _name(lowered.entries)
    if graphs[0].inlay is None:
        data = write_file(lowered.data, lowered.entries, metadata, _list_pixels(graphs[0]))
        methods = [describe_entry(entry, name) for entry, name in zip(lowered.entries, names, strict=True)]
    else:
        rest = [rest_of(graph) for graph in sorted(graphs, key=lambda graph: -(graph.keep or 0))]
        with silenced():
            data = write_around(rest, lowered.data, lowered.entries, metadata)
            methods = [
                describe_method(data, name, entry.keep, [load_delegate(1)], entry.macs)
                for entry, name in zip(lowered.entries, names, strict=True)
            ]
    versions = list_versions(ALONE if graphs[0].inlay is None else PACKAGES)
    return Artifact(
        FORMAT, graphs[0].precision, data, tuple(methods), versions, layers=lowered.layers, products=lowered.products
    )


def write_around(rest: Sequence[Graph], program: bytes, entries: Sequence[Entry], metadata: Mapping[str, str]) -> bytes:
    """Write the .tflite of graphs around a .bve.

    The .bve has those entries, one for each graph. Errors as of write_file.
    """
    names = _name(entries)
    model = read_model(quantize_file(lower_float(rest, names)[0], rest))
    (code,) = (code for code in model.operatorCodes if code.customCode == PLACE.encode())
    code.customCode, options = CUSTOM_OP, np.frombuffer(program, np.uint8)
    for signature, entry in zip(model.signatureDefs, entries, strict=True):  # there may be subgraphs for ops' insides
        graph = model.subgraphs[signature.subgraphIndex]
        keep = add_buffer(model, np.float32(entry.keep or 0).tobytes())
        graph.tensors.append(_build_tensor(b"keep", [], keep))
        for op in graph.operators:
            if model.operatorCodes[op.opcodeIndex] is code:
                op.inputs = np.array([*op.inputs, len(graph.tensors) - 1], np.int32)
                op.customOptions = options
    return _write(model, program, names, metadata)


@registry.lower(PROGRAM)  # type: ignore[untyped-decorator]
def _lower_program(context: LoweringContext, image: ir.Value, classes: int) -> ir.Value:
    kind = ir.RankedTensorType.get([1, classes], ir.F32Type.get())
    return stablehlo.custom_call([kind], [image], ir.StringAttr.get(PLACE))


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

    pixels: the shape of what it takes in uint8; without, float32 [1, 3, S, S]. RuntimeError if a signature of the file
    has anything but one op of ours with the whole program; UserError if that is too large for the format.
    """
    names = _name(entries)
    return _write(_build_model(program, entries, names, pixels), program, names, metadata)


def _write(model: Model, program: bytes, names: Sequence[str], metadata: Mapping[str, str]) -> bytes:
    if len(program) > MOST_BYTES:
        raise UserError(
            f"a program of {len(program)} bytes for litert", f"at most {MOST_BYTES}", "use executorch or bve"
        )
    store_strings(model, metadata)
    data = write_model(model, ALIGNMENT)
    _check(data, program, names)
    return data


def _name(entries: Sequence[Entry]) -> list[str]:
    return [name_method(entry.keep) for entry in entries] if len(entries) > 1 else [SINGLE]


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
            inputs=[schema.TensorMapT(b"image", 0)], outputs=[schema.TensorMapT(b"logits", 2)],
            signatureKey=name.encode(), subgraphIndex=number,
        )
        for number, name in enumerate(names)
    ]  # fmt: skip
    return model


def _build_graph(model: Model, program: np.ndarray, entry: Entry, name: str, pixels: tuple[int, ...] | None) -> Model:
    keep = add_buffer(model, np.float32(entry.keep or 0).tobytes())
    shape = pixels or (1, 3, entry.image_size, entry.image_size)
    tensors = [
        _build_tensor(b"image", shape, type_=BYTES if pixels else FLOATS),
        _build_tensor(b"keep", [], keep),
        _build_tensor(b"logits", [1, entry.classes]),
    ]
    op = schema.OperatorT(inputs=np.array([0, 1], np.int32), outputs=np.array([2], np.int32), customOptions=program)
    return schema.SubGraphT(tensors, np.array([0], np.int32), np.array([2], np.int32), [op], name.encode())


def _build_tensor(name: bytes, shape: Sequence[int], buffer: int = 0, type_: int = FLOATS) -> Model:
    return schema.TensorT(np.array(shape, np.int32), type_, buffer, name, hasRank=True)


def _check(data: bytes, program: bytes, names: Sequence[str]) -> None:
    model, methods = read_model(data), list_methods(data)
    if list(methods) != list(names):
        raise RuntimeError(f"signatures {', '.join(methods)}; expected {', '.join(names)}")
    for name, number in methods.items():
        graph = model.subgraphs[number]
        ours = [op for op in graph.operators if model.operatorCodes[op.opcodeIndex].customCode == CUSTOM_OP]
        if [bytes(op.customOptions) for op in ours] != [program]:
            raise RuntimeError(f"signature {name} has {len(ours)} ops of ours; expected one with the whole program")
