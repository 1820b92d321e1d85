"""What a reader of ONNX's conventions finds in a model."""

import json
from typing import Any

import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from bigvit_edge.export.backends.onnx.denotation import denote
from bigvit_edge.preprocessing import NCHW, NHWC, UINT8, Preprocessing

ABOUT = {"description": "Finds ants", "author": "A. Nobody, B. Nobody", "license": "Apache-2.0"}
PLACES = {NCHW: [1, 3, 4, 4], NHWC: [1, 4, 4, 3]}
DENOTED = {
    NCHW: ["DATA_BATCH", "DATA_CHANNEL", "DATA_FEATURE", "DATA_FEATURE"],
    NHWC: ["DATA_BATCH", "DATA_FEATURE", "DATA_FEATURE", "DATA_CHANNEL"],
}


def make(how: Preprocessing | None) -> tuple[Any, dict[str, str]]:
    """A model that sums its pixels, denoted, as read back by the runtime's checks; and its metadata there."""
    kind = TensorProto.UINT8 if how and how.dtype == UINT8 else TensorProto.FLOAT
    shape = PLACES[how.layout if how else NCHW]
    nodes = [
        helper.make_node("Cast", ["pixel_values"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["values", "shape"], ["logits"]),
    ]
    ports = (
        [helper.make_tensor_value_info("pixel_values", kind, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 48])],
    )
    constants = [helper.make_tensor("shape", TensorProto.INT64, [2], [1, 48])]
    model = helper.make_model(helper.make_graph(nodes, "tiny", *ports, constants), ir_version=9)
    words = {"labels": '["a"]'} | (ABOUT | {"preprocessing": json.dumps(how.spell())} if how else {})
    helper.set_model_props(model, denote(model, words))
    model.opset_import[0].version = 20
    onnx.checker.check_model(model, full_check=True)
    data = model.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    told = session.get_modelmeta()
    assert told.description == ("Finds ants" if how else "")
    return onnx.load_from_string(data), told.custom_metadata_map


@pytest.mark.parametrize("layout", [NCHW, NHWC])
def test_pixels_are_an_image(layout: str) -> None:
    how = Preprocessing(4, (0.5,) * 3, (0.5,) * 3, "BGR", layout=layout, dtype=UINT8)
    model, metadata = make(how)
    (image,) = model.graph.input
    assert image.type.denotation == "IMAGE"
    assert [each.denotation for each in image.type.tensor_type.shape.dim] == DENOTED[layout]
    assert f"RGB, {layout}" in image.doc_string  # whatever the model behind it wants
    told = {key.removeprefix("Image."): value for key, value in metadata.items() if key.startswith("Image.")}
    assert told == {
        "BitmapPixelFormat": "Rgb8", "ColorSpaceGamma": "SRGB", "NominalPixelRange": "NominalRange_0_255",
    }  # fmt: skip
    assert (metadata["labels"], json.loads(metadata["preprocessing"])) == ('["a"]', how.spell() | json_like(how))


def json_like(how: Preprocessing) -> dict[str, Any]:
    """Triples are lists there."""
    return {name: list(value) for name, value in how.spell().items() if isinstance(value, tuple)}


def test_a_normalised_picture_is_none_and_says_so() -> None:
    model, metadata = make(Preprocessing(4, (0.5,) * 3, (0.5,) * 3, "BGR"))
    (image,), (logits,) = model.graph.input, model.graph.output
    assert image.type.denotation == ""
    assert [each.denotation for each in image.type.tensor_type.shape.dim] == DENOTED[NCHW]
    assert "BGR, NCHW" in image.doc_string
    assert "before the softmax" in logits.doc_string
    assert (metadata["model_author"], metadata["model_license"]) == ("A. Nobody, B. Nobody", "Apache-2.0")
    assert not any(key.startswith("Image.") for key in metadata)


def test_of_what_nothing_is_known_nothing_is_said() -> None:
    model, metadata = make(None)
    (image,) = model.graph.input
    assert (image.doc_string, image.type.denotation, metadata) == ("", "", {"labels": '["a"]'})
