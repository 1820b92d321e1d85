"""What a .tflite says of itself, as LiteRT's own schema reads and writes it."""

from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import Builder

from bigvit_edge.runtime.tflite import (
    CUSTOM_OP,
    KEY,
    holds_program,
    list_custom_ops,
    list_methods,
    read_strings,
    select_method,
)


def write(strings: dict[str, str], methods: dict[str, int], ops: list[bytes | None] | None = None) -> bytes:
    model = schema.ModelT()
    model.version, model.buffers, model.metadata = 3, [schema.BufferT()], []
    for name, text in strings.items():
        buffer, entry = schema.BufferT(), schema.MetadataT()
        buffer.data = np.frombuffer(text.encode(), np.uint8)
        entry.name, entry.buffer = name, len(model.buffers)
        model.buffers.append(buffer)
        model.metadata.append(entry)
    model.subgraphs = [schema.SubGraphT() for _ in methods]
    for number, graph in enumerate(model.subgraphs):
        graph.name = f"graph {number}"
    model.signatureDefs = []
    for name, number in methods.items():
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = name, number
        model.signatureDefs.append(signature)
    model.operatorCodes = []
    for custom in ops or []:
        code = schema.OperatorCodeT()
        code.customCode = custom
        model.operatorCodes.append(code)
    builder = Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def read(data: bytes) -> Any:
    return schema.ModelT.InitFromPackedBuf(data, 0)


def test_strings_that_an_export_kept() -> None:
    data = write({KEY + "labels": '["één"]', "min_runtime_version": "1.5.0", KEY + "empty": ""}, {"a": 0})
    assert read_strings(data) == {"labels": '["één"]'}
    assert read_strings(write({}, {})) == {}


def test_signatures_in_the_order_of_the_file() -> None:
    methods = {"keep_1": 2, "keep_0_5": 0, "ünï": 1}
    data = write({}, methods)
    assert list(list_methods(data).items()) == list(methods.items())
    assert list_methods(write({}, {})) == {}


@pytest.mark.parametrize(("ops", "ours"), [([], False), ([None, b"other"], False), ([b"other", CUSTOM_OP], True)])
def test_ops_of_ours(ops: list[bytes | None], ours: bool) -> None:
    data = write({}, {"a": 0}, ops)
    assert holds_program(data) == ours
    assert list_custom_ops(data) == [op for op in ops if op]


@pytest.mark.parametrize("method", ["keep_1", "keep_0_5", "ünï"])
def test_one_signature_is_left_with_its_graph(method: str) -> None:
    methods = {"keep_1": 2, "keep_0_5": 0, "ünï": 1}
    data = write({KEY + "a": "b"}, methods)
    model = read(cut := select_method(data, method))
    assert [graph.name for graph in model.subgraphs] == [f"graph {methods[method]}".encode()]
    assert [(s.signatureKey.decode(), s.subgraphIndex) for s in model.signatureDefs] == [(method, 0)]
    assert read_strings(cut) == {"a": "b"}
    assert len(cut) == len(data)
