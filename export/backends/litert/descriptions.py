"""What a .tflite says of itself to mobile libraries: model metadata, and the file of labels.

They are MediaPipe, the Task Library and ML Kit. The metadata is a FlatBuffer of metadata_schema.fbs in a buffer of the
model's; the labels are a file in a zip archive behind the model, which LiteRT passes over. What else writes them is
part of a runtime (mediapipe, with OpenCV), so the tables and fields that we write are named here.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any
from zipfile import ZipFile, ZipInfo

from bigvit_edge.artifact import PROBABILITIES
from bigvit_edge.console import silenced
from bigvit_edge.export.backends.litert.contents import Model, add_buffer
from bigvit_edge.export.pixels import takes_pixels

with silenced():
    from ai_edge_litert import schema_py_generated as schema
    from flatbuffers import Builder

NAME = "TFLITE_METADATA"  # of the entry in Model.metadata
IDENTIFIER = b"M001"
LABELS = "labels.txt"

# Fields of metadata_schema.fbs in its order, which never changes; a union is two, of which the first is its type.
FIELDS = {
    "AssociatedFile": ("name", "description", "type"),
    "Content": ("content_properties_type", "content_properties"),
    "FeatureProperties": (),
    "ImageProperties": ("color_space",),
    "ModelMetadata": (
        "name", "description", "version", "subgraph_metadata", "author", "license", "associated_files",
        "min_parser_version",
    ),
    "NormalizationOptions": ("mean", "std"),
    "ProcessUnit": ("options_type", "options"),
    "Stats": ("max", "min"),
    "SubGraphMetadata": ("name", "description", "input_tensor_metadata", "output_tensor_metadata"),
    "TensorMetadata": (
        "name", "description", "dimension_names", "content", "process_units", "stats", "associated_files",
    ),
}  # fmt: skip
ABOUT = ("description", "version", "author", "license")  # of a model, where somebody said so
PARSER = "1.0.0"  # the oldest that knows all of these
FEATURE, IMAGE = 1, 2  # ContentProperties
NORMALIZATION = 1  # ProcessUnitOptions
RGB = 1  # ColorSpaceType
TENSOR_AXIS_LABELS = 2  # AssociatedFileType


@dataclass(frozen=True)
class _Table:
    """One table. Fields: texts, tables, lists of tables or of numbers; a number is an enumeration's, of 8 bits."""

    kind: str
    fields: Mapping[str, Any]

    def pack(self, builder: Builder) -> int:
        numbers = FIELDS[self.kind]
        values = {numbers.index(name): _pack(builder, value) for name, value in self.fields.items()}
        builder.StartObject(len(numbers))
        for number, (value, inline) in values.items():
            if inline:
                builder.PrependUint8Slot(number, value, 0)
            else:
                builder.PrependUOffsetTRelativeSlot(number, value, 0)
        return int(builder.EndObject())


def _pack(builder: Builder, value: Any) -> tuple[int, bool]:
    """A value ready for its table: an offset, or what stands in the table itself."""
    if isinstance(value, int):
        return value, True
    if isinstance(value, str):
        return builder.CreateString(value), False
    if isinstance(value, _Table):
        return value.pack(builder), False
    offsets = [each.pack(builder) if isinstance(each, _Table) else None for each in value]
    builder.StartVector(4, len(value), 4)
    for each, offset in zip(reversed(value), reversed(offsets), strict=True):
        if offset is None:
            builder.PrependFloat32(each)
        else:
            builder.PrependUOffsetTRelative(offset)
    return builder.EndVector(), False


def store_description(model: Model, words: Mapping[str, str], output: str = PROBABILITIES) -> None:
    """Describe a model that turns pixels into a number for each class.

    words: as lower has them; those of one that takes a tensor leave it as it is. output: what its answer is called.
    append_labels is to follow, when the file's bytes are there.
    """
    if not takes_pixels(words):
        return
    entry = schema.MetadataT()
    entry.name, entry.buffer = NAME.encode(), add_buffer(model, _describe_model(words, len(model.subgraphs), output))
    model.metadata = [*(model.metadata or []), entry]


def _describe_model(words: Mapping[str, str], subgraphs: int, output: str) -> bytes:
    """The metadata. Subgraphs differ in their keep ratio alone."""
    name, size = words["model"], json.loads(words["preprocessing"])["size"]
    tensors = {
        "input_tensor_metadata": [_describe_image(size)],
        "output_tensor_metadata": [_describe_answer(output, bool(_read_labels(words)))],
    }
    model = {
        "name": name,
        "description": f"Classifies pictures: {name}, {words['precision']}, exported by bigvit-edge.",
        **{field: words[field] for field in ABOUT if words.get(field)},
        "subgraph_metadata": [_Table("SubGraphMetadata", tensors)] * subgraphs,
        "min_parser_version": PARSER,
    }
    builder = Builder(1024)
    builder.Finish(_Table("ModelMetadata", model).pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def _describe_image(size: int) -> _Table:
    """Mean 0 and std 1: the model does what normalising there is."""
    pixels = {"mean": [0.0], "std": [1.0]}
    unit = {"options_type": NORMALIZATION, "options": _Table("NormalizationOptions", pixels)}
    return _Table(
        "TensorMetadata",
        {
            "name": "image",
            "description": f"A picture of {size} x {size} pixels, RGB, 0 to 255.",
            "content": _describe_content(IMAGE, _Table("ImageProperties", {"color_space": RGB})),
            "process_units": [_Table("ProcessUnit", unit)],
            "stats": _Table("Stats", {"max": [255.0], "min": [0.0]}),
        },
    )


def _describe_answer(output: str, labelled: bool) -> _Table:
    """Without labels MediaPipe names a class by its number alone."""
    file = {"name": LABELS, "description": "The classes' names, one a line.", "type": TENSOR_AXIS_LABELS}
    shares = {"stats": _Table("Stats", {"max": [1.0], "min": [0.0]})} if output == PROBABILITIES else {}
    return _Table(
        "TensorMetadata",
        {
            "name": output,
            "description": "Probability of each class." if shares else "Logit of each class.",
            "content": _describe_content(FEATURE, _Table("FeatureProperties", {})),
            **shares,
            "associated_files": [_Table("AssociatedFile", file)] if labelled else [],
        },
    )


def _describe_content(kind: int, properties: _Table) -> _Table:
    return _Table("Content", {"content_properties_type": kind, "content_properties": properties})


def append_labels(data: bytes, words: Mapping[str, str]) -> bytes:
    """Append the file of labels that store_description told of.

    It lies in the archive as it is, which MediaPipe wants, with no time. A line break in a label becomes a space.
    """
    labels = _read_labels(words) if takes_pixels(words) else ()
    if not labels:
        return data
    text = "".join(re.sub(r"[\r\n]+", " ", label) + "\n" for label in labels)
    if not labels[-1]:
        text += "\n"  # MediaPipe drops a last line that is empty, and then a label is missing
    whole = BytesIO()
    whole.write(data)
    with ZipFile(whole, "a") as archive:
        archive.writestr(ZipInfo(LABELS), text)
    return whole.getvalue()


def _read_labels(words: Mapping[str, str]) -> Sequence[str]:
    return json.loads(words["labels"]) or ()
