"""LiteRT files that our own core runs: each signature is one op of ours, which libbve_litert.so takes whole.

What each precision means is in export/native.py.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from bigvit_edge.artifact import Artifact, list_versions, name_method
from bigvit_edge.errors import UserError
from bigvit_edge.export.backends.litert import FORMAT, SINGLE
from bigvit_edge.export.backends.litert.contents import (
    CUSTOM_OP,
    Model,
    add_buffer,
    list_methods,
    read_model,
    store_strings,
    write_model,
)
from bigvit_edge.export.graph import Graph
from bigvit_edge.export.native import describe_entry, lower_native
from bigvit_edge.export.program import Entry
from bigvit_edge.runtime.litert import load_library

if TYPE_CHECKING:
    from bigvit_edge.target import Target

try:
    load_library()  # a missing library shows on import, as other backends' packages do
except UserError as e:
    raise UserError(e.met, e.expected, f"{e.do}, or add --set backend=xnnpack") from e

PACKAGES = ("ai-edge-litert", "torch")
ALIGNMENT = 64  # of the program in the file, which is then used where it lies
MOST_BYTES = 2**31 - 2**20  # offsets in a .tflite are of 31 bits; the rest of the file needs less than that difference


def lower(graphs: Sequence[Graph], target: "Target", metadata: Mapping[str, str]) -> Artifact:
    """The .tflite of a model at its keep ratios, the largest first."""
    lowered = lower_native(graphs, target, metadata)
    data = write_file(lowered.data, lowered.entries, metadata)
    methods = tuple(
        describe_entry(entry, name) for entry, name in zip(lowered.entries, _name(lowered.entries), strict=True)
    )
    versions = list_versions(PACKAGES)
    return Artifact(FORMAT, graphs[0].precision, data, methods, versions, layers=lowered.layers)


def write_file(program: bytes, entries: Sequence[Entry], metadata: Mapping[str, str]) -> bytes:
    """The .tflite of a .bve that has those entries. RuntimeError if a signature of the file is anything but one op of
    ours with the whole program."""
    if len(program) > MOST_BYTES:
        raise UserError(
            f"a program of {len(program)} bytes for litert", f"at most {MOST_BYTES}", "use executorch or bve"
        )
    names = _name(entries)
    model = _build_model(program, entries, names)
    store_strings(model, metadata)
    data = write_model(model, ALIGNMENT)
    _check(data, program, names)
    return data


def _name(entries: Sequence[Entry]) -> list[str]:
    return [name_method(entry.keep) for entry in entries] if len(entries) > 1 else [SINGLE]


def _build_model(program: bytes, entries: Sequence[Entry], names: Sequence[str]) -> Model:
    model = schema.ModelT(version=3, description=b"bigvit-edge", buffers=[schema.BufferT()])
    code = schema.BuiltinOperator.CUSTOM
    model.operatorCodes = [schema.OperatorCodeT(code, CUSTOM_OP, 1, code)]
    options = np.frombuffer(program, np.uint8)
    model.subgraphs = [_build_graph(model, options, entry, name) for entry, name in zip(entries, names, strict=True)]
    model.signatureDefs = [
        schema.SignatureDefT(
            inputs=[schema.TensorMapT(b"image", 0)], outputs=[schema.TensorMapT(b"logits", 2)],
            signatureKey=name.encode(), subgraphIndex=number,
        )
        for number, name in enumerate(names)
    ]  # fmt: skip
    return model


def _build_graph(model: Model, program: np.ndarray, entry: Entry, name: str) -> Model:
    keep = add_buffer(model, np.float32(entry.keep or 0).tobytes())
    tensors = [
        _build_tensor(b"image", [1, 3, entry.image_size, entry.image_size]),
        _build_tensor(b"keep", [], keep),
        _build_tensor(b"logits", [1, entry.classes]),
    ]
    op = schema.OperatorT(inputs=np.array([0, 1], np.int32), outputs=np.array([2], np.int32), customOptions=program)
    return schema.SubGraphT(tensors, np.array([0], np.int32), np.array([2], np.int32), [op], name.encode())


def _build_tensor(name: bytes, shape: Sequence[int], buffer: int = 0) -> Model:
    return schema.TensorT(np.array(shape, np.int32), schema.TensorType.FLOAT32, buffer, name, hasRank=True)


def _check(data: bytes, program: bytes, names: Sequence[str]) -> None:
    model = read_model(data)
    if list(list_methods(data)) != list(names):
        raise RuntimeError(f"signatures {', '.join(list_methods(data))}; expected {', '.join(names)}")
    for graph in model.subgraphs:
        ops = [(model.operatorCodes[op.opcodeIndex].customCode, op.customOptions) for op in graph.operators]
        if len(ops) != 1 or ops[0][0] != CUSTOM_OP or bytes(ops[0][1]) != program:
            raise RuntimeError(f"subgraph {graph.name} of {len(ops)} ops; expected one of ours with the whole program")
