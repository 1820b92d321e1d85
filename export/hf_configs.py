"""What transformers.js and transformers read beside an .onnx: config.json and preprocessor_config.json.

They say what a Preprocessing says as exactly as those words can; where they cannot, the nearest, and the second file
says how that differs. docs/libraries.md has what it makes of pictures.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bigvit_edge.artifact import Entry
from bigvit_edge.preprocessing import BORDER, CENTER, HALF_TO_EVEN, RESIZES, SQUARE, SQUASH

FORMAT = "onnx"
CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
# The word for an image classifier that AutoModelForImageClassification of both knows: the graph is the file's own.
KIND, CLASS = "vit", "ViTForImageClassification"
RESAMPLINGS = dict(zip(RESIZES, (0, 2, 3, 1), strict=True))  # Pillow's numbers
SQUARED = "the whole picture is resized and its middle cut out, where the middle would be cut out and resized"
BESIDE = "the middle may begin a pixel beside ours"
BLACK = "what a picture lacks is black, where it would be of the mean's colour"
UNSCALED = "transformers leaves mean and std out where it turns the channels to BGR; transformers.js does both"


def write_configs(entries: Iterable[Entry], folder: Path) -> tuple[dict[str, str], tuple[str, ...]]:
    """Write the two files into a bundle's folder, for its .onnx.

    Returns the sha256 of each by its name, and what a user must know; nothing is written where there is no .onnx.
    """
    entry = next((entry for entry in entries if entry.format == FORMAT), None)
    if entry is None:
        return {}, ()
    written = {}
    for name, content in ((CONFIG, describe_model(entry)), (PROCESSOR, describe_preprocessing(entry))):
        data = (json.dumps(content, indent=2) + "\n").encode()
        (folder / name).write_bytes(data)
        written[name] = hashlib.sha256(data).hexdigest()
    said = [what for what in list_differences(entry) if what in (BLACK, UNSCALED)]  # more than pixels at an edge
    return written, tuple(f"by {PROCESSOR}, {what}" for what in said)


def describe_model(entry: Entry) -> dict[str, Any]:
    """Describe a file's model as a config.json does.

    Labels that nobody named are transformers' LABEL_0 and so on; of two classes of one name label2id has the first.
    """
    labels = entry.labels or tuple(f"LABEL_{i}" for i in range(entry.outputs[0].shape[1]))
    numbers: dict[str, int] = {}
    for number, label in enumerate(labels):
        numbers.setdefault(label, number)
    return {
        "architectures": [CLASS], "model_type": KIND, "image_size": entry.preprocessing.size, "num_channels": 3,
        "num_labels": len(labels), "problem_type": "single_label_classification",
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": numbers,
        "transformers.js_config": {"dtype": "fp32"},  # its word for: the name of the file as it stands
    }  # fmt: skip


def describe_preprocessing(entry: Entry) -> dict[str, Any]:
    """Describe what a file's input is made by as a preprocessor_config.json does.

    Of a file that takes pixels it rescales and normalises nothing. 'bigvit_edge' says it in our own words.
    """
    how, takes_pixels = entry.preprocessing, entry.inputs[0].dtype == "uint8"
    side, cut = how.resize_to or how.size, {"height": how.size, "width": how.size}
    size = {
        SQUARE: {"shortest_edge": side}, CENTER: {"shortest_edge": side}, SQUASH: {"height": side, "width": side},
        BORDER: {"shortest_edge": side, "longest_edge": side},
    }[how.crop]  # fmt: skip
    flips = _flips(entry)
    mean, std = (values[::-1] if flips else values for values in (how.mean, how.std))  # of the channels before the flip
    return {
        "image_processor_type": "MobileViTImageProcessor" if flips else "CLIPImageProcessor",
        "do_convert_rgb": True, "do_resize": True, "size": size, "resample": RESAMPLINGS[how.resize],
        "do_center_crop": True, "crop_size": cut, "do_rescale": not takes_pixels, "do_normalize": not takes_pixels,
        **({} if takes_pixels else {"rescale_factor": how.scale, "image_mean": mean, "image_std": std}),
        **({"do_flip_channel_order": True} if flips else {}),
        "bigvit_edge": {"preprocessing": asdict(how), "differs": list_differences(entry)},
    }  # fmt: skip


def list_differences(entry: Entry) -> list[str]:
    """List what those words make of a picture otherwise than ours."""
    how = entry.preprocessing
    smaller, larger = ((how.resize_to or how.size) < how.size, how.crop == CENTER or (how.resize_to or 0) > how.size)
    beside = how.crop in (CENTER, SQUASH) and (smaller or (larger and how.crop_rounding == HALF_TO_EVEN))
    unscaled = _flips(entry) and (set(how.mean), set(how.std)) != ({0.0}, {1.0})
    found = {SQUARED: how.crop == SQUARE, BESIDE: beside, BLACK: how.crop == BORDER, UNSCALED: unscaled}
    return [what for what, holds in found.items() if holds]


def _flips(entry: Entry) -> bool:
    """Whether the file wants the channels turned; one that takes pixels turns them itself."""
    return entry.preprocessing.color == "BGR" and entry.inputs[0].dtype != "uint8"
