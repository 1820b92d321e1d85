"""What a .tflite says of itself, as MediaPipe reads it, on a file of three ops whose answer can be told beforehand."""

import json
import zipfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from bigvit_edge.artifact import Array
from bigvit_edge.export.backends.litert import contents
from bigvit_edge.export.backends.litert.descriptions import LABELS, append_labels, store_description
from bigvit_edge.runtime.tflite import read_strings, select_method
from tests.libraries import ask_mediapipe, run_mediapipe

SIZE, COLOURS = 8, ("red", "green", "blue")


def write_file(labels: Sequence[str] | None, subgraphs: int = 1, dtype: str = "uint8", **about: str) -> bytes:
    """A classifier of colours: pixels [1, 8, 8, 3] -> softmax of each channel's mean over 64, [1, 3]."""
    model = schema.ModelT(version=3, buffers=[schema.BufferT()], operatorCodes=[], metadata=[])
    axes = contents.add_buffer(model, np.array([1, 2], np.int32).tobytes())
    scale = contents.add_buffer(model, np.float32(1 / 64).tobytes())
    kinds = schema.TensorType
    tensors = [
        schema.TensorT(np.array(shape, np.int32), kind, buffer, name)
        for name, shape, kind, buffer in (
            (b"image", (1, SIZE, SIZE, 3), kinds.UINT8, 0), (b"float", (1, SIZE, SIZE, 3), kinds.FLOAT32, 0),
            (b"axes", (2,), kinds.INT32, axes), (b"mean", (1, 3), kinds.FLOAT32, 0),
            (b"scale", (), kinds.FLOAT32, scale), (b"scaled", (1, 3), kinds.FLOAT32, 0),
            (b"probabilities", (1, 3), kinds.FLOAT32, 0),
        )
    ]  # fmt: skip
    options = schema.BuiltinOptions
    ops = [
        schema.OperatorT(
            contents.find_code(model, name, 1), np.array(given, np.int32), np.array([made], np.int32), kind, how
        )
        for name, given, made, kind, how in (
            ("CAST", [0], 1, options.CastOptions, schema.CastOptionsT(kinds.UINT8, kinds.FLOAT32)),
            ("MEAN", [1, 2], 3, options.ReducerOptions, schema.ReducerOptionsT()),
            ("MUL", [3, 4], 5, options.MulOptions, schema.MulOptionsT()),
            ("SOFTMAX", [5], 6, options.SoftmaxOptions, schema.SoftmaxOptionsT(1.0)),
        )
    ]
    model.subgraphs = [
        schema.SubGraphT(list(tensors), np.array([0], np.int32), np.array([6], np.int32), list(ops))
        for _ in range(subgraphs)
    ]
    model.signatureDefs = [
        schema.SignatureDefT([schema.TensorMapT(b"image", 0)], [schema.TensorMapT(b"probabilities", 6)], key, number)
        for number, key in enumerate((b"keep_100", b"keep_50")[:subgraphs])
    ]
    how = json.dumps({"size": SIZE, "dtype": dtype})
    words = {"model": "colours", "precision": "fp32", "labels": json.dumps(labels), "preprocessing": how, **about}
    store_description(model, words)
    contents.store_strings(model, words)
    return append_labels(contents.write_model(model), words)


def draw() -> tuple[Array, Array]:
    """Pictures [6, 8, 8, 3] and their probabilities [6, 3], by the definition."""
    pictures = np.random.default_rng(0).integers(0, 256, (6, SIZE, SIZE, 3), np.uint8)
    pictures[:3] //= 2
    pictures[:3] += 120 * np.eye(3, dtype=np.uint8)[:, None, None, :]  # a red one, a green one, a blue one
    powers = np.exp(pictures.mean((1, 2)) / 64)
    return pictures, powers / powers.sum(1, keepdims=True)


def run(data: bytes, pictures: Array) -> Array:
    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    answers = []
    for picture in pictures:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], picture[None])
        interpreter.invoke()
        answers.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0])
    return np.stack(answers)


