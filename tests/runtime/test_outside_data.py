"""Where a tensor can be in an ONNX model, as ONNX's own description has it; bytes that are no model."""

import onnx
import pytest

from bigvit_edge.runtime.outside_data import BYTES, DATA_LOCATION, EXTERNAL_DATA, LEADING, NAME, refuse_outside_data


def test_every_way_to_a_tensor_is_followed() -> None:
    messages = onnx.ModelProto.DESCRIPTOR.file.message_types_by_name
    ways = {
        name: {field.number: field.message_type.name for field in message.fields if field.message_type}
        for name, message in messages.items()
    }
    leading, before = {"TensorProto"}, set[str]()
    while leading != before:  # what leads to a message that leads there leads there
        before = set(leading)
        leading |= {name for name, fields in ways.items() if leading & set(fields.values())}
    expected = {
        name: {number: kind for number, kind in ways[name].items() if kind in leading}
        for name in leading - {"TensorProto"}
    }
    assert {name: fields for name, fields in expected.items() if name in LEADING} == LEADING
    # What is reached from a model: no ModelProto nor SequenceProto is.
    reached, todo = set[str](), ["ModelProto"]
    while todo:
        reached.add(name := todo.pop())
        todo += [kind for kind in expected.get(name, {}).values() if kind not in reached]
    assert reached - {"TensorProto"} == set(LEADING)
    tensor = messages["TensorProto"].fields_by_name
    assert [tensor[name].number for name in ("name", "external_data", "data_location")] == [
        NAME, EXTERNAL_DATA, DATA_LOCATION,
    ]  # fmt: skip


def test_a_place_outside_that_a_runtime_reads_as_one_is_one() -> None:
    tensor = bytes([NAME << 3 | BYTES, 1, ord("w"), DATA_LOCATION << 3, 0x81, 0x80, 0x80, 0x80, 0x10])  # 2**32 + 1
    graph = bytes([5 << 3 | BYTES, len(tensor), *tensor])
    with pytest.raises(ValueError, match="'w' is in another file"):
        refuse_outside_data(bytes([7 << 3 | BYTES, len(graph), *graph]))


@pytest.mark.parametrize(
    "data",
    [b"", b"\x08\x0a", b"\x3a\x05\x0a", b"\x3b", b"\x08" + b"\xff" * 11, b"\x09\x00", b"\x3a\xff\xff\xff\xff\x0f"],
)
def test_bytes_that_are_no_model(data: bytes) -> None:
    with pytest.raises(ValueError, match="no ONNX model"):
        refuse_outside_data(data)


def test_a_model_is_none_without_a_graph_alone() -> None:
    refuse_outside_data(onnx.ModelProto(graph=onnx.GraphProto()).SerializeToString())
    model = onnx.ModelProto(ir_version=10, producer_name="somebody")
    with pytest.raises(ValueError, match="no ONNX model: it has no graph"):
        refuse_outside_data(model.SerializeToString())


def test_a_deep_model_is_no_recursion() -> None:
    data = b""
    for number in [6, 5, 1] * 2000 + [7]:  # an attribute's graph's node's attribute ...
        size = len(data)
        data = bytes([number << 3 | BYTES, size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14]) + data
    refuse_outside_data(data)
