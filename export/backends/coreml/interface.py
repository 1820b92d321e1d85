"""What a package takes and answers: a tensor and logits or, as Vision and Xcode take image classifiers, a picture and
its label, with the probability of each."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch.export import ExportedProgram

from bigvit_edge.artifact import CLASS_PROBABILITIES, IMAGE, LOGITS, PROBABILITIES
from bigvit_edge.console import silenced
from bigvit_edge.export.backends.coreml.neural_engine import REPORT
from bigvit_edge.export.backends.coreml.package import MODEL
from bigvit_edge.export.graph import shape_of
from bigvit_edge.runtime.mil.package import find_description, read_function

with silenced():
    import coremltools as ct
    from coremltools.proto import Model_pb2

LABEL = CLASS_PROBABILITIES.removesuffix("_probs")  # which coremltools appends
PREVIEW = "com.apple.coreml.model.preview.type", "imageClassifier"  # what Xcode shows beside the model
ABOUT = {"description": "shortDescription", "version": "versionString", "author": "author", "license": "license"}
MAKER = "com.github.apple.coremltools."  # in front of what coremltools says of itself
MOST_SHOWN = 200  # letters of what differs


def choose_precision(precision: Any) -> Any:
    """Choose what a classifier's program computes in.

    Its last softmax is in float32: half has no number between 0 and 6e-8, and coremltools casts to float32 behind it
    anyway.
    """
    if precision != ct.precision.FLOAT16:
        return precision
    return ct.transform.FP16ComputePrecision(lambda op: op.outputs[0] not in op.enclosing_block.outputs)


def describe_tensors(exported: ExportedProgram) -> dict[str, Any]:
    """Describe a tensor in and logits out, as ct.convert takes it."""
    (image,) = exported.example_inputs[0]
    return {
        "inputs": [ct.TensorType(name=IMAGE, shape=tuple(image.shape), dtype=np.float32)],
        "outputs": [ct.TensorType(name=LOGITS, dtype=np.float32)],
    }


def describe_classifier(exported: ExportedProgram, names: Sequence[str]) -> dict[str, Any]:
    """Describe a picture in and a classifier's answer out.

    As ct.convert takes it. exported: with a softmax, for pixels in RGB, 0..255, as floats [1, 3, S, S].
    """
    (image,) = exported.example_inputs[0]
    return {
        "inputs": [ct.ImageType(name=IMAGE, shape=tuple(image.shape), color_layout=ct.colorlayout.RGB)],
        "outputs": [ct.TensorType(name=PROBABILITIES, dtype=np.float32)],
        "classifier_config": ct.ClassifierConfig(list(names), LABEL, PROBABILITIES),
    }


def describe_package(files: Mapping[str, bytes], metadata: Mapping[str, str]) -> dict[str, bytes]:
    """Add what Xcode shows of an image classifier.

    It is descriptions, version, author, license and the kind of preview. metadata: the words kept inside files, among
    them those of ABOUT that are known.
    """
    model = Model_pb2.Model.FromString(files[f"Data/{MODEL}"])
    for key, text in describe_model(metadata).items():
        setattr(model.description.metadata, key, text)
    model.description.metadata.userDefined[PREVIEW[0]] = PREVIEW[1]
    texts = describe_features(metadata)
    for told in model.description.functions or [model.description]:
        for feature in (*told.input, *told.output):
            feature.shortDescription = texts[feature.name]
    return {**files, f"Data/{MODEL}": model.SerializeToString(deterministic=True)}


def describe_model(metadata: Mapping[str, str]) -> dict[str, str]:
    """Say of a model what is known of it.

    The fields of a package's metadata; where nobody described it, what it was made by.
    """
    told = {field: metadata[word] for word, field in ABOUT.items() if metadata.get(word)}
    made = f"{metadata.get('model', 'A model')}, an image classifier, exported by bigvit-edge"
    return {"shortDescription": made, **told}


def describe_features(metadata: Mapping[str, str]) -> dict[str, str]:
    """Say of each input and output what it is, by name."""
    how = json.loads(metadata.get("preprocessing", "{}"))
    crop = f": {how['crop']}, {how['resize']}" if how else ""
    return {
        IMAGE: f"The picture, upright, cropped and resized{crop}",
        LABEL: "The likeliest class",
        CLASS_PROBABILITIES: "The probability of each class",
    }


def check_interface(
    files: Mapping[str, bytes], method: str, exported: ExportedProgram, names: Sequence[str] | None,
    metadata: Mapping[str, str],
) -> None:  # fmt: skip
    """Check what a saved package takes, answers and says.

    As read back, at an entry point. names: of the classes, None where it takes a tensor and answers with logits.
    RuntimeError where it is other than was asked.
    """
    met, expected = _read_interface(files, method), _expect_interface(exported, names, metadata)
    if wrong := sorted(key for key in met.keys() | expected.keys() if met.get(key) != expected.get(key)):
        said = "; ".join(f"{key} {_shorten(met.get(key))}, not {_shorten(expected.get(key))}" for key in wrong)
        raise RuntimeError(f"{method} was saved with {said}; {REPORT}")


def _shorten(value: Any) -> str:
    return repr(value)[:MOST_SHOWN]


def _read_interface(files: Mapping[str, bytes], method: str) -> dict[str, Any]:
    description = Model_pb2.Model.FromString(files[f"Data/{MODEL}"]).description
    told = find_description(description, method)
    features, words = (*told.input, *told.output), description.metadata.userDefined.items()
    return {
        **{f"type of {feature.name}": _name_type(feature.type) for feature in features},
        **{f"description of {feature.name}": feature.shortDescription for feature in features},
        "predictions": (told.predictedFeatureName, told.predictedProbabilitiesName),
        "classes": read_function(files, "the package", method).classes,
        **{field: getattr(description.metadata, field) for field in ABOUT.values()},
        **{f"word {key}": text for key, text in words if not key.startswith(MAKER)},
    }


def _expect_interface(
    exported: ExportedProgram, names: Sequence[str] | None, metadata: Mapping[str, str]
) -> dict[str, Any]:
    ((image,), _), ((logits,),) = exported.example_inputs, exported.graph.output_node().args
    if names is None:
        types = {IMAGE: f"float32 {list(image.shape)}", LOGITS: f"float32 {list(shape_of(logits))}"}
        texts, fields, predictions, words = dict.fromkeys(types, ""), {}, ("", ""), dict(metadata)
    else:
        picture = f"picture RGB {image.shape[3]} x {image.shape[2]}"
        types = {IMAGE: picture, LABEL: "text", CLASS_PROBABILITIES: "numbers by text"}
        texts, fields, predictions = describe_features(metadata), describe_model(metadata), (LABEL, CLASS_PROBABILITIES)
        words = {**metadata, PREVIEW[0]: PREVIEW[1]}
    return {
        **{f"type of {name}": type_ for name, type_ in types.items()},
        **{f"description of {name}": text for name, text in texts.items()},
        "predictions": predictions,
        "classes": names,
        **dict.fromkeys(ABOUT.values(), ""),
        **fields,
        **{f"word {key}": text for key, text in words.items()},
    }


def _name_type(type_: Any) -> str:
    match type_.WhichOneof("Type"):
        case "imageType":
            image = type_.imageType
            return f"picture {image.ColorSpace.Name(image.colorSpace)} {image.width} x {image.height}"
        case "multiArrayType":
            array = type_.multiArrayType
            return f"{array.ArrayDataType.Name(array.dataType).lower()} {list(array.shape)}"
        case "stringType":
            return "text"
        case "dictionaryType" if type_.dictionaryType.WhichOneof("KeyType") == "stringKeyType":
            return "numbers by text"
    return str(type_)