def test_mediapipe_takes_the_file_as_it_is(tmp_path: Path) -> None:
    file, (pictures, expected) = tmp_path / "colours.tflite", draw()
    file.write_bytes(write_file(COLOURS))
    told = ask_mediapipe(file, pictures)
    assert told.names[:3] == list(COLOURS)
    np.testing.assert_allclose(told.scores, expected, atol=1e-6)
    assert (told.metadata["name"], told.metadata["minParserVersion"]) == ("colours", "1.0.0")
    assert "fp32" in told.metadata["description"]
    (graph,) = told.metadata["subgraphMetadata"]
    (image,), (probabilities,) = graph["inputTensorMetadata"], graph["outputTensorMetadata"]
    assert image["content"] == {"contentPropertiesType": 2, "contentProperties": {"colorSpace": 1}}  # of an image, RGB
    assert image["processUnits"] == [{"optionsType": 1, "options": {"mean": [0.0], "std": [1.0]}}]
    assert image["stats"] == {"min": [0.0], "max": [255.0]}
    assert "8 x 8 pixels" in image["description"]
    assert probabilities["content"]["contentPropertiesType"] == 1  # features
    assert probabilities["stats"] == {"min": [0.0], "max": [1.0]}
    (labels,) = probabilities["associatedFiles"]
    assert (labels["name"], labels["type"]) == (LABELS, 2)  # of an axis


def test_mediapipe_squashes_larger_pictures_and_skips_pixels(tmp_path: Path) -> None:
    """As docs/libraries.md says: of 16 x 32 pixels for 8 x 8 it sees each second of each fourth column."""
    file, picture = tmp_path / "colours.tflite", np.zeros((16, 32, 3), np.uint8)
    file.write_bytes(write_file(COLOURS))
    picture[..., 2] = 255
    picture[::2, ::4] = (255, 0, 0)
    told = ask_mediapipe(file, picture[None])
    assert told.names == ["red"]
    np.testing.assert_allclose(told.scores[0, 1:], 1 / (2 + np.exp(255 / 64)), rtol=1e-4)


def test_litert_and_our_readers_pass_over_it(tmp_path: Path) -> None:
    data, (pictures, expected) = write_file(COLOURS), draw()
    np.testing.assert_allclose(run(data, pictures), expected, atol=1e-6)
    assert json.loads(read_strings(data)["labels"]) == list(COLOURS)
    two = write_file(COLOURS, subgraphs=2)
    np.testing.assert_allclose(run(select_method(two, "keep_50"), pictures), expected, atol=1e-6)
    (tmp_path / "two.tflite").write_bytes(two)
    refused = run_mediapipe(tmp_path / "two.tflite", pictures)
    assert "single subgraph" in refused.stderr  # if it takes them one day, the note of the export is to go


def test_who_made_a_model_is_said(tmp_path: Path) -> None:
    file, about = tmp_path / "colours.tflite", {"author": "Ada É.", "license": "MIT", "description": "Tells colours."}
    file.write_bytes(write_file(COLOURS, **about))
    told = ask_mediapipe(file, draw()[0][:1]).metadata
    assert about == {field: told[field] for field in about}
    assert "version" not in told


def test_of_a_tensor_nothing_is_said(tmp_path: Path) -> None:
    data = write_file(COLOURS, dtype="float32")
    assert not zipfile.is_zipfile(BytesIO(data))
    assert b"TFLITE_METADATA" not in data
    assert b"TFLITE_METADATA" in write_file(COLOURS)


def test_a_class_without_a_name_has_its_number(tmp_path: Path) -> None:
    file, (pictures, expected) = tmp_path / "colours.tflite", draw()
    file.write_bytes(write_file(None))
    assert not zipfile.is_zipfile(file)
    told = ask_mediapipe(file, pictures)
    assert told.names == [None] * len(pictures)
    np.testing.assert_allclose(told.scores, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (("same", "same", "Größe, 1 é\t"), ["same", "same", "Größe, 1 é\t"]),
        (("", "two\nlines", "\r"), [None, "two lines", " "]),
        (("a", "b", ""), ["a", "b", None]),
    ],
)
def test_odd_labels_keep_their_places(tmp_path: Path, labels: tuple[str, ...], names: list[str | None]) -> None:
    file, (pictures, _) = tmp_path / "colours.tflite", draw()
    file.write_bytes(write_file(labels))
    assert ask_mediapipe(file, pictures[:3]).names == names


def test_equal_models_give_equal_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_file(COLOURS)
    monkeypatch.setattr("time.time", lambda: 2e9)
    monkeypatch.setattr("time.localtime", lambda *_: (2033, 5, 18, 3, 33, 20, 2, 138, 0))
    assert write_file(COLOURS) == data
    (tmp_path / "a.tflite").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "a.tflite") as archive:
        (info,) = archive.infolist()
        assert info.compress_type == zipfile.ZIP_STORED
        assert archive.read(info) == b"red\ngreen\nblue\n"
        assert archive.testzip() is None
