"""MediaPipe on a file and pictures: `python tests/mediapipe_classifier.py FILE PICTURES.npy [--centre]`.

In a process of its own, with build/mediapipe in PYTHONPATH. The pictures are [n, H, W, 3], uint8, RGB; --centre: the
largest centre square of each, by MediaPipe's region of interest. Prints, in JSON, the metadata as MediaPipe's classes
of the schema read it, and of each picture the classes, the most probable first: number, name, score.
"""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

# MediaPipe imports what it draws with, hundreds of megabytes, even where nothing is drawn
for name in ("cv2", "matplotlib", "matplotlib.pyplot"):
    sys.modules[name] = ModuleType(name)


def main(file: str, pictures: str, *words: str) -> None:
    print(json.dumps({"metadata": read_metadata(Path(file).read_bytes()), "answers": classify(file, pictures, words)}))


def read_metadata(data: bytes) -> Any:
    """What the file says of itself; None where it says nothing."""
    from mediapipe.tasks.metadata import metadata_schema_py_generated as metadata
    from mediapipe.tasks.metadata import schema_py_generated as schema

    model = schema.Model.GetRootAs(data)
    for number in range(model.MetadataLength()):
        entry = model.Metadata(number)
        if entry.Name() == b"TFLITE_METADATA":
            found = model.Buffers(entry.Buffer()).DataAsNumpy().tobytes()
            assert metadata.ModelMetadata.ModelMetadataBufferHasIdentifier(found, 0)
            return convert(metadata.ModelMetadataT.InitFromObj(metadata.ModelMetadata.GetRootAs(found)))
    return None


def convert(value: Any) -> Any:
    """Objects of the generated classes as dicts, of what is set in them."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, list):
        return [convert(each) for each in value]
    if hasattr(value, "__dict__"):
        return {name: convert(each) for name, each in vars(value).items() if each is not None}
    return value


def classify(file: str, pictures: str, words: tuple[str, ...]) -> list[list[tuple[int, str | None, float]]]:
    """By ImageClassifier."""
    import mediapipe
    from mediapipe.tasks.python import BaseOptions
    from mediapipe.tasks.python.components.containers.rect import RectF
    from mediapipe.tasks.python.vision import ImageClassifier, ImageClassifierOptions
    from mediapipe.tasks.python.vision.core.image_processing_options import ImageProcessingOptions

    options = ImageClassifierOptions(base_options=BaseOptions(model_asset_path=file))
    answers = []
    with ImageClassifier.create_from_options(options) as classifier:
        for pixels in np.load(pictures):
            height, width = pixels.shape[:2]
            side = min(height, width)
            x, y = (width - side) / 2 / width, (height - side) / 2 / height
            square = RectF(left=x, top=y, right=1 - x, bottom=1 - y)
            how = ImageProcessingOptions(region_of_interest=square if "--centre" in words else None)
            image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(pixels))
            (head,) = classifier.classify(image, how).classifications
            answers.append([(each.index, each.category_name, each.score) for each in head.categories])
    return answers


if __name__ == "__main__":
    main(*sys.argv[1:])
