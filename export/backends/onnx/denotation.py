"""What an ONNX model says of its input and output, in the words of ONNX's own conventions.

Types and dimensions are denoted (TypeDenotation.md and DimensionDenotation.md of onnx.ai), with the metadata that goes
with the type IMAGE (MetadataProps.md); who made it is said as IR.md has it; and there is a sentence for each, which
Netron shows.
"""

import json
from collections.abc import Mapping

from bigvit_edge.console import silenced
from bigvit_edge.preprocessing import UINT8, Preprocessing

with silenced():
    from onnx import ModelProto

AXES = {"N": "DATA_BATCH", "C": "DATA_CHANNEL", "H": "DATA_FEATURE", "W": "DATA_FEATURE"}
ABOUT = {"author": "model_author", "license": "model_license"}
PIXELS = {
    "Image.BitmapPixelFormat": "Rgb8",
    "Image.ColorSpaceGamma": "SRGB",
    "Image.NominalPixelRange": "NominalRange_0_255",
}


def denote(model: ModelProto, metadata: Mapping[str, str]) -> dict[str, str]:
    """Denote a model's input and output.

    metadata: as Backend.lower has it; what 'preprocessing' in it does not say is not denoted. Returns the metadata with
    what ONNX adds to it.
    """
    model.doc_string = metadata.get("description", "")
    told = {**metadata, **{ABOUT[key]: value for key, value in metadata.items() if key in ABOUT}}
    if "preprocessing" not in metadata:
        return told
    how = Preprocessing(**json.loads(metadata["preprocessing"]))
    (image,), (logits,) = model.graph.input, model.graph.output
    for axis, dimension in zip(how.layout, image.type.tensor_type.shape.dim, strict=True):
        dimension.denotation = AXES[axis]
    logits.doc_string = "before the softmax, in the order of the metadata's labels"
    said = f"{how.layout}, resized and cut out as the metadata's preprocessing says"
    if how.dtype == UINT8:
        image.type.denotation, image.doc_string = "IMAGE", f"pixels of a picture, RGB, {said}"
        return told | PIXELS
    image.doc_string = f"a picture, {how.color}, {said}; times scale, minus mean, over std"
    return told
